"""The ways in which servers end an answer, and the status of each: one table for the tests of all layers.

A row is a stream of events; the end of the body, and --accept, can change its status. The texts are short, the forms
are those of the named servers.
"""

import json
from typing import Any, NamedTuple

COMPLETE, REFUSED, BROKEN, CUT_SHORT, WITHHELD = 0, 4, 8, 9, 10
OUT = "Hello world\n"


def event(payload: Any, name: str = "") -> bytes:
    """Return an event with this JSON, or this text."""
    data = payload if isinstance(payload, str) else json.dumps(payload)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def choice(text: str | None = None, reason: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    """Return one choice of a chunk."""
    fields = ({} if text is None else {"content": text}) | delta
    return {"index": index, "delta": fields, "finish_reason": reason}


def chunk(text: str | None = None, reason: str | None = None, index: int = 0, **delta: Any) -> bytes:
    """Return the event of a chunk with one choice."""
    return event({"object": "chat.completion.chunk", "choices": [choice(text, reason, index, **delta)]})


def twice(*events: bytes) -> bytes:
    """Return events whose data begins with the name of its field (paiml/aprender PR 2015, langgenius/dify#4120)."""
    return b"".join(b"data: " + event.removesuffix(b"\n") + b"data: \n\n" for event in events)


def glued(*events: bytes) -> bytes:
    """Return events without the blank lines between them."""
    return b"".join(events).replace(b"\n\n", b"\n") + b"\n"


def in_one_event(*events: bytes) -> bytes:
    """Return one event with the data of all."""
    return b"data: " + b"".join(event.removeprefix(b"data: ").rstrip() for event in events) + b"\n\n"


def in_message(content: Any, reason: str | None = "stop") -> bytes:
    """Return the event of a chunk that has a message and no delta."""
    return event({"choices": [{"index": 0, "message": {"content": content}, "finish_reason": reason}]})


ROLE = chunk("", role="assistant")
HELLO, WORLD = chunk("Hello "), chunk("world\n")
STOP, DONE = chunk(reason="stop"), event("[DONE]")
USAGE = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
PING = event({"type": "ping"})
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = chunk(tool_calls=[CALL])
CALLED_FOR = chunk(reason="tool_calls")
TEXT = [ROLE, HELLO, WORLD]
BLANK = {"message": "", "type": "", "param": "", "code": None}
# An error outside of any event. After a comment, as a body that begins with it would be an answer in one piece.
BARE_ERROR = b":\n" + json.dumps({"error": {"code": 429, "message": "boom"}}, indent=2).encode() + b"\n"
BARE_ERRORS = b":\n" + json.dumps([{"error": {"code": 429, "message": "boom"}}], indent=2).encode() + b"\n"


class Row(NamedTuple):
    """Events, and their status on a tape (or if a bare FIN ends them), and in a body that marks its own end.

    `text` is the delivered text. `dialect` is the API.
    """

    name: str
    events: list[bytes]
    status: int
    text: str = OUT
    framed: int | None = None
    accept: tuple[str, ...] = ()
    dialect: str = "chat"
    due: int | None = None
    output_limit: int | None = None

    @property
    def framed_status(self) -> int:
        return self.status if self.framed is None else self.framed


def _words() -> list[Row]:
    """Return each word of servers for a normal end, a limit and a filter, and similar words that are not one."""
    normal = ["stop", "STOP", "eos", "eos_token", "end", "end_turn", "stop_sequence", "COMPLETE", "normal"]
    normal += ["FinishReason.STOP", "end-turn"]
    calls = ["tool_calls", "function_call", "tool_use", "tool_call", "Tool_Use", "tool-calls"]
    limits = ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "FinishReason.MAX_TOKENS"]
    filters = ["content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "sensitive"]
    filters += ["content_filter: violence", "FinishReason.SAFETY", "content-filter"]
    filters += ["guardrail_intervened", "content_filtered", "refusal"]
    filters += ["IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"]
    unknown = ["ended", "stopped", "completed", "max_token", "safe", "tool", "FinishReason.", "content_filterX"]
    rows = [Row(f"{word} is normal", [*TEXT, chunk(reason=word)], COMPLETE) for word in normal]
    rows += [Row(f"{word} is normal after a call", [CALLING, chunk(reason=word), DONE], COMPLETE, "") for word in calls]
    rows += [Row(f"{word} is a limit", [*TEXT, chunk(reason=word)], CUT_SHORT) for word in limits]
    rows += [
        Row(f"{word} is a limit, accepted", [*TEXT, chunk(reason=word)], COMPLETE, accept=("length",))
        for word in limits
    ]
    rows += [Row(f"{word} is a filter", [*TEXT, chunk(reason=word)], WITHHELD) for word in filters]
    rows += [Row(f"{word} is unknown", [*TEXT, chunk(reason=word)], BROKEN) for word in unknown]
    return rows + [
        Row(f"{word} is unknown, accepted", [*TEXT, chunk(reason=word)], COMPLETE, accept=(word,)) for word in unknown
    ]


def _errors() -> list[Row]:
    """Return each form of servers' errors, in the middle, after the reason, and before [DONE]."""
    forms: dict[str, bytes] = {
        "error object": event({"error": {"message": "boom", "type": "server_error", "code": None}}),
        "error object that is empty": event({"error": {}}),
        "error string": event({"error": "boom"}),
        "error event": event({"message": "boom"}, "error"),
        "error event that is no JSON": event("boom", "error"),
        "object error": event({"object": "error", "message": "boom", "code": 500}),
        "type error": event({"type": "error", "message": "boom"}),
        "error_code, FastChat": event({"text": "**NETWORK ERROR**", "error_code": 50001}),
        "detail, FastAPI": event({"detail": "boom"}),
        "errors": event({"errors": [{"message": "boom"}]}),
        "x_groq.error": event({"choices": [], "x_groq": {"error": "boom"}}),
        "base_resp, MiniMax": event({"choices": None, "base_resp": {"status_code": 1013, "status_msg": "boom"}}),
        "in the choice, OpenRouter": event({"choices": [{"index": 0, "delta": {}, "error": {"message": "boom"}}]}),
        "error_type, Venice": event({"error_type": "boom", "error_message": "boom"}),
        "in the choice, empty": event({"choices": [{"index": 0, "delta": {}, "error": {}}]}),
        "in the delta": event({"choices": [{"index": 0, "delta": {"error": "boom"}}]}),
        "in a choice that was not asked for": event({"choices": [choice(), choice(None, None, 1) | {"error": "boom"}]}),
        "error event with a capital": event({"message": "boom"}, "Error"),
        "error event without data": b"event:error\nid: 7\n\n",
        "a number and a message": event({"code": 500, "msg": "boom"}),
        "no success": event({"success": False, "message": "boom"}),
        "status error": event({"status": "error", "message": "boom"}),
    }
    rows = []
    for name, error in forms.items():
        rows += [
            Row(f"{name}, in the middle", [ROLE, HELLO, error, WORLD, STOP, DONE], BROKEN, "Hello "),
            Row(f"{name}, before [DONE]", [*TEXT, error, DONE], BROKEN),
            Row(f"{name}, after the reason", [*TEXT, STOP, error, DONE], BROKEN),
        ]
    return rows


CHAT = [
    # Reasons, and their places.
    Row("a reason of its own is final", [*TEXT, STOP], COMPLETE),
    Row("a reason with the last text is final where the first had none", [HELLO, chunk("world\n", "stop")], COMPLETE),
    Row("a reason next to the only text needs a confirmation", [ROLE, chunk(OUT, "stop")], BROKEN, framed=COMPLETE),
    Row("and [DONE] seals it", [ROLE, chunk(OUT, "stop"), DONE], COMPLETE),
    Row("and a reason of its own makes it final", [ROLE, chunk(OUT, "stop"), STOP], COMPLETE),
    Row(
        "stop in every chunk and a cut is not an end",
        [chunk("", "stop", role="assistant"), chunk("Hello ", "stop"), chunk("world\n", "stop")],
        BROKEN,
    ),
    Row(
        "stop in every chunk, the last without text, and a cut",
        [chunk("Hello ", "stop"), chunk("world\n", "stop"), chunk("", "stop")],
        BROKEN,
    ),
    Row("stop in every chunk and [DONE]", [chunk("Hello ", "stop"), chunk("world\n", "stop"), DONE], COMPLETE),
    Row("stop with the role and a cut", [chunk("", "stop", role="assistant")], BROKEN, "", framed=COMPLETE),
    Row("stop with the role after a ping", [PING, chunk("", "stop", role="assistant")], BROKEN, "", framed=COMPLETE),
    Row("stop with the role, then text", [chunk("", "stop", role="assistant"), HELLO, WORLD, DONE], BROKEN),
    Row(
        "stop with the second and the third text, and a cut",
        [chunk("Hello "), chunk("world", "stop"), chunk("\n", "stop")],
        BROKEN,
    ),
    Row(
        "stop in every chunk of reasoning and text, and a cut",
        [chunk(reasoning="hm", reason="stop"), chunk("Hello ", "stop"), chunk("world\n", "stop")],
        BROKEN,
    ),
    Row("text after stop, and then a reason of its own", [HELLO, STOP, WORLD, chunk("", "stop")], COMPLETE),
    Row(
        "text after length does not make stop worthless",
        [chunk("Hello ", "length"), chunk("world\n", "stop")],
        8,
        framed=9,
    ),
    Row("text after the reason withdraws it", [HELLO, STOP, WORLD], BROKEN),
    Row("also before [DONE]", [HELLO, STOP, WORLD, DONE], BROKEN),
    Row("and another reason ends it", [HELLO, STOP, WORLD, STOP], COMPLETE),
    # A reason for calls ends the answer if the body has an end; text after it needs another reason.
    Row("a reason for calls alone, and text", [CALLED_FOR, HELLO, WORLD, DONE], COMPLETE),
    Row(
        "a stop in every chunk of text after a stop, and a reason for calls",
        [chunk("Hello ", "stop"), chunk("world", "stop"), CALLING, CALLED_FOR, chunk("\n", "stop")],
        BROKEN,
    ),
    Row("a call and its reason", [CALLING, CALLED_FOR], COMPLETE, ""),
    Row("a call and its reason, a ping and [DONE]", [CALLING, CALLED_FOR, PING, DONE], COMPLETE, ""),
    Row(
        "a call and its reason in one chunk",
        [chunk(reason="tool_calls", tool_calls=[CALL])],
        BROKEN,
        "",
        framed=COMPLETE,
    ),
    Row("the same with [DONE]", [chunk(reason="tool_calls", tool_calls=[CALL]), DONE], COMPLETE, ""),
    Row("a call, its reason, and an unfinished event", [CALLING, CALLED_FOR, b'data: {"choi'], BROKEN, ""),
    Row("a call, its reason, and text without another", [CALLING, CALLED_FOR, HELLO, WORLD], BROKEN, framed=COMPLETE),
    Row("the same with [DONE] (ChatMock)", [CALLING, CALLED_FOR, HELLO, WORLD, DONE], COMPLETE),
    Row("a call, its reason, text, and another", [CALLING, CALLED_FOR, HELLO, WORLD, STOP], COMPLETE),
    Row(
        "a call, its reason, and stop with the last text",
        [CALLING, CALLED_FOR, HELLO, chunk("world\n", "stop")],
        COMPLETE,
    ),
    Row("a call, its reason, and stop with the only text", [CALLING, CALLED_FOR, chunk(OUT, "stop")], BROKEN, framed=0),
    Row("a call, its reason, text, and a limit", [CALLING, CALLED_FOR, *TEXT, chunk(reason="length"), DONE], CUT_SHORT),
    Row("a call, its reason, and reasoning", [CALLING, CALLED_FOR, chunk(reasoning="hm"), DONE], BROKEN, ""),
    Row("a call, its reason, and another call", [CALLING, CALLED_FOR, CALLING, CALLED_FOR], COMPLETE, ""),
    Row("a call, its reason, and text after a stop", [CALLING, CALLED_FOR, HELLO, STOP, WORLD, DONE], BROKEN),
    Row("a call, its reason, and stop", [CALLING, CALLED_FOR, STOP], COMPLETE, ""),
    Row("stop with the only text after text that stop ended", [HELLO, STOP, chunk("world\n", "stop")], BROKEN),
    Row("the same with [DONE]", [HELLO, STOP, chunk("world\n", "stop"), DONE], COMPLETE),
    Row("reasoning after the reason withdraws it", [*TEXT, STOP, chunk(reasoning_content="hm")], BROKEN),
    Row("a call after the reason withdraws it", [*TEXT, STOP, chunk(tool_calls=[CALL])], BROKEN),
    Row("a refusal after the reason withdraws it", [*TEXT, STOP, chunk(refusal="no")], BROKEN),
    Row("a chunk without text after the reason does not", [*TEXT, STOP, chunk(""), chunk()], COMPLETE),
    Row("reasoning before the only text is no proof", [chunk(reasoning="hm"), chunk(OUT, "stop")], BROKEN, framed=0),
    Row("usage after the reason does not", [*TEXT, STOP, USAGE], COMPLETE),
    Row("one reason again and again", [*TEXT, STOP, STOP, DONE], COMPLETE),
    *_words(),
    # The worst of several.
    Row("length", [*TEXT, chunk(reason="length")], CUT_SHORT),
    Row("length next to the last text", [HELLO, chunk("world\n", "length")], CUT_SHORT),
    Row("length, then a stop that a gateway adds", [*TEXT, chunk(reason="length"), STOP, DONE], CUT_SHORT),
    Row("stop, then length", [*TEXT, STOP, chunk(reason="length"), DONE], CUT_SHORT),
    Row("stop, then content_filter (Azure)", [*TEXT, STOP, chunk(reason="content_filter")], WITHHELD),
    Row("content_filter, then stop", [*TEXT, chunk(reason="content_filter"), STOP, DONE], WITHHELD),
    Row("length, then content_filter", [*TEXT, chunk(reason="length"), chunk(reason="content_filter")], WITHHELD),
    Row("error, then content_filter", [*TEXT, chunk(reason="error"), chunk(reason="content_filter")], BROKEN),
    Row("an unknown word, then stop", [*TEXT, chunk(reason="abort"), STOP, DONE], BROKEN),
    Row("an unknown word, then length", [*TEXT, chunk(reason="abort"), chunk(reason="length")], CUT_SHORT),
    Row("error", [*TEXT, chunk(reason="error"), DONE], BROKEN),
    Row("length, then text, then stop", [HELLO, chunk(reason="length"), WORLD, STOP], CUT_SHORT),
    # No reason.
    Row("no end at all", TEXT, BROKEN),
    Row("[DONE] alone", [*TEXT, DONE], BROKEN),
    Row("[DONE] alone without any text", [ROLE, DONE], BROKEN, ""),
    Row("an empty reason in every chunk", [chunk("Hello ", ""), chunk("world\n", ""), DONE], BROKEN),
    Row("the word null in every chunk (DashScope)", [chunk("Hello ", "null"), chunk("world\n", "null")], BROKEN),
    Row("choices that are a string", [*TEXT, event({"choices": "a part"}), STOP, DONE], BROKEN),
    Row(
        "choices as an object (PHP)",
        [event({"choices": {"1": choice("Hello world\n")}}), event({"choices": {"1": choice(None, "stop")}}), DONE],
        COMPLETE,
    ),
    Row("choices as an object, cut", [event({"choices": {"1": choice("Hello world\n")}}), DONE], BROKEN),
    Row("choices that are a number", [*TEXT, event({"choices": 7}), STOP, DONE], BROKEN),
    Row("a reason that is not text", [*TEXT, event({"choices": [{"delta": {}, "finish_reason": 7}]}), DONE], BROKEN),
    Row("a reason with white space around it", [*TEXT, chunk(reason=" stop\n")], COMPLETE),
    Row("a limit with white space around it", [*TEXT, chunk(reason=" length\n")], CUT_SHORT),
    Row("white space for a reason", [*TEXT, chunk(reason=" ")], BROKEN),
    Row("finishReason (Google)", [*TEXT, event({"choices": [{"delta": {}, "finishReason": "stop"}]})], COMPLETE),
    # Accepted.
    Row("length, accepted", [*TEXT, chunk(reason="length")], COMPLETE, accept=("length",)),
    Row("content_filter, accepted", [*TEXT, chunk(reason="content_filter")], COMPLETE, accept=("content_filter",)),
    Row("any word, accepted", [*TEXT, chunk(reason="abort"), DONE], COMPLETE, accept=("abort",)),
    Row("words, accepted", [*TEXT, chunk(reason="max  tokens")], COMPLETE, accept=("Max tokens",)),
    Row("a reason that is a word of ours, accepted", [*TEXT, chunk(reason="done")], COMPLETE, accept=(" done ",)),
    Row("what is accepted does not excuse another", [*TEXT, chunk(reason="length")], CUT_SHORT, accept=("abort",)),
    Row(
        "of two words the one that is not accepted counts",
        [*TEXT, chunk(reason="length"), chunk(reason="content_filter")],
        CUT_SHORT,
        accept=("content_filter",),
    ),
    Row("an accepted word is taken back by text", [HELLO, chunk(reason="length"), WORLD], BROKEN, accept=("length",)),
    Row("[DONE], accepted", [*TEXT, DONE], COMPLETE, accept=("done",)),
    Row("[DONE], accepted, of a call", [chunk(tool_calls=[CALL]), DONE], COMPLETE, "", accept=("done",)),
    Row("[DONE], accepted, needs a delta", [ROLE, DONE], BROKEN, "", accept=("done",)),
    Row("[DONE], accepted, of reasoning alone", [chunk(reasoning="hm"), DONE], BROKEN, "", accept=("done",)),
    Row("[DONE], accepted, and usage alone", [*TEXT, event({"usage": {"total_tokens": 3}}), DONE], 0, accept=("done",)),
    Row("[DONE], accepted, must come", TEXT, BROKEN, accept=("done",)),
    Row("[DONE], accepted, and a foreign event", [*TEXT, event({"status": "?"}), DONE], BROKEN, accept=("done",)),
    Row("[DONE], accepted, and a ping", [PING, *TEXT, USAGE, DONE], COMPLETE, accept=("done",)),
    Row("[DONE], accepted, excuses no length", [*TEXT, chunk(reason="length"), DONE], CUT_SHORT, accept=("done",)),
    Row("[DONE], accepted, excuses no error", [*TEXT, event({"error": "no"}), DONE], BROKEN, accept=("done",)),
    # Refusals.
    Row("a refusal", [chunk(refusal="No."), STOP], WITHHELD, ""),
    Row("a refusal and an unknown word", [chunk(refusal="No."), chunk(reason="abort")], WITHHELD, ""),
    Row(
        "a refusal, and its reason accepted",
        [chunk(refusal="No."), chunk(reason="content_filter")],
        COMPLETE,
        "",
        accept=("content_filter",),
    ),
    Row("a refusal that was cut", [chunk(refusal="No.")], BROKEN, ""),
    Row("a refusal and length", [chunk(refusal="No."), chunk(reason="length")], CUT_SHORT, ""),
    # Several choices.
    Row(
        "a refusal in the second of two", [*TEXT, STOP, chunk(index=1, refusal="No."), chunk(None, "stop", 1)], WITHHELD
    ),
    Row(
        "two choices with an index that is a string, where one was asked for",
        [
            event({"choices": [choice("Hello ") | {"index": "0"}]}),
            event({"choices": [choice("Bye") | {"index": "1"}]}),
            event({"choices": [choice("world\n") | {"index": "0"}]}),
            event({"choices": [choice(reason="stop") | {"index": "0"}]}),
            DONE,
        ],
        BROKEN,
        "Hello Byeworld\n",
        due=1,
    ),
    Row(
        "two choices with an index that is a string",
        [
            event({"choices": [choice("Hello ") | {"index": "0"}]}),
            event({"choices": [choice("Bye", "stop") | {"index": "1"}]}),
            event({"choices": [choice("world\n", "stop") | {"index": "0"}]}),
            DONE,
        ],
        COMPLETE,
        due=2,
    ),
    Row("two choices, one reason each", [*TEXT, STOP, chunk("b", index=1), chunk(reason="stop", index=1)], COMPLETE),
    Row(
        "two choices, the second without an end, in chunks as most servers write them",
        [
            *(
                event({"object": "chat.completion.chunk", "model": "m", "choices": [choice(text, None, index)]})
                for text, index in (("Hello ", 0), ("world\n", 0), ("b", 1))
            ),
            STOP,
        ],
        BROKEN,
    ),
    Row("two choices, the second without", [*TEXT, chunk("b", index=1), STOP], BROKEN),
    Row("two choices, the second cut short", [*TEXT, chunk("b", index=1), STOP, chunk(None, "length", 1)], CUT_SHORT),
    # If one choice was requested, a single choice is the answer, whatever its index.
    Row(
        "indexes that count tokens (Foundry Local, old TGI)",
        [chunk("Hello ", index=0), chunk("wor", index=1), chunk("ld\n", index=2), chunk(None, "stop", 3)],
        COMPLETE,
        due=1,
    ),
    Row(
        "one is due, and an index comes back, in chunks as most servers write them",
        [
            *(
                event({"object": "chat.completion.chunk", "model": "m", "choices": [choice(text, None, index)]})
                for text, index in (("Hello ", 0), ("Bye", 1), ("world\n", 0))
            ),
            STOP,
            DONE,
        ],
        BROKEN,
        "Hello Byeworld\n",
        due=1,
    ),
    Row("one is due, and the rest has another index", [HELLO, chunk("world\n", "stop", 1), DONE], COMPLETE, due=1),
    Row(
        "one is due, and two come in turn",
        [HELLO, chunk("b", None, 1), WORLD, STOP, DONE],
        BROKEN,
        "Hello bworld\n",
        due=1,
    ),
    Row(
        "one is due, and two come in one event",
        [event({"choices": [choice(OUT), choice("b", None, 1)]}), STOP, DONE],
        BROKEN,
        due=1,
    ),
    Row(
        "one is due, and the call comes in a second choice (Copilot)",
        [event({"choices": [choice(OUT), choice(None, "tool_calls", 1, tool_calls=[CALL])]}), CALLED_FOR],
        COMPLETE,
        due=1,
    ),
    Row("another is due, and comes without an end", [*TEXT, chunk("b", index=1), STOP, DONE], BROKEN, due=2),
    Row("two are due, one comes", [*TEXT, STOP, DONE], BROKEN, due=2),
    Row("two are due, one comes, [DONE] is accepted", [*TEXT, STOP, DONE], BROKEN, due=2, accept=("done",)),
    Row(
        "two choices in one chunk",
        [
            *TEXT,
            event({"choices": [choice("b", None, 1)]}),
            event({"choices": [choice(None, "stop", 1), choice(None, "stop")]}),
        ],
        COMPLETE,
        due=2,
    ),
    Row("text of the second after its reason", [*TEXT, chunk("b", "stop", 1), chunk("c", None, 1), STOP, DONE], BROKEN),
    Row(
        "the second of two with stop next to its role",
        [*TEXT, STOP, chunk("", "stop", 1, role="assistant")],
        8,
        framed=0,
        due=2,
    ),
    Row(
        "the second of two with stop next to its only text",
        [*TEXT, STOP, chunk(None, None, 1, reasoning="hm"), chunk("b", "stop", 1)],
        BROKEN,
        framed=COMPLETE,
        due=2,
    ),
    Row("a lone choice with index 1", [chunk("Hello ", index=1), chunk("world\n", "stop", 1)], COMPLETE),
    # Text in unexpected places.
    Row(
        "message instead of deltas",
        [event({"choices": [{"message": {"content": OUT}, "finish_reason": "stop"}]}), DONE],
        0,
    ),
    Row(
        "message next to deltas",
        [*TEXT, event({"choices": [{"delta": {}, "message": {"content": OUT}, "finish_reason": "stop"}]})],
        COMPLETE,
    ),
    Row("a message that ends what deltas began", [HELLO, in_message(OUT), DONE], COMPLETE),
    Row("a message that begins as no delta did", [HELLO, in_message("Goodbye, world\n"), DONE], BROKEN, "Hello "),
    Row("a message that is shorter than the deltas", [*TEXT, in_message("Hello"), DONE], COMPLETE),
    Row("a message that is the deltas, trimmed", [*TEXT, in_message("Hello world"), DONE], COMPLETE),
    Row(
        "a message whose text is in an unknown member",
        [
            event(
                {"choices": [{"delta": {}, "message": {"output": "some words of the answer"}, "finish_reason": "stop"}]}
            )
        ],
        BROKEN,
        "",
    ),
    Row("a message that is empty", [*TEXT, in_message(""), DONE], COMPLETE),
    Row("a message after many deltas", [*(chunk("a\n") for _ in range(600)), in_message("a\n" * 601)], 0, "a\n" * 601),
    Row("a message that cannot be read next to deltas", [*TEXT, in_message({"blob": "?"}), DONE], BROKEN),
    Row("a message trimmed, without deltas", [in_message(OUT, None), in_message("Hello world"), DONE], COMPLETE),
    Row(
        "a message after the halves of a character",
        [chunk("Hello \ud83d"), chunk("\ude00"), in_message("Hello \U0001f600\n")],
        COMPLETE,
        "Hello \U0001f600\n",
    ),
    Row(
        "text next to the same delta (Together)",
        [
            event({"choices": [{"delta": {"content": "Hello "}, "text": "Hello "}]}),
            event({"choices": [{"delta": {"content": "world\n"}, "text": "world\n"}]}),
            STOP,
        ],
        COMPLETE,
    ),
    Row(
        "text next to empty deltas",
        [
            event({"choices": [{"delta": {}, "text": "Hello "}]}),
            event({"choices": [{"delta": {"content": ""}, "text": "world\n"}]}),
            STOP,
        ],
        COMPLETE,
    ),
    Row(
        "a message that grows next to deltas (Perplexity)",
        [
            event({"choices": [{"delta": {"content": "Hello "}, "message": {"content": "Hello "}}]}),
            event({"choices": [{"delta": {"content": "world\n"}, "message": {"content": OUT}}]}),
            event({"choices": [{"delta": {}, "message": {"content": OUT}, "finish_reason": "stop"}]}),
        ],
        COMPLETE,
    ),
    Row(
        "a message that grows instead of deltas",
        [
            event({"choices": [{"message": {"content": "Hello "}}]}),
            event({"choices": [{"message": {"content": OUT}, "finish_reason": "stop"}]}),
            DONE,
        ],
        COMPLETE,
    ),
    Row(
        "messages in pieces instead of deltas",
        [
            event({"choices": [{"message": {"content": "Hello "}}]}),
            event({"choices": [{"message": {"content": "world\n"}, "finish_reason": "stop"}]}),
            DONE,
        ],
        COMPLETE,
    ),
    Row(
        "a message that grows within a character",
        [
            event('{"choices":[{"message":{"content":"Hello \\ud83d"}}]}'),
            event('{"choices":[{"message":{"content":"Hello \\ud83d\\ude00\\n"},"finish_reason":"stop"}]}'),
            DONE,
        ],
        COMPLETE,
        "Hello \U0001f600\n",
    ),
    Row("a choice that is the text", [event({"choices": [OUT]}), STOP], COMPLETE),
    Row("a choice that is in no list", [event({"choices": choice(OUT)}), STOP], COMPLETE),
    Row(
        "text next to an error",
        [event({"choices": [choice("Hello ")], "error": {"message": "boom"}}), DONE],
        BROKEN,
        "Hello ",
    ),
    Row("a content that is an object", [chunk(content={"type": "text", "text": OUT}), STOP], COMPLETE),
    Row("a content in parts", [chunk(content=[{"type": "text", "text": OUT}]), STOP], COMPLETE),
    Row("a delta that is the text", [event({"choices": [{"delta": OUT}]}), STOP], COMPLETE),
    Row("text as before chat, and a null delta", [event({"choices": [{"delta": None, "text": OUT}]}), STOP], COMPLETE),
    Row("text as before chat", [event({"choices": [{"text": OUT}]}), STOP], COMPLETE),
    Row("text as before chat, and no delta", [event({"choices": [{"text": OUT, "delta": None}]}), STOP], COMPLETE),
    Row("a content that cannot be read", [chunk(content={"blob": "?"}), STOP, DONE], BROKEN, ""),
    Row("a content that cannot be read, cut short", [chunk(content={"?": 1}), chunk(reason="length")], CUT_SHORT, ""),
    Row("an empty answer", [ROLE, STOP, DONE], COMPLETE, ""),
    Row("an empty answer and its usage alone", [ROLE, event({"usage": {"total_tokens": 3}}), STOP], COMPLETE, ""),
    Row("calls in an unknown form", [chunk(tool_calls=[{"name": "f"}]), chunk(reason="tool_calls"), DONE], BROKEN, ""),
    Row("text of another API (Ollama)", [event({"response": "Hi", "done": False}), STOP, DONE], BROKEN, ""),
    Row("an event of another API next to text", [HELLO, event({"response": "Hi"}), WORLD, STOP], COMPLETE),
    Row("and next to reasoning", [chunk(reasoning="hm"), event({"response": "Hi"}), STOP], COMPLETE, ""),
    Row(
        "and next to a refusal that is accepted",
        [chunk(refusal="No."), event({"response": "Hi"}), chunk(reason="content_filter")],
        COMPLETE,
        "",
        accept=("content_filter",),
    ),
    Row("an empty answer without [DONE]", [ROLE, STOP], COMPLETE, ""),
    Row("an empty answer in one chunk", [chunk("", "stop")], COMPLETE, ""),
    Row("an empty answer, its role named late", [chunk(""), chunk("", "stop", role="assistant")], COMPLETE, ""),
    Row(
        "thoughts alone (Gemini)",
        [chunk("hm", role="assistant", extra_content={"google": {"thought": True}}), STOP],
        0,
        "",
    ),
    Row("what a search found (MiniMax)", [chunk("{}", "stop", role="tool"), HELLO, WORLD, STOP], COMPLETE),
    # Events without content.
    Row("pings and empty chunks", [PING, event(""), ROLE, PING, HELLO, event({"choices": []}), WORLD, STOP], COMPLETE),
    Row("words for pings", [event("keepalive"), HELLO, event("ping"), WORLD, event("null"), STOP], COMPLETE),
    Row("no blank lines", [glued(ROLE, HELLO, event("null"), WORLD, STOP, DONE)], COMPLETE),
    Row("no blank lines, and none at the end", [glued(ROLE, HELLO, WORLD, STOP, DONE)[:-1]], COMPLETE),
    Row("no blank lines, without [DONE]", [glued(ROLE, HELLO, WORLD, STOP)[:-2]], COMPLETE),
    Row("no blank lines, cut", [glued(ROLE, HELLO, WORLD)[:-9]], BROKEN, "Hello "),
    Row("data: twice", [twice(ROLE, HELLO, WORLD, STOP, DONE)], COMPLETE),
    Row("data: twice, and an error", [twice(ROLE, HELLO, event({"error": "boom"}), STOP, DONE)], BROKEN, "Hello "),
    Row("data: twice, and one event that is not JSON", [twice(HELLO, event('{"a'), STOP)], BROKEN, "Hello "),
    Row("data: twice, without a reason", [twice(HELLO, WORLD, DONE)], BROKEN),
    Row("a chunk with its field indented", [HELLO, b"  " + WORLD, STOP], COMPLETE),
    Row("two chunks in one event", [ROLE, in_one_event(HELLO, WORLD), in_one_event(STOP, DONE)], COMPLETE),
    Row("two chunks in one event, with brackets in a text", [in_one_event(chunk("}{"), WORLD), STOP, DONE], BROKEN, ""),
    Row("two chunks in one event, the second cut", [in_one_event(HELLO, WORLD[:-9] + b"\n\n"), STOP], BROKEN, "Hello "),
    Row("no blank lines, and one event that is not JSON", [glued(HELLO, event('{"a'), STOP)], BROKEN, "Hello "),
    Row("a comment in data", [ROLE, event(": OPENROUTER PROCESSING"), HELLO, WORLD, event(":"), STOP], COMPLETE),
    Row("another event's data", [HELLO, event("oops", "metrics"), WORLD, event({"a": 1}, "end"), STOP], COMPLETE),
    Row("a list in another event", [HELLO, event("[1]", "metrics"), WORLD, STOP], COMPLETE),
    Row(
        "another event's data that begins like JSON", [HELLO, event("{oops", "metrics"), WORLD, STOP], BROKEN, "Hello "
    ),
    Row("the same with a bracket", [HELLO, event(" [oops", "metrics"), WORLD, STOP], BROKEN, "Hello "),
    Row("another event's data in an empty answer", [ROLE, event({"a": 1}, "metrics"), STOP], COMPLETE, ""),
    Row("a failure of another event", [HELLO, event({"status": "error", "message": "no"}, "tool"), WORLD, STOP], 0),
    Row("another event's data, [DONE] accepted", [*TEXT, event({"a": 1}, "end"), DONE], COMPLETE, accept=("done",)),
    Row("a chunk in an event of another name", [event({"choices": [choice(OUT)]}, "chunk"), STOP], COMPLETE),
    Row(
        "base_resp that is good (MiniMax)",
        [*TEXT, event({"choices": [choice(None, "stop")], "base_resp": {"status_code": 0}})],
        0,
    ),
    Row(
        "a blank error in every chunk (Apertis)",
        [event({"choices": [choice(OUT)], "error": BLANK}), event({"choices": [choice(None, "stop")], "error": BLANK})],
        COMPLETE,
    ),
    Row("a blank error without a choice", [*TEXT, event({"choices": [], "error": BLANK}), STOP, DONE], BROKEN),
    Row("an error_code that is false", [event({"choices": [choice(OUT)], "error_code": False}), STOP], COMPLETE),
    Row("an error that is null", [event({"choices": [choice(OUT)], "error": None, "detail": None}), STOP], COMPLETE),
    Row("data that is not JSON", [HELLO, event("{oops"), WORLD, STOP, DONE], BROKEN, "Hello "),
    Row("data that begins like JSON, after a final reason", [*TEXT, STOP, event("{oops"), DONE], BROKEN),
    Row("data that is a word, after a final reason", [*TEXT, STOP, event("bye")], COMPLETE),
    Row("an unfinished event after a final reason", [*TEXT, STOP, b'data: {"choices":[{"delta'], COMPLETE),
    # Outside of any event.
    Row("an error on several lines (Gemini)", [ROLE, HELLO, BARE_ERROR], BROKEN, "Hello "),
    Row("the same after a final reason", [*TEXT, STOP, BARE_ERROR], BROKEN),
    Row("the same after a reason with the only text, in a list", [chunk(OUT, "stop"), BARE_ERRORS], BROKEN),
    Row("the same before [DONE]", [*TEXT, STOP, BARE_ERROR, b"\n", DONE], BROKEN),
    Row("a chunk without its field", [HELLO, WORLD.removeprefix(b"data: "), STOP], COMPLETE),
    Row("a line that is not JSON", [HELLO, b"oops\n\n", WORLD, STOP], COMPLETE),
    Row("an unfinished event", [HELLO, b'data: {"choices":[{"delta'], BROKEN, "Hello "),
    Row("an unfinished event after a reason with the only text", [chunk(OUT, "stop"), b'data: {"choices":[{'], BROKEN),
    Row(
        "data that is not JSON after a reason that is not confirmed", [chunk(OUT, "stop"), event("{oops"), DONE], BROKEN
    ),
    *_errors(),
]


def responses_event(kind: str, **fields: Any) -> bytes:
    """Return an event of the Responses API."""
    return event({"type": kind, **fields}, kind)


def delta(text: str) -> bytes:
    """Return the event of a delta of the Responses API."""
    return responses_event("response.output_text.delta", delta=text)


def ended(kind: str, status: str | None = None, **fields: Any) -> bytes:
    """Return an event that ends a response."""
    response = ({} if status is None else {"status": status}) | fields
    return responses_event(f"response.{kind}", response={"object": "response", **response})


CREATED = responses_event("response.created", response={"status": "in_progress"})
DELTAS = [CREATED, delta("Hello "), delta("world\n")]
WHOLE_OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": OUT}]}]
LIMIT = {"reason": "max_output_tokens"}
FILTER = {"reason": "content_filter"}
FIVE = {"input_tokens": 1, "output_tokens": 5, "total_tokens": 6}


def at(kind: str, item: int, part: int = 0, /, **fields: Any) -> bytes:
    """Return an event about a part of an item of the output."""
    return responses_event(f"response.{kind}", output_index=item, content_index=part, **fields)


def message(*texts: str, **fields: Any) -> dict[str, Any]:
    """Return a message of an output."""
    return {"type": "message", "content": [{"type": "output_text", "text": text} for text in texts], **fields}


ITEM = at("output_item.done", 0, item=message(OUT))
THOUGHTS = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
CALLED = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
CUSTOM = {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}


def _response(name: str, events: list[bytes], status: int, text: str = OUT, **more: Any) -> Row:
    return Row(name, events, status, text, dialect="responses", **more)


RESPONSES = [
    _response("completed", [*DELTAS, ended("completed", "completed")], COMPLETE),
    _response("completed without a status", [*DELTAS, ended("completed")], COMPLETE),
    _response("completed without a response", [*DELTAS, responses_event("response.completed")], COMPLETE),
    _response("completed, but failed", [*DELTAS, ended("completed", "failed")], BROKEN),
    _response(
        "completed, but with an error", [*DELTAS, ended("completed", "completed", error={"message": "no"})], BROKEN
    ),
    _response(
        "completed, but incomplete", [*DELTAS, ended("completed", "incomplete", incomplete_details=LIMIT)], CUT_SHORT
    ),
    _response("completed, but in progress", [*DELTAS, ended("completed", "in_progress")], BROKEN),
    _response("completed, but cancelled", [*DELTAS, ended("completed", "cancelled")], BROKEN),
    _response("incomplete", [*DELTAS, ended("incomplete", "incomplete", incomplete_details=LIMIT)], CUT_SHORT),
    _response("incomplete without a status", [*DELTAS, ended("incomplete", incomplete_details=LIMIT)], CUT_SHORT),
    _response("incomplete without a reason", [*DELTAS, ended("incomplete")], BROKEN),
    _response(
        "incomplete by a filter",
        [*DELTAS, ended("incomplete", incomplete_details={"reason": "content_filter"})],
        WITHHELD,
    ),
    _response("incomplete, though completed", [*DELTAS, ended("incomplete", "completed")], BROKEN),
    _response(
        "incomplete, accepted", [*DELTAS, ended("incomplete", incomplete_details=LIMIT)], COMPLETE, accept=("length",)
    ),
    _response("failed", [*DELTAS, ended("failed", "failed", error={"message": "no"})], BROKEN),
    _response("failed without a status or a word", [*DELTAS, ended("failed")], BROKEN),
    _response("failed without a response", [*DELTAS, responses_event("response.failed")], BROKEN),
    _response("failed, though completed", [*DELTAS, ended("failed", "completed")], BROKEN),
    _response("failed by its name alone", [*DELTAS, event({"response": {}}, "response.failed")], BROKEN),
    _response("completed by its name alone", [*DELTAS, event({"response": {}}, "response.completed")], COMPLETE),
    _response("completed by its type alone", [*DELTAS, event({"type": "response.completed"})], COMPLETE),
    _response(
        "failed by its name, completed by its type",
        [*DELTAS, event({"type": "response.completed", "response": {}}, "response.failed")],
        BROKEN,
    ),
    _response("cancelled", [*DELTAS, ended("cancelled")], BROKEN),
    _response("an error event", [*DELTAS, responses_event("error", message="no", code="server_error")], BROKEN),
    _response("an error event by its name", [*DELTAS, event({"message": "no"}, "error")], BROKEN),
    _response("an error as in the chat API", [*DELTAS, event({"error": {"message": "no"}}), DONE], BROKEN),
    _response("done by response.done", [*DELTAS, ended("done", "completed")], COMPLETE),
    _response("response.done without a status", [*DELTAS, ended("done")], BROKEN),
    _response("response.done, incomplete", [*DELTAS, ended("done", "incomplete", incomplete_details=LIMIT)], CUT_SHORT),
    _response("response.done, failed", [*DELTAS, ended("done", "failed")], BROKEN),
    _response("response.done, cancelled", [*DELTAS, ended("done", "cancelled")], BROKEN),
    _response("response.done, in progress", [*DELTAS, ended("done", "in_progress")], BROKEN),
    _response("response.done, in capital letters", [*DELTAS, ended("done", "COMPLETED")], COMPLETE),
    # The Realtime API has the reason in status_details (API reference, response.done).
    _response(
        "response.done, incomplete (Realtime)", [*DELTAS, ended("done", "incomplete", status_details=LIMIT)], CUT_SHORT
    ),
    _response(
        "response.done, filtered (Realtime)",
        [*DELTAS, ended("done", "incomplete", status_details={"reason": "content_filter"})],
        WITHHELD,
    ),
    _response(
        "incomplete with a word alone",
        [*DELTAS, ended("incomplete", incomplete_details="max_output_tokens")],
        CUT_SHORT,
    ),
    # A token limit that was used up: llama.cpp, transformers serve and Ollama call the answer completed.
    _response("the limit that was sent", [*DELTAS, ended("completed", usage=FIVE)], CUT_SHORT, output_limit=5),
    _response("more than the limit", [*DELTAS, ended("completed", "completed", usage=FIVE)], CUT_SHORT, output_limit=4),
    _response("less than the limit", [*DELTAS, ended("completed", usage=FIVE)], COMPLETE, output_limit=6),
    _response("a limit without a count", [*DELTAS, ended("completed")], COMPLETE, output_limit=5),
    _response("a limit and an odd count", [*DELTAS, ended("completed", usage={"total_tokens": 9})], 0, output_limit=5),
    _response("the limit, accepted", [*DELTAS, ended("completed", usage=FIVE)], 0, accept=("length",), output_limit=5),
    _response("the limit in an echo", [*DELTAS, ended("completed", usage=FIVE, max_output_tokens=5)], CUT_SHORT),
    _response("an echo of more", [*DELTAS, ended("completed", usage=FIVE, max_output_tokens=6)], COMPLETE),
    _response("an echo of nothing", [*DELTAS, ended("completed", usage=FIVE, max_output_tokens=None)], COMPLETE),
    _response(
        "a limit that was sent, and an echo of more",
        [*DELTAS, ended("completed", usage=FIVE, max_output_tokens=9)],
        CUT_SHORT,
        output_limit=5,
    ),
    _response(
        "a limit and a filter",
        [*DELTAS, ended("incomplete", usage=FIVE, incomplete_details=FILTER)],
        WITHHELD,
        output_limit=5,
    ),
    _response("a limit without an end", [*DELTAS, ended("done", usage=FIVE)], BROKEN, output_limit=5),
    _response(
        "a search that is incomplete",
        [*DELTAS, ended("completed", output=[{"type": "web_search_call", "status": "incomplete"}, message(OUT)])],
        COMPLETE,
    ),
    _response(
        "a call that is incomplete",
        [*DELTAS, ended("completed", output=[message(OUT), {**CALLED, "status": "incomplete"}])],
        BROKEN,
    ),
    _response(
        "a call of a custom tool that is incomplete (github.com/vercel/ai/pull/20405)",
        [*DELTAS, ended("completed", output=[message(OUT), {**CUSTOM, "status": "incomplete"}])],
        BROKEN,
    ),
    _response(
        "a call that is incomplete, and an output that is empty",
        [*DELTAS, at("output_item.done", 0, item={**CALLED, "status": "incomplete"}), ended("completed", output=[])],
        BROKEN,
    ),
    _response(
        "a message that is incomplete, and a limit",
        [
            *DELTAS,
            at("output_item.done", 0, item=message(OUT, status="incomplete")),
            ended("incomplete", incomplete_details=LIMIT),
        ],
        CUT_SHORT,
    ),
    _response(
        "a search that is incomplete, and an output that is empty",
        [
            *DELTAS,
            at("output_item.done", 0, item={"type": "web_search_call", "status": "incomplete"}),
            ended("completed", output=[]),
        ],
        COMPLETE,
    ),
    _response(
        "a delta under another name",
        [responses_event("response.output_text.delta", text=OUT), ended("completed")],
        COMPLETE,
    ),
    _response("an error event without data", [*DELTAS, b"event: error\n\n", ended("completed")], BROKEN),
    _response("data that begins like JSON in an event", [*DELTAS, event("{oops", "response.x"), ended("completed")], 8),
    _response("no end", DELTAS, BROKEN),
    _response("[DONE] means nothing", [*DELTAS, DONE], BROKEN),
    _response("[DONE] means nothing, accepted or not", [*DELTAS, DONE], BROKEN, accept=("done",)),
    _response("[DONE] before the end", [*DELTAS, DONE, ended("completed", "completed")], COMPLETE),
    _response(
        "text in done alone",
        [CREATED, responses_event("response.output_text.done", text=OUT), ended("completed")],
        COMPLETE,
    ),
    _response(
        "text in done again",
        [*DELTAS, responses_event("response.output_text.done", text=OUT), ended("completed")],
        COMPLETE,
    ),
    _response("text in the output alone", [CREATED, ended("completed", output=WHOLE_OUTPUT)], COMPLETE),
    _response("text in the output again", [*DELTAS, ended("completed", output=WHOLE_OUTPUT)], COMPLETE),
    _response(
        "text in done and in the output",
        [CREATED, responses_event("response.output_text.done", text=OUT), ended("completed", output=WHOLE_OUTPUT)],
        COMPLETE,
    ),
    _response(
        "an output that cannot be read",
        [CREATED, ended("completed", output=[{"type": "message", "content": [{"type": "output_blob", "blob": "?"}]}])],
        BROKEN,
        "",
    ),
    # Gateways that send the text only in one of the events after the deltas (agentgateway pull request 2281).
    _response(
        "text in a part alone",
        [CREATED, at("content_part.done", 0, part=message(OUT)["content"][0]), ended("completed")],
        0,
    ),
    _response(
        "text in an item alone",
        [CREATED, at("output_item.done", 0, item=message(OUT)), ended("completed", output=[])],
        0,
    ),
    _response(
        "text in all of them",
        [
            CREATED,
            at("output_item.done", 0, item=THOUGHTS),
            at("output_text.done", 1, text=OUT),
            at("content_part.done", 1, part=message(OUT)["content"][0]),
            at("output_item.done", 1, item=message(OUT)),
            ended("completed", output=[THOUGHTS, message(OUT)]),
        ],
        COMPLETE,
    ),
    _response(
        "deltas of one part, and another whole",
        [
            at("output_text.delta", 0, delta="Hello "),
            at("output_text.done", 0, text="Hello "),
            at("output_text.done", 1, text="world\n"),
            ended("completed", output=[message("Hello "), message("world\n")]),
        ],
        COMPLETE,
    ),
    _response(
        "deltas of one part, and another in the output alone",
        [at("output_text.delta", 0, delta="Hello "), ended("completed", output=[message("Hello ", "world\n")])],
        COMPLETE,
    ),
    _response(
        "a part that begins as the one before",
        [
            at("output_text.done", 0, text="Hi"),
            at("output_text.done", 0, 1, text="Hi there\n"),
            ended("completed", output=[message("Hi", "Hi there\n")]),
        ],
        COMPLETE,
        "HiHi there\n",
    ),
    _response(
        "two parts, their deltas mixed",
        [
            at("output_text.delta", 0, delta="Hello "),
            at("output_text.delta", 1, delta="world\n"),
            at("output_text.done", 0, text="Hello "),
            at("output_text.done", 1, text="world\n"),
            ended("completed"),
        ],
        COMPLETE,
    ),
    *(
        _response(
            f"deltas and wholes that are numbered in two ways, {item}",
            [
                at("output_text.delta", 0, delta=OUT),
                at("output_text.done", done, text=OUT),
                at("output_item.done", item, item=message(OUT)),
                ended("completed", output=[THOUGHTS, message(OUT)]),
            ],
            COMPLETE,
        )
        for done, item in ((0, 1), (1, 1), (2, 0))
    ),
    # An item that is longer than its deltas.
    *(
        _response(name, [CREATED, at("output_text.delta", 0, delta="Hello "), *events], COMPLETE)
        for name, events in (
            ("the rest in an item and in the output", [ITEM, ended("completed", output=[message(OUT)])]),
            ("the rest in an item alone", [ITEM, ended("completed", output=[])]),
            ("the rest in the output alone", [ended("completed", output=[message(OUT)])]),
            ("the rest in done", [at("output_text.done", 0, text=OUT), ended("completed", output=[])]),
            ("the rest in a part", [at("content_part.done", 0, part=message(OUT)["content"][0]), ended("completed")]),
            ("the rest under another number", [at("output_text.done", 1, text=OUT), ended("completed")]),
        )
    ),
    *(
        _response(name, [CREATED, at("output_text.delta", 0, delta="Hello "), *events], BROKEN, "Hello ")
        for name, events in (
            ("another text in done", [at("output_text.done", 0, text="Goodbye\n"), ended("completed")]),
            ("another text in the output", [ended("completed", output=[message("Goodbye\n")])]),
            (
                "a part under another number, and no output",
                [at("output_text.done", 1, text="world\n"), ended("completed")],
            ),
            (
                "a part that was announced",
                [at("content_part.added", 1, part={"text": "w"}), ended("completed", output=[])],
            ),
        )
    ),
    _response(
        "a part under another number, and the output",
        [
            at("output_text.delta", 0, delta="Hello "),
            at("output_text.done", 1, text="world\n"),
            ended("completed", output=[message("Hello "), message("world\n")]),
        ],
        COMPLETE,
    ),
    _response(
        "two equal parts, one of which deltas brought",
        [at("output_text.delta", 0, delta="a\n"), ended("completed", output=[message("a\n"), message("a\n")])],
        COMPLETE,
        "a\na\n",
    ),
    _response(
        "two parts, trimmed in the output",
        [
            at("output_text.delta", 0, delta="Hello "),
            at("output_text.delta", 1, delta="world\n"),
            ended("completed", output=[message("Hello"), message("world")]),
        ],
        COMPLETE,
    ),
    _response(
        "a part trimmed in the output, and a new one",
        [at("output_text.delta", 0, delta="Hello "), ended("completed", output=[message("Hello"), message("world\n")])],
        COMPLETE,
    ),
    _response(
        "a first part that was cut before the second",
        [
            at("output_text.delta", 0, delta="Hello"),
            at("output_text.delta", 1, delta="world\n"),
            ended("completed", output=[message("Hello there"), message("world\n")]),
        ],
        BROKEN,
        "Helloworld\n",
    ),
    _response(
        "done after the first delta (OmniRoute issue 13693)",
        [
            at("output_text.delta", 0, delta="Hello "),
            at("output_text.done", 0, text="Hello "),
            at("output_text.delta", 0, delta="world\n"),
            at("output_item.done", 0, item=message(OUT)),
            ended("completed", output=[message(OUT)]),
        ],
        COMPLETE,
    ),
    *(
        _response(f"an output that is {name}", [CREATED, ended("completed", output=output)], COMPLETE)
        for name, output in (
            ("a text", OUT),
            ("a message", message(OUT)),
            ("a list of texts", [OUT]),
            ("a part", message(OUT)["content"]),
            ("a message with a text", [{"type": "message", "text": OUT}]),
        )
    ),
    _response("a response that is a text", [CREATED, responses_event("response.completed", response=OUT)], COMPLETE),
    _response("text in output_text alone", [CREATED, ended("completed", output=[], output_text=OUT)], COMPLETE),
    _response(
        "an image alone",
        [CREATED, ended("completed", output=[{"type": "image_generation_call", "result": "?"}])],
        REFUSED,
        "",
    ),
    _response(
        "a command that the server ran",
        [
            CREATED,
            ended(
                "completed",
                output=[
                    {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
                    {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a.txt"}]},
                    message(OUT),
                ],
            ),
        ],
        COMPLETE,
    ),
    _response(
        "a command that the server ran, alone",
        [
            CREATED,
            at("shell_call_command.delta", 0, command_index=0, delta="ls -l /mnt/data/results"),
            at("output_item.done", 0, item={"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}}),
            at("output_item.done", 1, item={"type": "shell_call_output", "call_id": "c", "output": []}),
            ended("completed"),
        ],
        COMPLETE,
        "",
    ),
    _response(
        "what Perplexity found",
        [
            CREATED,
            at("output_item.done", 0, item={"type": "search_results", "queries": ["q"], "results": [{"snippet": "s"}]}),
            ended("completed", output=[{"type": "fetch_url_results", "contents": [{"snippet": "s"}]}, message(OUT)]),
        ],
        COMPLETE,
    ),
    *(
        _response(f"the tool {kind}", [CREATED, ended("completed", output=[{"type": kind}, message(OUT)])], status)
        for kind, status in (("openrouter:web_search", COMPLETE), ("openrouter:image_generation", REFUSED))
    ),
    _response("a call alone", [CREATED, ended("completed", output=[THOUGHTS, CALLED])], COMPLETE, ""),
    _response(
        "a call that is nowhere whole",
        [CREATED, at("function_call_arguments.done", 0, arguments="{}"), ended("completed")],
        8,
        "",
    ),
    _response(
        "a call of another kind",
        [CREATED, ended("completed", output=[{"type": "computer_call", "action": {"type": "click"}}])],
        8,
        "",
    ),
    _response(
        "completed, with a reason why not",
        [*DELTAS, ended("completed", "completed", incomplete_details=LIMIT)],
        CUT_SHORT,
    ),
    _response(
        "completed, with a message that is not",
        [*DELTAS, ended("completed", output=[message(OUT, status="incomplete")])],
        8,
    ),
    _response("completed, with an empty error", [*DELTAS, ended("completed", "completed", error={})], BROKEN),
    _response(
        "an error of the name response.error",
        [*DELTAS, responses_event("response.error", message="no"), ended("completed")],
        8,
    ),
    _response(
        "an error by its name, completed by its type", [*DELTAS, event({"type": "response.completed"}, "error")], 8
    ),
    _response("an empty answer", [CREATED, ended("completed", "completed", output=[])], COMPLETE, ""),
    _response("a refusal", [responses_event("response.refusal.delta", delta="No."), ended("completed")], WITHHELD, ""),
    _response(
        "a refusal in the output alone",
        [ended("completed", output=[{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}])],
        WITHHELD,
        "",
    ),
    _response(
        "keepalives", [CREATED, event({"type": "keepalive"}, "keepalive"), *DELTAS, ended("completed")], COMPLETE
    ),
]

ROWS = CHAT + RESPONSES


class Piece(NamedTuple):
    """An answer in one piece, and its status."""

    name: str
    body: dict[str, Any]
    status: int
    text: str = OUT
    dialect: str = "chat"
    accept: tuple[str, ...] = ()
    due: int | None = None


def _message(reason: str | None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", "content": OUT}, "finish_reason": reason, **more}


PIECES = [
    Piece("a choice with stop", {"choices": [_message("stop")]}, COMPLETE),
    Piece("a choice without a reason", {"choices": [_message(None)]}, BROKEN),
    Piece("a choice without a reason, accepted", {"choices": [_message(None)]}, COMPLETE, accept=("done",)),
    Piece("no choice", {"choices": []}, BROKEN, ""),
    Piece("length", {"choices": [_message("length")]}, CUT_SHORT),
    Piece("an unknown word", {"choices": [_message("abort")]}, BROKEN),
    *(
        Piece(f"{gateway} makes stop of {word}", {"choices": [choice]}, status)
        for word, status in [
            ("error", BROKEN),
            ("abort", BROKEN),
            ("network_error", BROKEN),
            ("MALFORMED_RESPONSE", BROKEN),
            ("IMAGE_PROHIBITED_CONTENT", WITHHELD),
            ("NO_IMAGE", BROKEN),
            ("MAX_TOKENS", CUT_SHORT),
            ("STOP", COMPLETE),
            ("end_turn", COMPLETE),
            ("completed", COMPLETE),
            (None, COMPLETE),
        ]
        for fields in [{"native_finish_reason": word}]
        for gateway, choice in [
            ("LiteLLM", _message("stop", provider_specific_fields=fields)),
            ("OpenRouter", _message("stop") | fields),  # github.com/earendil-works/pi/issues/8511
        ]
    ),
    Piece(
        "LiteLLM makes stop of abort, accepted",
        {"choices": [_message("stop", provider_specific_fields={"native_finish_reason": "abort"})]},
        COMPLETE,
        accept=("abort",),
    ),
    Piece("LiteLLM knows no other word", {"choices": [_message("stop", provider_specific_fields={})]}, COMPLETE),
    Piece("one choice of two", {"choices": [_message("stop")]}, BROKEN, due=2),
    Piece("two choices", {"choices": [_message("stop"), _message("stop", 1)]}, COMPLETE, due=2),
    Piece("two choices, one cut short", {"choices": [_message("stop"), _message("length", 1)]}, CUT_SHORT, due=2),
    Piece("two choices, where one was asked for", {"choices": [_message("stop"), _message("stop", 1)]}, BROKEN, due=1),
    Piece(
        "a call in a second choice (Copilot)",
        {"choices": [_message("stop"), {"index": 1, "message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}]},
        COMPLETE,
        due=1,
    ),
    *(
        Piece(
            f"one is due, and a second choice has {name}",
            {"choices": [_message("stop"), {"index": 1, "message": message, "finish_reason": "stop"}]},
            status,
            due=1,
        )
        for name, message, status in (
            ("nothing", {"content": ""}, COMPLETE),
            ("a content that cannot be read", {"content": {"?": 1}}, BROKEN),
            ("an image", {"images": [{"type": "image_url"}]}, REFUSED),
            ("a refusal", {"refusal": "No."}, WITHHELD),
        )
    ),
    Piece("a content that cannot be read", {"choices": [_message("stop", message={"content": {"?": 1}})]}, BROKEN, ""),
    Piece("an empty answer", {"choices": [_message("stop", message={"content": ""})]}, COMPLETE, ""),
    *(
        Piece(f"{reason} in an envelope (Cline)", {"success": True, "data": {"choices": [_message(reason)]}}, status)
        for reason, status in (("stop", COMPLETE), (None, BROKEN), ("length", CUT_SHORT))
    ),
    Piece("no choice in an envelope", {"success": True, "data": {"choices": []}}, BROKEN, ""),
    Piece(
        "an envelope with an error",
        {"success": False, "message": "boom", "data": {"choices": [_message("stop")]}},
        BROKEN,
        "",
    ),
    Piece("completed", {"object": "response", "status": "completed", "output": WHOLE_OUTPUT}, 0, dialect="responses"),
    Piece("no status", {"object": "response", "output": WHOLE_OUTPUT}, BROKEN, dialect="responses"),
    Piece("queued", {"object": "response", "status": "queued", "output": []}, BROKEN, "", "responses"),
    Piece("in progress", {"object": "response", "status": "in_progress", "output": []}, BROKEN, "", "responses"),
    Piece("cancelled", {"object": "response", "status": "cancelled", "output": []}, BROKEN, "", "responses"),
    Piece(
        "incomplete",
        {"object": "response", "status": "incomplete", "incomplete_details": LIMIT, "output": WHOLE_OUTPUT},
        CUT_SHORT,
        dialect="responses",
    ),
]
