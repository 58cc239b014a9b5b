"""Read one choice of a chat completion, or of a chunk of one -> its content, and the parts that cannot be read."""

import re
from collections.abc import Iterator
from typing import Any

from smai_cli.answer.chunk import CallPart, ChoicePart, Repetition, UnreadKind, UnreadPart
from smai_cli.answer.completeness import rank
from smai_cli.common.text import one_line
from smai_cli.stream.content import Content, media_name, read_arguments, read_content, read_thoughts

_REASON_LIMIT = 100
# What servers send, in addition to null, while an answer goes on (DashScope).
_NO_REASON = ("", "null", "none")
# What is in the reasons of servers for an answer that broke off, beyond those that `rank` knows: vLLM, SGLang,
# DeepSeek, Zhipu, Anthropic, Gemini.
_FAILURES = (
    r"abort|error|escalation|exceeded|image_other|insufficient|malformed|missing|no_image|pause_turn|repetition"
    r"|too_many|unexpected"
)
_MEDIA = ("audio", "image", "images", "video", "videos")
# Where servers put the model's thoughts; OpenRouter sends the last in addition to another.
REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")
# Members of a delta, a message or a choice that are read, or that are known not to be text of the answer.
_KNOWN = frozenset(
    (  # noqa: SIM905  # names, one after the other
        "annotations channel citations content content_filter_result content_filter_results context created "
        "end_turn error extra_content files finish_details finish_reason finishReason function_call "
        "groundingMetadata grounding_metadata id index logprobs matched_stop message_id metadata model name "
        "native_finish_reason object obfuscation prompt_token_ids provider_specific_fields reasoning_signature "
        "recipient references refusal role safety_ratings safetyRatings search_results seed signature stop_reason "
        "stop_sequence system_fingerprint thought_signature token_ids tool_call_id tool_calls usage"
    ).split()
).union(_MEDIA, REASONING)
# A lone choice in place of the list has one of these.
_OF_CHOICE = frozenset({"delta", "finish_reason", "index", "message", "text"})
_STRAY_DEPTH = 4
_LONGEST_INDEX = 9


def list_choices(choices: Any) -> Any:
    """Return the list of choices; a lone choice may replace it, and PHP may write it as an object of its entries."""
    if not isinstance(choices, dict) or not choices:
        return choices
    return list(choices.values()) if _OF_CHOICE.isdisjoint(choices) else [choices]


def read_choice(choice: Any, part: str) -> ChoicePart:
    """Return the content of a choice; `part` is where its text is: `delta`, or `message` in an answer in one piece.

    Some servers send the choice or the delta as a string. Raises NumberAsTextError for a number in place of a text
    that was not decoded by EXACT.
    """
    if not isinstance(choice, dict):
        choice = {part: choice}
    reason = _reason(choice)
    delta = choice.get(part)
    repeated: Repetition | None = None
    unread: tuple[UnreadPart, ...] = ()
    if not isinstance(delta, dict) or "message" in choice or "text" in choice:
        delta, repeated, unread = _find_delta(choice, delta, part)
    content = delta.get("content")
    if isinstance(content, str):
        read = Content(content)
    else:
        is_alone = content is False and reason is None and not any(delta.values())
        read = read_content(content, "the content", is_alone=is_alone)
    if len(delta) != ("content" in delta):
        read = _add_rest(delta, read)
    role = delta.get("role")
    text, reasoning = read.text, read.reasoning
    if role == "tool" or (role and "extra_content" in delta):
        text, reasoning = _thoughts(delta, text, reasoning)
    unread += read.unread
    if not (text or read.refusal or reasoning or read.calls or unread or repeated):
        unread = _strays(choice, delta, choice.get("message"))
    return ChoicePart(
        _number_of(choice.get("index")) or 0,
        reason if role != "tool" else None,
        text,
        read.refusal,
        reasoning,
        read.calls,
        unread,
        repeated,
        bool(role),
    )


def _find_delta(
    choice: dict[str, Any], delta: Any, part: str
) -> tuple[dict[str, Any], Repetition | None, tuple[UnreadPart, ...]]:
    """Return the delta of a choice that has more than a delta, what it repeats, and the unreadable parts of that.

    A gateway may put the answer into `message`, in addition to its deltas (Perplexity) or instead of them. The API
    before chat had it in `text` (Together sends both).
    """
    repeated: Repetition | None = None
    unread: tuple[UnreadPart, ...] = ()
    if part == "delta" and choice.get("message"):
        message = choice["message"]
        fields = message if isinstance(message, dict) else {"content": message}
        read = _add_rest(fields, read_content(fields.get("content"), "the message"))
        unread = read.unread
        if read.text or read.refusal or read.calls:
            repeated = Repetition(text=read.text, refusal=read.refusal, calls=read.calls)
    if delta is None:
        delta = choice.get("delta")
        delta = choice.get("text") if delta is None else delta
    elif "text" in choice and repeated is None:
        read = read_content(choice["text"], "the text")
        unread = read.unread
        repeated = Repetition(text=read.text) if read.text else None
    if delta is False:
        delta = None
    return (delta if isinstance(delta, dict) else {"content": delta}), repeated, unread


def _add_rest(delta: dict[str, Any], read: Content) -> Content:
    """Return everything that a delta contains; `read` is what its content contains."""
    reasoning = read.reasoning
    for name in REASONING:
        if (delta.get(name) or delta.get(name) == 0) and (words := read_thoughts(delta[name])):
            reasoning += words
            break
    refusal = read_content(delta.get("refusal"), "the refusal")
    unread = [*read.unread, *refusal.unread]
    calls = tuple(_calls(delta, unread))
    unread += [UnreadPart(UnreadKind.MEDIA, media_name(name) or name) for name in _MEDIA if delta.get(name)]
    return Content(read.text, reasoning, read.refusal or refusal.text, tuple(unread), calls)


def _calls(delta: dict[str, Any], unread: list[UnreadPart]) -> Iterator[CallPart]:
    """Yield the parts of tool calls in a delta, or of the one function call of the API before tools.

    Unreadable ones are added to `unread`.
    """
    calls = delta.get("tool_calls")
    function = delta.get("function_call")
    if (
        not calls and isinstance(function, dict) and any(value or value == 0 for value in function.values())
    ):  # some servers send an empty one
        calls = [{"function": function, "index": 0}]
    if isinstance(calls, dict) and calls:  # a lone one
        calls = [calls]
    if not isinstance(calls, list):
        calls = [calls] if calls else []
    for call in calls:
        part = _call(call) if isinstance(call, dict) else None
        if part and (part.id or part.name or part.arguments):
            yield part
        elif call and not part:
            kind = call.get("type") if isinstance(call, dict) else None
            of_type = f" of type {one_line(kind, 40)}" if isinstance(kind, str) and kind else ""
            unread.append(UnreadPart(UnreadKind.CALL, f"a tool call{of_type}"))


def _call(call: dict[str, Any]) -> CallPart | None:
    """Return a part of a call: of a function, even without the `function` object, or of a custom tool.

    None if it cannot be read.
    """
    number, identity = _number_of(call.get("index")), read_content(call.get("id"), "the id of a call").text
    function, custom = call.get("function"), call.get("custom")
    if isinstance(custom, dict):
        name, given, kind = custom.get("name"), custom.get("input"), "custom"
    elif isinstance(function, dict):
        # TGI 1.4 has the arguments in `parameters`.
        name, given, kind = function.get("name"), function.get("arguments", function.get("parameters")), "function"
    elif "arguments" in call:
        name, given, kind = call.get("name"), call["arguments"], "function"
    else:
        is_bare = not any(value for name, value in call.items() if name not in ("id", "index", "type"))
        return CallPart(number, identity) if is_bare else None
    name = read_content(name, "the name of a call").text
    arguments = read_arguments(given, is_alone=not name and not identity)
    return None if arguments is None else CallPart(number, identity, name, arguments, kind)


def _number_of(index: Any) -> int | None:
    """Return the index of a choice or a call, which some languages write as 0.0 or as "0"; None without one."""
    if isinstance(index, str):
        return int(index) if index.isdecimal() and len(index) <= _LONGEST_INDEX else None
    return int(index) if isinstance(index, (int, float)) and index % 1 == 0 else None


def _thoughts(delta: dict[str, Any], text: str, reasoning: str) -> tuple[str, str]:
    """Return the text of the answer and the reasoning, separated.

    Gemini marks thoughts in `extra_content`; MiniMax sends search results as a delta with the role `tool`.
    """
    extra = delta.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    is_thought = isinstance(google, dict) and google.get("thought")
    return ("", text or reasoning) if is_thought else ("" if delta.get("role") == "tool" else text, reasoning)


def _strays(choice: dict[str, Any], delta: dict[str, Any], message: Any) -> tuple[UnreadPart, ...]:
    """Return a record of the text in members that the API does not have."""
    characters, first = 0, ""
    for holder in (choice, delta, message if isinstance(message, dict) and message is not delta else {}):
        for name, value in holder.items():
            if name in _KNOWN or (holder is choice and name in ("delta", "message", "text")):
                continue
            if length := _text_length(value, 0):
                characters, first = characters + length, first or one_line(name, 40)
    return (UnreadPart(UnreadKind.STRAY, f"text in {first}", characters),) if characters else ()


def _text_length(value: Any, depth: int) -> int:
    if isinstance(value, str):
        return len(value)
    if depth < _STRAY_DEPTH and isinstance(value, (dict, list)):
        return sum(_text_length(member, depth + 1) for member in (value.values() if isinstance(value, dict) else value))
    return 0


def _reason(choice: dict[str, Any]) -> str | None:
    """Return the finish_reason of a choice; None without one, and for the placeholders that some servers send."""
    reason = choice.get("finish_reason")
    if reason is None and "finishReason" in choice:  # Google's compatible API, for a while
        reason = choice["finishReason"]
    if not isinstance(reason, str):
        return None
    if reason == "stop":
        reason = _original_reason(choice) or _original_reason(choice.get("provider_specific_fields")) or reason
    return None if reason.strip().lower() in _NO_REASON else one_line(reason, _REASON_LIMIT)


def _original_reason(fields: Any) -> str | None:
    """Return the finish_reason that a gateway received from its upstream, if it means a failure, a limit or a filter.

    OpenRouter can turn such a word into stop, and keeps it in the choice (reVrost/go-openrouter PR 43). LiteLLM turns
    all words that it does not know into stop (litellm_core_utils/core_helpers.py, map_finish_reason); in an answer in
    one piece it keeps them (types/utils.py, Choices). Other words do not count: providers have their own for a complete
    answer, such as completed.
    """
    word = fields.get("native_finish_reason") if isinstance(fields, dict) else None
    is_worse = isinstance(word, str) and (re.search(_FAILURES, word.lower()) or rank(word) > 1)
    return word if is_worse else None
