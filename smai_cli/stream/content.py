"""Read the content of an answer: any value in place of a text -> the text, and the parts that cannot be read.

Nothing is dropped: a value is text, or is known not to be part of the answer, or is recorded as unread.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from smai_cli.answer.chunk import CallPart, UnreadKind, UnreadPart
from smai_cli.common.text import one_line
from smai_cli.stream.json_text import dump_exact, is_number, number_text

# How the types of parts begin that are the model's thoughts: OpenAI, Anthropic, Mistral, OpenRouter.
_THOUGHTS = ("reasoning", "redacted_thinking", "summary_text", "thinking", "thought")
# Types of parts that give the sources of a text (Mistral's reference chunks, Cohere's and Anthropic's citations).
_SOURCES = frozenset({"annotation", "annotations", "citation", "citations", "reference", "references"})
_CALLS = frozenset({"custom_tool_call", "function_call", "tool_call", "tool_use"})
_TEXT_TYPES = ("text", "output_text", "input_text")
_MEDIA_MEMBERS = ("audio", "file", "image", "image_url", "input_audio", "video", "video_url")
_MEDIA = (("image", "an image"), ("audio", "audio"), ("video", "a video"), ("file", "a file"))
# The members with the text of a thought; in no API is it nested deeper than this.
_THOUGHT_MEMBERS = ("text", "thinking", "reasoning", "summary", "content")
_DEPTH = 4
_NAME_LIMIT = 40


class Content(NamedTuple):
    """What a content or a delta contains: text, reasoning and a refusal as strings, calls, and unreadable parts."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    unread: tuple[UnreadPart, ...] = ()
    calls: tuple[CallPart, ...] = ()


_NOTHING = Content()


def read_content(value: Any, place: str, *, is_alone: bool = False) -> Content:
    """Return what a content contains: a string, a number, null, a part with a text in it, or a list of parts.

    `place` is its name in messages. A number is text, with its characters as sent: servers in dynamically typed
    languages send number-like tokens as JSON numbers (cloudflare/ai#651). `false` is text only if the delta contains
    nothing else (`is_alone`): together with a role or a reason it is a filler.
    Raises NumberAsTextError for a number that was not decoded by EXACT.
    """
    if isinstance(value, str):
        return Content(value)
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return Content("true") if value else Content("false") if is_alone else _NOTHING
    if isinstance(value, (int, float)):
        return Content(number_text(value))
    parts = value if isinstance(value, list) else [value]
    return _join(_read_part(part, place, is_alone=is_alone) for part in parts if part or part == 0)


def text_of(content: Any) -> str:
    """Return the text of the content of a message: a string, null, a part with a text in it, or a list of parts."""
    return content if isinstance(content, str) else read_content(content, "content").text


def read_arguments(value: Any, *, is_alone: bool = False) -> str | None:
    """Return the arguments of a call as JSON text, given as a string or, by some servers, as an object.

    None for arguments that cannot be read. Raises NumberAsTextError, as read_content does.
    """
    if isinstance(value, dict):
        try:
            return dump_exact(value)
        except RecursionError:
            return None
    if isinstance(value, list) and value:
        return None
    return read_content(value, "the arguments of a call", is_alone=is_alone).text


def read_thoughts(value: Any, depth: int = 0) -> str:
    """Return the text of a model's thoughts in a string, a number, an object, or a list of these.

    Raises NumberAsTextError, as read_content does.
    """
    if isinstance(value, str):
        return value
    if is_number(value):
        return number_text(value)
    if depth > _DEPTH:
        return ""
    if isinstance(value, list):
        return "".join(read_thoughts(entry, depth + 1) for entry in value)
    if isinstance(value, dict):
        return next((words for name in _THOUGHT_MEMBERS if (words := read_thoughts(value.get(name), depth + 1))), "")
    return ""


def media_name(kind: str) -> str | None:
    """Return the name in messages of media whose type or member is called `kind`; None if it does not mean media."""
    return next((name for word, name in _MEDIA if word in kind), None)


def unread_text(value: Any, place: str) -> UnreadPart:
    """Return the record of an unreadable value in place of a text."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind:
        return UnreadPart(UnreadKind.TEXT, f"a part of type {one_line(kind, _NAME_LIMIT)} in {place}")
    return UnreadPart(UnreadKind.TEXT, f"{'a list' if isinstance(value, list) else 'an object'} in {place}")


def _read_part(part: Any, place: str, *, is_alone: bool) -> Content:  # noqa: PLR0911  # one for each kind
    """Return what one part of a content contains."""
    if not isinstance(part, dict):
        unread = (unread_text(part, place),) if isinstance(part, list) else ()
        return Content(unread=unread) if unread else read_content(part, place, is_alone=is_alone)
    kind = part.get("type")
    kind = kind if isinstance(kind, str) else ""
    if kind.startswith(_THOUGHTS):
        return Content(reasoning=read_thoughts(part))
    if kind in _SOURCES:
        return _NOTHING
    if kind == "refusal":
        return Content(refusal=text_of(part.get("refusal") or part.get("text")))
    if kind in _CALLS:
        return Content(unread=(UnreadPart(UnreadKind.CALL, f"a tool call in {place}"),))
    media = tuple(
        UnreadPart(UnreadKind.MEDIA, name)
        for name in (media_name(kind), *(media_name(member) for member in _MEDIA_MEMBERS if part.get(member)))
        if name
    )
    text = part.get("text", part.get("content"))
    if isinstance(text, dict) and "value" in text:  # as in OpenAI's Assistants API
        text = text["value"]
    is_known = bool(media) or "text" in part or "content" in part or kind in _TEXT_TYPES
    if not is_known or (isinstance(text, (dict, list)) and text):
        return Content(unread=(*media, unread_text(part, place)))
    content = read_content(text, place, is_alone=is_alone)
    return content._replace(unread=media) if media else content


def _join(contents: Iterable[Content]) -> Content:
    contents = list(contents)
    if len(contents) == 1:
        return contents[0]
    return Content(
        "".join(content.text for content in contents),
        "".join(content.reasoning for content in contents),
        "".join(content.refusal for content in contents),
        tuple(part for content in contents for part in content.unread),
    )
