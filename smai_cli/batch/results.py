"""An outcome -> the line that is its result; a line of results -> what a later run must know of it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from smai_cli.batch.lines import OPENAI
from smai_cli.batch.plain import PlainPattern, decoded_id
from smai_cli.errors import SmaiError, Status
from smai_cli.frozen import Frozen
from smai_cli.output.extract import code_block
from smai_cli.output.summary import count_tokens, error_json
from smai_cli.stream.chunk import Chunk, Unread, Usage
from smai_cli.stream.outcome import Outcome

# Failures that would be the same again: a refused request, the token limit, a withheld answer, a line that is none.
# The names that results have for themselves, in both forms or in one; a member of a line that has one goes to `line`.
_RESERVED = frozenset(
    (  # noqa: SIM905  # words, to be read
        "id index custom_id complete usage_source retries first_delta_s elapsed_s request copy exit_status error line"
    ).split()
)
_FLAT_NAMES = _RESERVED | {"text", "tool_calls", "refusal", "finish_reason", "model", "usage"}
_OPENAI_NAMES = _RESERVED | {"response"}
SETTLED = (Status.COMPLETE, Status.USAGE, Status.REFUSED, Status.CUT_SHORT, Status.WITHHELD)
# More than any input has lines.
_MOST = 1 << 60
_DIGEST = "sha256:"


class Asked(NamedTuple):
    """What a result says of its line: the number, the id, the SHA-256 of the request, and which copy of it it is.

    `form` is that of the result, `handed` are the members that come back in it.
    """

    number: int
    id: str | int | None
    digest: bytes
    copy: int
    form: str
    handed: Mapping[str, Any]


class Answer(Frozen):
    """What came: the text, the tool calls as the chat API has them, the outcome, and the tokens, counted by whom."""

    text: str
    calls: list[Any]
    outcome: Outcome
    usage: Usage
    usage_source: str


class Collector:
    """The answer of one line, kept whole: that of the last try, complete or not.

    `check` raises a SmaiError for a text that is not what was asked for; `on_begin` is called as each answer begins.
    With `extract`, the text of a complete answer is its first code block. It is a mode that delivers nothing by itself.
    """

    holds_back = True
    takes_all = False
    # Media stay in the result: they are delivered.
    needs = frozenset({Unread.TEXT, Unread.CALL})
    has_delivered = False

    def __init__(
        self,
        check: Callable[[str], str] | None = None,
        on_begin: Callable[[], None] = lambda: None,
        *,
        extract: bool = False,
    ) -> None:
        self._check = check
        self._extract = extract
        self._on_begin = on_begin
        self._has_begun = False
        self._pieces: list[str] = []
        self._has_ended = False

    def piece(self, data: bytes, /) -> None:
        """Take nothing of the bytes: the text is in the chunks."""

    def chunk(self, chunk: Chunk) -> None:
        """Keep the text; the first chunk of another try begins anew."""
        if self._has_ended:
            self._pieces, self._has_ended, self._has_begun = [], False, False
        if not self._has_begun:
            self._has_begun = True
            self._on_begin()
        if chunk.text:
            self._pieces.append(chunk.text)

    def end(self, outcome: Outcome) -> None:
        """Take the code block out of a complete answer, if only that is wanted, and check the text."""
        self._has_ended = True
        if outcome.error is None and self._extract:
            self._pieces = [code_block("".join(self._pieces))]
        if outcome.error is None and self._check and not outcome.calls:
            self._pieces = [self._check("".join(self._pieces))]

    def answer(self, outcome: Outcome) -> Answer:
        """Return what came."""
        usage, source = count_tokens(outcome)
        text = "".join(self._pieces)
        return Answer(text=text, calls=outcome.calls.as_json(), outcome=outcome, usage=usage, usage_source=source)


def encode_result(asked: Asked, answer: Answer, hide: Callable[[str], str] = str) -> bytes:
    """Return the result of a line that was asked, as a line of JSON in UTF-8.

    `hide` keeps secrets out of what the server says beside the answer.
    """
    outcome = answer.outcome
    first_s = outcome.first_delta_s
    facts = {
        "complete": outcome.error is None,
        "text": answer.text,
        **({"tool_calls": answer.calls} if answer.calls else {}),
        **({"refusal": outcome.refusal} if outcome.refusal else {}),
        "finish_reason": hide(outcome.finish_reason) if outcome.finish_reason else outcome.finish_reason,
        "model": hide(outcome.model) if outcome.model else outcome.model,
        "usage": answer.usage._asdict(),
        "usage_source": answer.usage_source,
        "retries": outcome.retries,
        "first_delta_s": None if first_s is None else round(first_s, 6),
        "elapsed_s": round(outcome.elapsed_s, 6),
        "request": f"{_DIGEST}{asked.digest.hex()}",
        **({"copy": asked.copy} if asked.copy > 1 else {}),
        "exit_status": int(outcome.status),
        "error": _hidden(error_json(outcome.error), hide),
    }
    return _encoded(asked, facts)


def _hidden(error: dict[str, Any] | None, hide: Callable[[str], str]) -> dict[str, Any] | None:
    return error and {name: hide(member) if isinstance(member, str) else member for name, member in error.items()}


def encode_failure(asked: Asked, error: SmaiError) -> bytes:
    """Return the result of a line that could not be asked."""
    facts = {
        "complete": False,
        "text": "",
        "request": f"{_DIGEST}{asked.digest.hex()}",
        "exit_status": int(error.status),
        "error": error_json(error),
    }
    return _encoded(asked, facts)


def _encoded(asked: Asked, facts: dict[str, Any]) -> bytes:
    named = {"id": asked.id, "index": asked.number}
    value = named | (_as_openai(asked, facts) if asked.form == OPENAI else facts)
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


def _as_openai(asked: Asked, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts in the form of OpenAI's batch output (API reference, "The request output object")."""
    message = {"role": "assistant", "content": facts["text"] or None}
    message |= {name: facts[name] for name in ("tool_calls", "refusal") if name in facts}
    error = facts["error"]
    came = facts["text"] or not facts.keys().isdisjoint(("tool_calls", "refusal")) or error is None
    body = {
        "object": "chat.completion",
        "model": facts.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": facts.get("finish_reason")}],
        "usage": facts.get("usage"),
    }
    request_id = error["request_id"] if error else None
    beside = ("complete", "usage_source", "retries", "first_delta_s", "elapsed_s", "request", "copy", "exit_status")
    return {
        "id": f"smai-{asked.number}",
        "custom_id": asked.id,
        "response": {"status_code": 200, "request_id": request_id, "body": body} if came else None,
        "error": {"code": error["kind"], **error} if error else None,
        **{name: facts[name] for name in beside if name in facts},
    }


class Known(NamedTuple):
    """What a line of results says: the id, the digest of its request, which copy, and the exit status."""

    id: str | int | None
    digest: bytes
    copy: int
    number: int
    status: int


# A complete result in the flat form with nothing beside it.
_PLAIN = PlainPattern(
    rb'\{"id":(null|-?COUNT|TEXT),"index":(COUNT),"complete":true,"text":TEXT,"finish_reason":(?:null|TEXT),'
    rb'"model":(?:null|TEXT),"usage":\{"[a-z_]+":NUMBER(?:,"[a-z_]+":NUMBER)*+\},"usage_source":TEXT,'
    rb'"retries":COUNT,"first_delta_s":SECONDS,"elapsed_s":SECONDS,'
    rb'"request":"sha256:([0-9a-f]{64})",(?:"copy":(COUNT),)?"exit_status":0,"error":null\}\n'
)


def read_result(data: bytes) -> Known | None:
    """Return what a line of results says; None for what is none."""
    return plain_result(data) or _read_any(data)


def plain_result(data: bytes) -> Known | None:
    """Return what a line of results says; None where it is to be read in full."""
    found = _PLAIN.match(data)
    if found is None:
        return None
    name, number, digest, copy = found.groups()
    return Known(decoded_id(name), bytes.fromhex(digest.decode()), int(copy or 1), int(number), Status.COMPLETE)


def _read_any(data: bytes) -> Known | None:
    try:
        value = json.loads(data)
        name = value["custom_id"] if _is_openai(value) else value["id"]
        copy, number, status = value.get("copy", 1), value["index"], value["exit_status"]
        numbers = all(type(it) is int and 0 <= it < most for it, most in ((copy, _MOST), (number, _MOST), (status, 12)))
        if not numbers or not (name is None or type(name) in (str, int)):
            return None
        return Known(name, _digest_in(value["request"]), copy, number, status)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_openai(value: dict[str, Any]) -> bool:
    return "custom_id" in value  # a flat result never has it: it is the id there


def _digest_in(text: str) -> bytes:
    digest = bytes.fromhex(text.removeprefix(_DIGEST))
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("no digest")
    return digest
