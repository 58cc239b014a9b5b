"""Collect everything but the text from the events of one answer, in the form of the chat API.

Log probabilities, reasoning, annotations, audio and images were paid for, so a result contains them.
"""

import json
import re
from typing import Any

from smai_cli.answer.chunk import Chunk
from smai_cli.stream.content import read_content, read_thoughts
from smai_cli.stream.dialects.chat_choice import REASONING, list_choices
from smai_cli.stream.json_text import EXACT, NumberAsTextError, is_number

# Log probabilities in an event that otherwise has only text.
_LOGPROBS = re.compile(r'"logprobs"\s*:\s*(?:\{|\[\s*\{)')
# Members of an event that are not part of the answer, or that a result has elsewhere.
_NOT_KEPT = frozenset({"choices", "error", "obfuscation", "object", "usage"})
_NOT_KEPT_OF_CHOICE = frozenset({"delta", "error", "finish_reason", "index", "logprobs", "message", "text", "usage"})
_NOT_KEPT_OF_MESSAGE = frozenset({"content", "function_call", "refusal", "role", "tool_calls"})
# Texts in a delta that are complete, not pieces.
_COMPLETE_TEXTS = frozenset({"format", "id", "name", "role", "type"})
# Lists whose items come in pieces too, each with the index of its item.
_LISTS_OF_PIECES = frozenset({"reasoning_details"})
# Members of a response (Responses API) that a chat completion has too; most of the others repeat the request.
_OF_RESPONSE = {"id": "id", "created_at": "created", "service_tier": "service_tier"}
_AUDIO = ("response.audio.", "response.output_audio.")
# A tool call with one of these is parsed elsewhere, and appears in a result as a call.
_CALLS = frozenset({"arguments", "custom", "function"})
_CITATION = ("start_index", "end_index", "title", "url")


class _Pieces(list[str]):
    """A text in pieces."""


class Assembly:
    """What the events of one answer contain in addition to its text.

    `completion`, `choice` and `message` have the members of these objects of the chat API, `logprobs` those of the
    choice, and `usage` the tokens as the server sent them; None for what was not sent.
    """

    def __init__(self) -> None:
        self.completion: dict[str, Any] = {}
        self.choice: dict[str, Any] = {}
        self.logprobs: dict[str, Any] | None = None
        self.usage: dict[str, Any] | None = None
        self._message: dict[str, Any] = {}
        self._items: dict[int, Any] = {}  # the output items of a response
        self._has_begun = False

    def add(self, chunk: Chunk) -> None:
        """Add the event of a chunk. Most contain only a piece of text and are not parsed again."""
        data = chunk.data
        if not data or (
            chunk.is_plain and self._has_begun and ('"logprobs"' not in data or not _LOGPROBS.search(data))
        ):
            return
        self._has_begun = True
        payload = json.loads(data)
        if not isinstance(payload, dict):
            return
        if "choices" in payload:
            is_other = any(other.choice_index == chunk.choice_index for other in chunk.others)
            self._add_completion(payload, None if is_other else _choice_in(payload["choices"]), chunk.reasoning)
        else:
            self._add_response(payload)

    def message(self) -> dict[str, Any]:
        """Return the members of the message without its text, refusal and tool calls."""
        message: dict[str, Any] = _join(self._message)
        if self._items:
            self._add_items(message)
        return message

    def _add_completion(self, payload: dict[str, Any], choice: dict[str, Any] | None, reasoning: str) -> None:
        self.completion |= _keep(payload, _NOT_KEPT)
        groq = payload.get("x_groq")
        for place in (payload, choice, groq):
            usage = place.get("usage") if isinstance(place, dict) else None
            if usage and isinstance(usage, dict):
                self.usage = usage
                break
        if choice is None:
            return
        self.choice |= _keep(choice, _NOT_KEPT_OF_CHOICE)
        if isinstance(choice.get("logprobs"), dict):
            self.logprobs = _merge(self.logprobs or {}, choice["logprobs"])
        delta, message = choice.get("delta"), choice.get("message")
        if delta is not None:
            delta = delta if isinstance(delta, dict) else {"content": delta}
            if reasoning:
                delta = delta | {name: reasoning for name in REASONING if is_number(delta.get(name))}
            _merge(self._message, _keep(delta, _NOT_KEPT_OF_MESSAGE) | _odd_in(delta))
        if isinstance(message, dict):  # repeats everything so far
            self._message |= _keep(message, _NOT_KEPT_OF_MESSAGE) | _odd_in(message)

    def _add_response(self, payload: dict[str, Any]) -> None:
        response = payload if payload.get("object") == "response" else payload.get("response")
        if isinstance(response, dict):
            self.completion |= {
                name: response[member] for member, name in _OF_RESPONSE.items() if response.get(member) is not None
            }
            if response.get("usage") and isinstance(response["usage"], dict):
                self.usage = response["usage"]
            if response.get("output") and isinstance(response["output"], list):
                self._items = dict(enumerate(response["output"]))
            return
        number = payload.get("output_index")
        kind = payload.get("type")
        if isinstance(kind, str) and kind.startswith(_AUDIO) and isinstance(payload.get("delta"), str):
            _merge(self._message, {"audio": {"transcript" if "transcript" in kind else "data": payload["delta"]}})
        if kind == "response.output_item.done" and isinstance(number, int):
            self._items[number] = payload.get("item")
        if payload.get("delta") and payload.get("logprobs") and isinstance(payload["logprobs"], list):
            self.logprobs = _merge(self.logprobs or {}, {"content": payload["logprobs"]})

    def _add_items(self, message: dict[str, Any]) -> None:
        """Add the content of the output items to `message`, under the names of the chat API where they exist."""
        items = [item for _, item in sorted(self._items.items()) if isinstance(item, dict)]
        contents = [item.get("content") for item in items if item.get("type", "message") == "message"]
        parts = [one for content in contents if isinstance(content, list) for one in content if isinstance(one, dict)]
        logprobs = [one for part in parts for one in _list_in(part, "logprobs")]
        if logprobs:
            self.logprobs = {"content": logprobs}
        if annotations := [_annotation(one) for part in parts for one in _list_in(part, "annotations")]:
            message["annotations"] = annotations
        summaries = [part for item in items if item.get("type") == "reasoning" for part in _list_in(item, "summary")]
        if reasoning := "\n\n".join(filter(None, map(_thoughts_in, summaries))):
            message["reasoning_content"] = reasoning
        if media := [part for part in parts if _is_odd(part)]:
            message["content_parts"] = media
        if odd := [item for item in items if item.get("type", "message") not in ("message", "function_call")]:
            message["output"] = odd


def _choice_in(choices: Any) -> dict[str, Any] | None:
    """Return the choice that is the answer: the one with the lowest index."""
    listed = list_choices(choices)
    found = [choice for choice in listed if isinstance(choice, dict)] if isinstance(listed, list) else []
    return min(found, key=lambda choice: index if isinstance(index := choice.get("index"), int) else 0, default=None)


def _keep(members: dict[str, Any], not_kept: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None and name not in not_kept}


def _odd_in(delta: dict[str, Any]) -> dict[str, Any]:
    """Return the content parts that are not text, such as images, and tool calls of an unknown kind."""
    content, calls = delta.get("content"), delta.get("tool_calls")
    parts = [part for part in (content if isinstance(content, list) else [content]) if _is_odd(part)]
    calls = calls if isinstance(calls, list) else []
    odd = [call for call in calls if isinstance(call, dict) and _CALLS.isdisjoint(call)]
    return ({"content_parts": parts} if parts else {}) | ({"other_tool_calls": odd} if odd else {})


def _thoughts_in(summary: Any) -> str:
    try:
        return read_thoughts(summary)
    except NumberAsTextError:
        return read_thoughts(EXACT.decode(json.dumps(summary)))


def _is_odd(part: Any) -> bool:
    """Return whether a content part holds anything but text, a refusal or reasoning."""
    if not isinstance(part, dict):
        return False
    try:
        content = read_content(part, "content")
    except NumberAsTextError:
        return False  # the number is the text itself
    return bool(content.unread) or not (content.text or content.refusal or content.reasoning)


def _merge(members: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """Add a delta to members: texts and lists are appended, anything else is replaced."""
    for name, value in delta.items():
        old = members.get(name)
        if isinstance(value, str) and name not in _COMPLETE_TEXTS:
            if isinstance(old, _Pieces):
                old.append(value)
            else:
                members[name] = _Pieces([value])
        elif isinstance(value, dict):
            members[name] = _merge(old if isinstance(old, dict) else {}, value)
        elif isinstance(value, list):
            members[name] = _grow(old if isinstance(old, list) else [], value, name)
        elif value is not None and (value != "" or old is None):
            members[name] = value
    return members


def _grow(items: list[Any], more: list[Any], name: str) -> list[Any]:
    if name not in _LISTS_OF_PIECES:
        return items + more
    for one in more:
        index = one.get("index") if isinstance(one, dict) else None
        same = [item for item in items if index is not None and item.get("index") == index]
        if same and same[0].get("type") == one.get("type"):
            _merge(same[0], one)
        else:
            items.append(_merge({}, one) if isinstance(one, dict) else one)
    return items


def _join(value: Any) -> Any:
    """Return a value with the pieces of its texts joined."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _join(member) for name, member in value.items()}
    return [_join(item) for item in value] if isinstance(value, list) else value


def _annotation(value: Any) -> Any:
    """Convert an annotation of the Responses API to the chat API, which has only URL citations."""
    if not isinstance(value, dict) or value.get("type") != "url_citation" or "url_citation" in value:
        return value
    return {"type": "url_citation", "url_citation": {name: value[name] for name in _CITATION if name in value}}


def _list_in(members: dict[str, Any], name: str) -> list[Any]:
    value = members.get(name)
    return value if isinstance(value, list) else []
