"""An outcome -> the line that is its result; a line of results -> what a later run must know of it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from smai_cli.batch.input.lines import OPENAI
from smai_cli.batch.results.collector import Answer
from smai_cli.batch.results.openai_body import completion_body
from smai_cli.errors import SmaiError, Status
from smai_cli.output.summary import error_json

# Members of a message that a flat result has by their own names; all others are in its `extra`.
_KEPT_BY_NAME = ("annotations", "audio", "images")
# The names in which servers send reasoning, which a flat result has as `reasoning`.
_REASONING_NAMES = ("reasoning_content", "reasoning")
# Members of a completion that a flat result does not have.
_OF_COMPLETION_ONLY = ("id", "created", "model")
# The names that results have for themselves, in both forms or in one; a member of a line that has one goes to `line`.
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
# What --resume does not ask again: the failure would be the same.
SETTLED = (Status.COMPLETE, Status.USAGE, Status.REFUSED, Status.CUT_SHORT, Status.WITHHELD)
# More than any input has lines.
_MOST = 1 << 60
_DIGEST = "sha256:"
_FORBIDDEN = 403
_BOM = b"\xef\xbb\xbf"


class Asked(NamedTuple):
    """What a result says of its line: the number, the id, the SHA-256 of the request, and which copy of it it is.

    `form` is that of the result, `handed` are the members that come back in it, and `line_digest` is the SHA-256 of the
    line itself, without the options.
    """

    number: int
    id: str | int | None
    digest: bytes
    copy: int
    form: str
    handed: Mapping[str, Any]
    line_digest: bytes = b""


def encode_result(asked: Asked, answer: Answer, hide: Callable[[str], str] = str) -> bytes:
    """Return the result of a line that was asked, as a line of JSON in UTF-8.

    `hide` keeps secrets out of what the server says beside the answer.
    """
    outcome = answer.outcome
    first_s = outcome.first_delta_s
    facts = {
        "complete": outcome.error is None,
        **(_openai_answer if asked.form == OPENAI else _flat_answer)(asked, answer, hide),
        "usage_source": answer.usage_source,
        "retries": outcome.retries,
        "first_delta_s": None if first_s is None else round(first_s, 6),
        "elapsed_s": round(outcome.elapsed_s, 6),
        **_identity(asked),
        **({"copy": asked.copy} if asked.copy > 1 else {}),
        "exit_status": int(outcome.status),
        "error": _hidden(error_json(outcome.error), hide),
    }
    return _encoded(asked, facts)


def _identity(asked: Asked) -> dict[str, str]:
    digests = {"request": asked.digest, "line_digest": asked.line_digest}
    return {name: f"{_DIGEST}{digest.hex()}" for name, digest in digests.items() if digest}


def _flat_answer(asked: Asked, answer: Answer, hide: Callable[[str], str]) -> dict[str, Any]:  # noqa: ARG001  # as below
    """Return the members of the answer in a flat result."""
    assembly, outcome = answer.assembly, answer.outcome
    message = assembly.message()
    reasoning = answer.reasoning or next((message[name] for name in _REASONING_NAMES if message.get(name)), "")
    more = {name: message[name] for name in message if name not in (*_KEPT_BY_NAME, *_REASONING_NAMES)}
    beside = {name: value for name, value in assembly.completion.items() if name not in _OF_COMPLETION_ONLY}
    extra = _hidden({**beside, **assembly.choice}, hide) | more
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
        "finish_reason": _hidden(outcome.finish_reason, hide),
        "model": _hidden(outcome.model, hide),
        "usage": _hidden(_usage_of(answer), hide) or answer.usage._asdict(),
        "request_id": _hidden(answer.request_id, hide),
    }


def _openai_answer(asked: Asked, answer: Answer, hide: Callable[[str], str]) -> dict[str, Any]:
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
    usage = _usage_of(answer)
    has_come = outcome.error is None or usage is not None or assembly.logprobs or any(message.values())
    body = completion_body(
        number=asked.number,
        model=_hidden(outcome.model, hide) or "",
        completion=_hidden(assembly.completion, hide),
        choice=_hidden(assembly.choice, hide),
        message=message,
        logprobs=assembly.logprobs,
        usage=_hidden(usage, hide),
        finish_reason=_hidden(outcome.finish_reason, hide),
        is_withheld=outcome.status == Status.WITHHELD,
    )
    response = {"status_code": 200, "request_id": _hidden(answer.request_id, hide), "body": body}
    return {"response": response if has_come else None}


def _usage_of(answer: Answer) -> dict[str, Any] | None:
    """Return the tokens as the server sent them, with the names of the chat API where they have others."""
    sent = answer.assembly.usage
    if sent is None or answer.usage_source != "server":
        return None
    counts = {name: count for name, count in answer.usage._asdict().items() if count is not None}
    is_of_chat = "prompt_tokens" in sent or "completion_tokens" in sent
    return sent if is_of_chat else {**sent, **counts}


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    """Return a value of JSON with the secrets in its texts hidden."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {name: _hidden(member, hide) for name, member in value.items()}
    return [_hidden(item, hide) for item in value] if isinstance(value, list) else value


def encode_failure(asked: Asked, error: SmaiError) -> bytes:
    """Return the result of a line that could not be asked."""
    facts = {
        "complete": False,
        **({"response": None} if asked.form == OPENAI else {"text": ""}),
        **_identity(asked),
        "exit_status": int(error.status),
        "error": error_json(error),
    }
    return _encoded(asked, facts)


def _encoded(asked: Asked, facts: dict[str, Any]) -> bytes:
    value: dict[str, Any] = {"id": asked.id, "index": asked.number}
    if asked.form == OPENAI:
        error = facts.pop("error")
        value |= {"id": f"smai-{asked.number}", "custom_id": asked.id, "response": facts.pop("response")}
        value["error"] = {"code": error["kind"], **error} if error else None
    value |= facts
    reserved = _OPENAI_NAMES if asked.form == OPENAI else _FLAT_NAMES
    taken = {name: member for name, member in asked.handed.items() if name in reserved}
    value |= {name: member for name, member in asked.handed.items() if name not in reserved}
    if taken:
        value["line"] = taken
    return _as_line(value)


def renumbered(line: bytes, number: int) -> bytes:
    """Return a result whose line has another number by now."""
    value = json.loads(line)
    value["index"] = number
    if _is_openai(value):
        value["id"] = f"smai-{number}"
    return _as_line(value)


def _as_line(value: dict[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON can escape and UTF-8 cannot hold, stays escaped.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"


def is_final(status: int, *, is_retryable: bool) -> bool:
    """Return whether --resume does not repeat a failure although its exit status is one of those that it repeats.

    A broken answer can say so itself. What found no server (3) is asked again after its cause was mended.
    """
    return status == Status.BROKEN and not is_retryable


class Known(NamedTuple):
    """What a line of results says: the id, the digest of its request, which copy, the number, and the exit status.

    `line_digest` is as in Asked, empty where a result has none. `is_final` says that the failure is not worth
    repeating, whatever its status is, `is_forbidden` that it is an HTTP status 403: the line or the key may be why.
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
    """Yield each line of a file of results with its offset, without the BOM that some editors put before the first."""
    offset = 0
    for line in file:
        if not offset and line.startswith(_BOM):
            offset, line = len(_BOM), line.removeprefix(_BOM)  # noqa: PLW2901  # as if it began there
        yield offset, line
        offset += len(line)


def read_result(data: bytes) -> Known | None:
    """Return what a line of results says; None for what is not a result."""
    try:
        value = json.loads(data)
        name = value["custom_id"] if _is_openai(value) else value["id"]
        copy, number, status = value.get("copy", 1), value["index"], value["exit_status"]
        numbers = all(type(it) is int and 0 <= it < most for it, most in ((copy, _MOST), (number, _MOST), (status, 12)))
        if not numbers or not (name is None or type(name) in (str, int)):
            return None
        line_digest = _digest_in(value["line_digest"]) if "line_digest" in value else b""
        error = value.get("error")
        is_retryable = not isinstance(error, dict) or error.get("retryable") is not False
        is_last = is_final(status, is_retryable=is_retryable)
        is_403 = status == Status.REFUSED and isinstance(error, dict) and error.get("http_status") == _FORBIDDEN
        return Known(name, _digest_in(value["request"]), copy, number, status, line_digest, is_last, is_403)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def tokens_in(data: bytes) -> tuple[int, int]:
    """Return the tokens of the prompt and of the answer that a result has; 0 where it has none."""
    value = json.loads(data)
    response = value.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    usage = (body if isinstance(body, dict) else value).get("usage")
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    prompt, completion = (count if type(count) is int else 0 for count in counts or (0, 0))
    return prompt, completion


def _is_openai(value: dict[str, Any]) -> bool:
    return "custom_id" in value  # a flat result never has it: it is the id there


def _digest_in(text: str) -> bytes:
    digest = bytes.fromhex(text.removeprefix(_DIGEST))
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("no digest")
    return digest
