"""Encode an outcome as a line of results, and read from such a line what a later run needs."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from smai_cli.batch.input.lines import OPENAI
from smai_cli.batch.results.collector import Answer
from smai_cli.batch.results.openai_body import completion_body
from smai_cli.errors import SmaiError, Status
from smai_cli.output.summary import error_json

# Members of a message that a flat result has under their own names; all others are in its `extra`.
_KEPT_BY_NAME = ("annotations", "audio", "images")
# The names under which servers send reasoning; a flat result calls it `reasoning`.
_REASONING_NAMES = ("reasoning_content", "reasoning")
# Members of a completion that a flat result does not have.
_OF_COMPLETION_ONLY = ("id", "created", "model")
# Names that results use themselves, in one form or both; a member of a line with such a name goes to `line`.
_RESERVED = frozenset(
    (  # noqa: SIM905  # words, to be read
        "id index custom_id complete usage_source retries first_delta_s elapsed_s request line_digest copy exit_status "
        "error line"
    ).split()
)
_FLAT_NAMES = (
    _RESERVED
    | {
        "text",
        "tool_calls",
        "refusal",
        "reasoning",
        "logprobs",
        "finish_reason",
        "model",
        "usage",
        "request_id",
        "extra",
    }
    | set(_KEPT_BY_NAME)
)
_OPENAI_NAMES = _RESERVED | {"response"}
# Statuses that --resume does not send again: the failure would be the same.
SETTLED = (Status.COMPLETE, Status.USAGE, Status.REFUSED, Status.CUT_SHORT, Status.WITHHELD)
# More than the lines of any input.
_MOST = 1 << 60
_LAST_STATUS = max(Status)
_DIGEST = "sha256:"
_DIGEST_BYTES = hashlib.sha256().digest_size
_FORBIDDEN = 403
_LINE_ENDS = ("\n", "", "\r\n")
_JSON = json.JSONDecoder()
_BOM = b"\xef\xbb\xbf"


class LineIdentity(NamedTuple):
    """The identity of a line in its result: number, id, SHA-256 of the request, and which copy of that request it is.

    `form` is the form of the result, `user_members` are the members that are copied to it, and `line_digest` is the
    SHA-256 of the line itself, without the options.
    """

    number: int
    id: str | int | None
    digest: bytes
    copy: int
    form: str
    user_members: Mapping[str, Any]
    line_digest: bytes = b""


def encode_result(identity: LineIdentity, answer: Answer, hide: Callable[[str], str] = str) -> bytes:
    """Return the result of a line that was sent, as a line of JSON in UTF-8.

    `hide` removes secrets from everything that the server sent except the answer.
    """
    outcome = answer.outcome
    first_s = outcome.first_delta_s
    facts = {
        "complete": outcome.error is None,
        **(_openai_answer if identity.form == OPENAI else _flat_answer)(identity, answer, hide),
        "usage_source": answer.usage_source,
        "retries": outcome.retries,
        "first_delta_s": None if first_s is None else round(first_s, 6),
        "elapsed_s": round(outcome.elapsed_s, 6),
        **_identity_facts(identity),
        **({"copy": identity.copy} if identity.copy > 1 else {}),
        "exit_status": int(outcome.status),
        "error": _hide(error_json(outcome.error), hide),
    }
    return _encode(identity, facts)


def _identity_facts(identity: LineIdentity) -> dict[str, str]:
    digests = {"request": identity.digest, "line_digest": identity.line_digest}
    return {name: f"{_DIGEST}{digest.hex()}" for name, digest in digests.items() if digest}


def _flat_answer(identity: LineIdentity, answer: Answer, hide: Callable[[str], str]) -> dict[str, Any]:  # noqa: ARG001
    # as below
    """Return the members of the answer in a flat result."""
    assembly, outcome = answer.assembly, answer.outcome
    message = assembly.message()
    reasoning = answer.reasoning or next((message[name] for name in _REASONING_NAMES if message.get(name)), "")
    more = {name: message[name] for name in message if name not in (*_KEPT_BY_NAME, *_REASONING_NAMES)}
    completion = {name: value for name, value in assembly.completion.items() if name not in _OF_COMPLETION_ONLY}
    extra = _hide({**completion, **assembly.choice}, hide) | more
    optional = {
        "tool_calls": answer.calls,
        "refusal": answer.refusal,
        "reasoning": reasoning,
        "logprobs": assembly.logprobs,
        **{name: message[name] for name in _KEPT_BY_NAME if name in message},
        "extra": extra,
    }
    return {
        "text": answer.text,
        **{name: value for name, value in optional.items() if value},
        "finish_reason": _hide(outcome.finish_reason, hide),
        "model": _hide(outcome.model, hide),
        "usage": _hide(_usage_in(answer), hide) or answer.usage._asdict(),
        "request_id": _hide(answer.request_id, hide),
    }


def _openai_answer(identity: LineIdentity, answer: Answer, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return the answer in the form of OpenAI's batch output (API reference, "The request output object")."""
    assembly, outcome = answer.assembly, answer.outcome
    message = {
        "content": answer.text or None,
        **({"tool_calls": answer.calls} if answer.calls else {}),
        **({"refusal": answer.refusal} if answer.refusal else {}),
        **assembly.message(),
    }
    if answer.reasoning and not any(message.get(name) for name in _REASONING_NAMES):
        message["reasoning_content"] = answer.reasoning
    usage = _usage_in(answer)
    has_come = outcome.error is None or usage is not None or assembly.logprobs or any(message.values())
    body = completion_body(
        number=identity.number,
        model=_hide(outcome.model, hide) or "",
        completion=_hide(assembly.completion, hide),
        choice=_hide(assembly.choice, hide),
        message=message,
        logprobs=assembly.logprobs,
        usage=_hide(usage, hide),
        finish_reason=_hide(outcome.finish_reason, hide),
        is_withheld=outcome.status == Status.WITHHELD,
    )
    response = {"status_code": 200, "request_id": _hide(answer.request_id, hide), "body": body}
    return {"response": response if has_come else None}


def _usage_in(answer: Answer) -> dict[str, Any] | None:
    """Return the tokens as the server sent them, renamed to the names of the chat API."""
    sent = answer.assembly.usage
    if sent is None or answer.usage_source != "server":
        return None
    counts = {name: count for name, count in answer.usage._asdict().items() if count is not None}
    is_of_chat = "prompt_tokens" in sent or "completion_tokens" in sent
    return sent if is_of_chat else {**sent, **counts}


def _hide(value: Any, hide: Callable[[str], str]) -> Any:
    """Return a JSON value with the secrets in its texts hidden."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {name: _hide(member, hide) for name, member in value.items()}
    return [_hide(item, hide) for item in value] if isinstance(value, list) else value


def encode_failure(identity: LineIdentity, error: SmaiError) -> bytes:
    """Return the result of a line that could not be sent."""
    facts = {
        "complete": False,
        **({"response": None} if identity.form == OPENAI else {"text": ""}),
        **_identity_facts(identity),
        "exit_status": int(error.status),
        "error": error_json(error),
    }
    return _encode(identity, facts)


def _encode(identity: LineIdentity, facts: dict[str, Any]) -> bytes:
    value: dict[str, Any] = {"id": identity.id, "index": identity.number}
    if identity.form == OPENAI:
        error = facts.pop("error")
        value |= {"id": f"smai-{identity.number}", "custom_id": identity.id, "response": facts.pop("response")}
        value["error"] = {"code": error["kind"], **error} if error else None
    value |= facts
    reserved = _OPENAI_NAMES if identity.form == OPENAI else _FLAT_NAMES
    taken = {name: member for name, member in identity.user_members.items() if name in reserved}
    value |= {name: member for name, member in identity.user_members.items() if name not in reserved}
    if taken:
        value["line"] = taken
    return _as_line(value)


def renumber(line: bytes, number: int) -> bytes:
    """Return a result with the new number of its line."""
    value = json.loads(line)
    value["index"] = number
    if "custom_id" in value:  # a line in OpenAI's form; in a flat result, it is the id
        value["id"] = f"smai-{number}"
    return _as_line(value)


def _as_line(value: dict[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON can escape and UTF-8 cannot hold, stays escaped.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"


def is_final(status: int, *, is_retryable: bool) -> bool:
    """Return whether --resume must not repeat a failure although it repeats others with this exit status.

    A broken answer can say so itself. A line that could not reach the server (3) is always sent again: the cause may be
    fixed.
    """
    return status == Status.BROKEN and not is_retryable


class ParsedResult(NamedTuple):
    """A line of results: the id, the digest of its request, which copy, the number, and the exit status.

    `line_digest` is empty if a result has none, or if it was not asked for. `is_final`: the failure should not be
    repeated, whatever its status is. `is_forbidden`: HTTP status 403, because of the line or the key.
    """

    id: str | int | None
    digest: bytes
    copy: int
    number: int
    status: int
    line_digest: bytes = b""
    is_final: bool = False
    is_forbidden: bool = False


def lines_in(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and bytes of each line of a file of results, without the BOM that some editors add."""
    offset = 0
    for line in file:
        if not offset and line.startswith(_BOM):
            offset, line = len(_BOM), line.removeprefix(_BOM)  # noqa: PLW2901  # as if it began there
        yield offset, line
        offset += len(line)


def read_result(data: bytes, *, with_line_digest: bool = False) -> ParsedResult | None:
    """Parse a line of results; None if it is not a result. `line_digest` is left empty unless asked for."""
    try:
        value = _parse(data)
        name = value["custom_id"] if "custom_id" in value else value["id"]
        copy, number, status = value.get("copy", 1), value["index"], value["exit_status"]
        if not (type(copy) is type(number) is type(status) is int and (name is None or type(name) in (str, int))):
            return None
        if not (0 <= copy < _MOST and 0 <= number < _MOST and 0 <= status <= _LAST_STATUS):
            return None
        error = value.get("error")
        is_complete = error is None
        if is_complete != (status == Status.COMPLETE) or value.get("complete", is_complete) is not is_complete:
            return None  # edited, so that it contradicts itself
        digest = _digest_in(value["request"])
        line_digest = _digest_in(value["line_digest"]) if with_line_digest and "line_digest" in value else b""
        if not isinstance(error, dict):
            return ParsedResult(name, digest, copy, number, status, line_digest)
        is_last = is_final(status, is_retryable=error.get("retryable") is not False)
        is_403 = status == Status.REFUSED and error.get("http_status") == _FORBIDDEN
        return ParsedResult(name, digest, copy, number, status, line_digest, is_last, is_403)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parse(data: bytes) -> Any:
    """Parse a line as json.loads does, which takes longer: it looks for the encoding, and for white space."""
    try:
        text = data.decode()
        value, end = _JSON.raw_decode(text)
        if text[end:] in _LINE_ENDS:
            return value
    except ValueError:
        pass
    return json.loads(data)


def tokens_in(data: bytes) -> tuple[int, int]:
    """Return the prompt tokens and completion tokens of a result; 0 if it has none."""
    value = json.loads(data)
    response = value.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    usage = (body if isinstance(body, dict) else value).get("usage")
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    prompt, completion = (count if type(count) is int else 0 for count in counts or (0, 0))
    return prompt, completion


def _digest_in(text: str) -> bytes:
    digest = bytes.fromhex(text.removeprefix(_DIGEST))
    if len(digest) != _DIGEST_BYTES:
        raise ValueError("no digest")
    return digest
