"""The output of a response (OpenAI API reference, Responses) -> texts, refusals, calls, and unreadable parts."""

from typing import Any

from smai_cli.answer.chunk import CallPart, Repetition, UnreadKind, UnreadPart
from smai_cli.common.text import one_line
from smai_cli.stream.content import media_name, read_arguments, read_content, read_thoughts, text_of

# Items of an output that are not part of the answer.
_NOT_ANSWERS = frozenset(
    {
        "additional_tools",
        "code_interpreter_call",
        "compaction",
        "file_search_call",
        "item_reference",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",  # it calls tools, and its calls are items of their own
        "tool_search_call",
        "web_search_call",
        "x_search_call",  # xAI (docs.x.ai/docs/guides/tools/advanced-usage)
    }
)
# Items whose status `incomplete` makes the answer incomplete; a search or a code run that was cut short does not.
_ANSWERS = ("message", "function_call", "custom_tool_call")
_CALL_ENDINGS = ("_call", "_request")
# What a tool returned, so that the server has run it: a shell (API reference, shell_call_output), Azure's tools such as
# azure_ai_search_call_output, Perplexity's search_results and fetch_url_results (perplexity-py, types/output_item.py).
_OUTPUT_ENDINGS = ("_output", "_results")
# What OpenRouter's own tools did (openrouter.ai/docs/guides/features/server-tools); one of them makes images.
_OPENROUTER = "openrouter:"


def read_output(items: list[Any]) -> Repetition:
    """Return the content of all items of an output. Raises NumberAsTextError, as read_content does."""
    return _join([read_item(item, place) for place, item in enumerate(items)]).replaced(is_all=True)


def read_item(item: Any, place: int | None) -> Repetition:
    """Return the content of the item at `place` in an output: a message, reasoning, a call, or an unknown kind."""
    if not isinstance(item, dict):
        return read_part(item, place, 0)
    kind = item.get("type", "message")
    kind = kind if isinstance(kind, str) else ""
    output = _read_item(item, kind, place)
    is_incomplete = item.get("status") == "incomplete" and kind in _ANSWERS
    return output.replaced(is_incomplete=True) if is_incomplete else output


def _read_item(item: dict[str, Any], kind: str, place: int | None) -> Repetition:  # noqa: PLR0911  # one for each
    """Return the content of an item of this kind."""
    if kind == "message":
        content = item.get("content", item.get("text"))
        parts = content if isinstance(content, list) else [content]
        return _join([read_part(part, place, number) for number, part in enumerate(parts)])
    if kind == "reasoning":
        return Repetition(reasoning=read_thoughts(item.get("content")) or read_thoughts(item.get("summary")))
    if kind in ("function_call", "custom_tool_call"):
        return _read_call(item, kind)
    if kind == "image_generation_call":
        return Repetition(unread=(UnreadPart(UnreadKind.MEDIA, "an image"),)) if item.get("result") else Repetition()
    identity = item.get("call_id")
    identity = identity if isinstance(identity, str) else ""
    if kind.endswith(_OUTPUT_ENDINGS):
        return Repetition(run_calls=(identity,) if identity else ())
    if kind in _NOT_ANSWERS:
        return Repetition()
    if kind.startswith(_OPENROUTER):
        media = media_name(kind)
        return Repetition(unread=(UnreadPart(UnreadKind.MEDIA, media),) if media else ())
    if kind.endswith(_CALL_ENDINGS):
        return Repetition(foreign_calls=((identity, f"a tool call of type {one_line(kind, 40)}"),))
    return read_part(item, place, 0)


def read_part(part: Any, item: int | None, number: int) -> Repetition:
    """Return the content of the part `number` of the item `item`."""
    read = read_content([part] if isinstance(part, (dict, list)) else part, "the output")
    parts = (((item, number), read.text),) if read.text else ()
    return Repetition(parts=parts, refusal=read.refusal, reasoning=read.reasoning, unread=read.unread)


def _read_call(item: dict[str, Any], kind: str) -> Repetition:
    """Return the call of a function or of a custom tool."""
    arguments = read_arguments(item.get("arguments" if kind == "function_call" else "input"))
    if arguments is None:
        return Repetition(unread=(UnreadPart(UnreadKind.CALL, f"a tool call of type {kind}"),))
    identity, name = text_of(item.get("call_id")), text_of(item.get("name"))
    call_type = "function" if kind == "function_call" else "custom"
    return Repetition(calls=(CallPart(None, identity, name, arguments, call_type),))


def _join(outputs: list[Repetition]) -> Repetition:
    return Repetition(
        parts=tuple(part for output in outputs for part in output.parts),
        refusal="".join(output.refusal for output in outputs),
        reasoning="".join(output.reasoning for output in outputs),
        calls=tuple(call for output in outputs for call in output.calls),
        unread=tuple(part for output in outputs for part in output.unread),
        foreign_calls=tuple(call for output in outputs for call in output.foreign_calls),
        run_calls=tuple(identity for output in outputs for identity in output.run_calls),
        is_incomplete=any(output.is_incomplete for output in outputs),
    )
