"""Tool calls: without --tool-calls only the text goes to stdout; with it, each call is one line of JSON."""

import json
import time
from typing import Any

import pytest
from completeness import event
from conftest import Server, Smai
from hypothesis import given
from hypothesis import strategies as st

from smai_cli.answer.chunk import CallPart
from smai_cli.answer.tool_calls import ToolCalls

pytestmark = pytest.mark.preloaded

DONE = b"data: [DONE]\n\n"


def delta(finish_reason: str | None = None, **fields: Any) -> bytes:
    """Return an event of the chat API with these fields in its delta."""
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]})


def part(index: int | None, arguments: str, name: str = "", call_id: str = "") -> dict[str, Any]:
    """Return a part of a tool call as the chat API sends it."""
    more = {"id": call_id, "type": "function"} if call_id else {}
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return ({} if index is None else {"index": index}) | more | {"function": function}


def call(name: str, arguments: str, call_id: str) -> dict[str, Any]:
    """Return a complete call in the form of the chat API."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


END = delta("tool_calls") + DONE
ULM, BONN = call("weather", '{"at": "Ülm\\n"}', "c1"), call("weather", '{"at": "Bonn"}', "c2")
TIME = call("time", "{}", "c3")


def item(whole: dict[str, Any]) -> dict[str, Any]:
    """Return a call as the Responses API has it."""
    return {"type": "function_call", "id": "fc", "call_id": whole["id"], **whole["function"]}


def begun(whole: dict[str, Any], **place: Any) -> bytes:
    """Return the event that begins a call in the Responses API."""
    return event({"type": "response.output_item.added", "item": whole | {"id": None, "arguments": ""}, **place})


def arguments(kind: str, **fields: Any) -> bytes:
    """Return an event about the arguments of a call in the Responses API."""
    return event({"type": f"response.function_call_arguments.{kind}", **fields})


def response(*output: dict[str, Any]) -> dict[str, Any]:
    """Return a complete response."""
    return {"object": "response", "status": "completed", "output": list(output)}


TAPES = [
    pytest.param(
        delta(role="assistant", content=None)
        + delta(tool_calls=[part(0, "", "weather", "c1")])
        + delta(tool_calls=[part(0, '{"at": ')])
        + delta(tool_calls=[part(0, '"Ülm\\n"}')])
        + END,
        "",
        [ULM],
        id="in parts",
    ),
    pytest.param(
        delta(content="Let me ", tool_calls=None)
        + delta(content="look.")
        + delta(tool_calls=[part(0, "", "weather", "c1"), part(1, "", "weather", "c2")])
        + delta(tool_calls=[part(1, '{"at": '), part(0, '{"at": "Ü')])
        + delta(tool_calls=[part(2, "{", "time", "c3")])
        + delta(tool_calls=[part(0, 'lm\\n"}')])
        + delta(tool_calls=[part(2, "}"), part(1, '"Bonn"}')])
        + END,
        "Let me look.",
        [ULM, BONN, TIME],
        id="parallel, interleaved, after a text",
    ),
    pytest.param(
        delta(function_call={"name": "weather", "arguments": ""})
        + delta(function_call={"arguments": '{"at": '})
        + delta(function_call={"arguments": '"Bonn"}'})
        + delta("function_call")
        + DONE,
        "",
        [call("weather", '{"at": "Bonn"}', "")],
        id="the function call before tools",
    ),
    pytest.param(
        event({"type": "response.created", "response": response()})
        + event({"type": "response.output_text.delta", "delta": "Let me look."})
        + event({"type": "response.output_item.added", "item": {**item(ULM), "arguments": ""}})
        + event({"type": "response.function_call_arguments.delta", "delta": '{"at": "Ülm\\n"}'})
        + event({"type": "response.output_item.done", "item": item(ULM)})
        + event({"type": "response.output_item.done", "item": item(BONN)})
        + event({"type": "response.completed", "response": response(item(ULM), item(BONN))}),
        "Let me look.",
        [ULM, BONN],
        id="responses",
    ),
    pytest.param(
        json.dumps(
            {"choices": [{"message": {"content": None, "tool_calls": [ULM, TIME]}, "finish_reason": "tool_calls"}]}
        ).encode(),
        "",
        [ULM, TIME],
        id="one piece",
    ),
    pytest.param(
        json.dumps(
            {
                "choices": [
                    {"message": {"function_call": {"name": "f", "arguments": "{}"}}, "finish_reason": "function_call"}
                ]
            }
        ).encode(),
        "",
        [call("f", "{}", "")],
        id="the function call before tools in one piece",
    ),
    pytest.param(
        json.dumps(
            response({"type": "reasoning"}, {"content": [{"type": "output_text", "text": "So"}]}, item(ULM), item(TIME))
        ).encode(),
        "So",
        [ULM, TIME],
        id="responses in one piece",
    ),
    pytest.param(
        delta(tool_calls=[part(None, ULM["function"]["arguments"], "weather", "c1")])
        + delta(tool_calls=[part(None, "{}", "time", "c3")])
        + END,
        "",
        [ULM, TIME],
        id="whole calls without an index",
    ),
    pytest.param(
        delta(tool_calls=[part(0, ULM["function"]["arguments"], "weather", "c1")])
        + delta(tool_calls=[part(0, "{}", "time", "c3")])
        + END,
        "",
        [ULM, TIME],
        id="whole calls under one index",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "wea", "c1")])
        + delta(tool_calls=[part(0, "", "ther")])
        + delta(tool_calls=[part(0, '{"at": "Ülm\\n"}')])
        + END,
        "",
        [ULM],
        id="a name in pieces (Gemini, continuedev/continue#5849)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "weather", "c1")])
        + delta(tool_calls=[part(0, '{"at": ', "weather", "c1")])
        + delta(tool_calls=[part(0, '"Ülm\\n"}', "weather", "c1")])
        + END,
        "",
        [ULM],
        id="a name in each part (MiniMax, NousResearch/hermes-agent#11984)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "weather", "c1")])
        + b"".join(
            delta(tool_calls=[part(0, piece, "", f"n{number}")])
            for number, piece in enumerate(ULM["function"]["arguments"])
        )
        + END,
        "",
        [ULM],
        id="another id in each part (LM Studio, NousResearch/hermes-agent#106943)",
    ),
    pytest.param(
        json.dumps(
            {
                "choices": [
                    {
                        "message": {"tool_calls": {"id": 0, "function": {"name": "f", "parameters": {"at": "Ulm"}}}},
                        "finish_reason": "eos_token",
                    }
                ]
            }
        ).encode(),
        "",
        [call("f", '{"at": "Ulm"}', "0")],
        id="arguments in parameters (TGI 1.4)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "{}", "weather", "c1")])
        + delta(tool_calls=[part(0, "")])
        + delta(tool_calls=[part(0, '{"at": ')])
        + delta(tool_calls=[part(0, '"Bonn"}')])
        + delta(tool_calls=[part(1, "{}", "time", "c3")])
        + END,
        "",
        [call("weather", '{"at": "Bonn"}', "c1"), TIME],
        id="an empty object before the arguments (LiteLLM, BerriAI/litellm#4537)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "weather", "c1")])
        + delta(tool_calls=[part(0, '{"at": ')])
        + delta(tool_calls=[part(0, '"Bonn"}')])
        + delta(tool_calls=[part(0, '{"at":"Bonn"}')])
        + delta(tool_calls=[part(0, '{"at": "Bonn"}')])
        + END,
        "",
        [call("weather", '{"at": "Bonn"}', "c1")],
        id="the arguments three times (decolua/9router PR 2869, Soju06/codex-lb#284)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, '{"at": "Ulm"}', "weather", "c1")])
        + delta(tool_calls=[part(0, '{"at": "Bonn"}')])
        + delta(tool_calls=[part(1, '{"a": 1}{"b"', "odd", "c2")])
        + END,
        "",
        [call("weather", '{"at": "Ulm"}{"at": "Bonn"}', "c1"), call("odd", '{"a": 1}{"b"', "c2")],
        id="different objects as the arguments",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "weather", "c1")])
        + delta(tool_calls=[part(1, '{"at": ', "weather", "c2")])
        + event({"choices": [{"delta": {}, "message": {"tool_calls": [ULM, BONN]}, "finish_reason": "tool_calls"}]})
        + DONE,
        "",
        [ULM, BONN],
        id="the rest of the arguments in a repetition",
    ),
    pytest.param(
        begun(item(ULM))
        + arguments("delta", item_id="c1", delta='{"at": "Ülm')
        + arguments("delta", item_id="c1", delta='\\n"}')
        + begun(item(BONN))
        + arguments("delta", item_id="c2", delta='{"at": "Bonn"}')
        + event({"type": "response.completed", "response": response(item(ULM), item(BONN))}),
        "",
        [ULM, BONN],
        id="no place in the output, and one id (llama.cpp, ggml-org/llama.cpp#20607)",
    ),
    pytest.param(
        begun(item(ULM), output_index=0)
        + arguments("done", output_index=0, arguments=ULM["function"]["arguments"])
        + begun(item(BONN), output_index=1)
        + arguments("delta", output_index=1, delta='{"at": ')
        + arguments("delta", output_index=1, delta='"Bonn"}')
        + event({"type": "response.output_item.done", "output_index": 0, "item": item(ULM) | {"arguments": ""}})
        + event({"type": "response.completed", "response": response(item(BONN) | {"arguments": ""})}),
        "",
        [ULM, BONN],
        id="arguments in their own events alone (Wei-Shaw/sub2api PR 6629)",
    ),
    pytest.param(
        begun(item(BONN), output_index=0)
        + arguments("done", output_index=0, arguments=BONN["function"]["arguments"])
        + event({"type": "response.completed", "response": response(item(BONN) | {"arguments": '{"at": "Bo'})}),
        "",
        [BONN],
        id="only the beginning of the arguments in the item",
    ),
    pytest.param(
        delta(tool_calls=[{**part(0, '{"at": "Ülm', "weather", "c1"), "index": "0"}])
        + delta(tool_calls=[{**part(1, '{"at": "B', "weather", "c2"), "index": 1.0}])
        + delta(tool_calls=[{**part(0, '\\n"}'), "index": "0"}])
        + delta(tool_calls=[{**part(1, 'onn"}'), "index": 1.0}])
        + END,
        "",
        [ULM, BONN],
        id="an index that is a string, or has a fraction of 0",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "weather", "c1")])
        + delta(tool_calls=[part(0, '{"at": "Ülm')])
        + delta(tool_calls=[part(1, '\\n"}')])
        + delta(tool_calls=[part(1, "", "weather", "c2")])
        + delta(tool_calls=[part(1, '{"at": ')])
        + delta(tool_calls=[part(2, '"Bonn"}')])
        + END,
        "",
        [ULM, BONN],
        id="another index in the last part (Nebius, pipecat-ai/pipecat PR 4688)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "weather", "c1")])
        + b"".join(
            delta(tool_calls=[part(number, piece)]) for number, piece in enumerate(ULM["function"]["arguments"], 1)
        )
        + END,
        "",
        [ULM],
        id="another index in each part (dirac-run/dirac PR 215)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, ULM["function"]["arguments"], "weather", "c1")])
        + delta(tool_calls=[part(0, '{"at', "weather", "c2")])
        + delta(tool_calls=[part(1, '": "Bonn"}')])
        + END,
        "",
        [ULM, BONN],
        id="another index in the rest of the second call (agno-agi/agno#8879)",
    ),
    pytest.param(
        delta(tool_calls=[part(0, "", "weather", "c1")])
        + delta(tool_calls=[part(0, '{"at": ')])
        + delta(tool_calls=[part(0, '{"at": "Bo')])
        + delta(tool_calls=[part(0, '{"at": "Bo')])
        + delta(tool_calls=[part(0, '{"at": "Bonn"}')])
        + delta(tool_calls=[part(0, "")])
        + END,
        "",
        [call("weather", '{"at": "Bonn"}', "c1")],
        id="the arguments so far in each part (Qianfan, NousResearch/hermes-agent PR 35718)",
    ),
    pytest.param(
        delta(function_call={"name": "f", "arguments": '{"n": 1'})
        + delta(function_call={"arguments": 0})
        + delta(function_call={"arguments": "}"})
        + delta("function_call")
        + DONE,
        "",
        [call("f", '{"n": 10}', "")],
        id="a number in the arguments of the function call before tools",
    ),
]


def printed(text: str) -> bytes:
    """Return what text mode makes of `text`."""
    return f"{text}\n".encode() if text else b""


@pytest.mark.parametrize(("tape", "text", "calls"), TAPES)
def test_with_tool_calls_each_call_is_a_line_of_json_after_the_text(
    smai: Smai, tape: bytes, text: str, calls: list[dict[str, Any]]
) -> None:
    result = smai("decode", "--tool-calls", stdin=tape)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith(printed(text))
    lines = result.stdout.removeprefix(printed(text)).splitlines(keepends=True)
    assert [json.loads(line) for line in lines] == calls
    assert all(line.endswith(b"\n") for line in lines)


@pytest.mark.parametrize(("tape", "text", "calls"), TAPES[:7])
def test_without_tool_calls_stdout_has_only_the_text_and_a_notice_names_the_tools(
    smai: Smai, tape: bytes, text: str, calls: list[dict[str, Any]]
) -> None:
    names = ", ".join(dict.fromkeys(call["function"]["name"] for call in calls))
    notice = f"smai: the model calls a tool: {names}; --tool-calls prints the calls\n"
    assert smai("decode", stdin=tape) == (0, printed(text), notice)


def test_a_run_and_a_tape_report_the_same_in_both_apis(smai: Smai, server: Server) -> None:
    for tape, api in ((TAPES[1].values[0], "chat"), (TAPES[3].values[0], "responses")):
        assert isinstance(tape, bytes)
        url = server(tape=tape).url
        for flags in ([], ["--tool-calls"], ["--tool-calls", "--final", "--summary", "none"], ["--raw"]):
            asked = smai("ask", "--base-url", url, "--api", api, *flags, "hi")
            assert asked == smai("decode", *flags, stdin=tape)
            assert asked.status == 0
            assert len(asked.stderr.splitlines()) == (not flags)


def test_the_calls_of_one_answer_may_be_in_several_choices(smai: Smai, server: Server) -> None:
    begun = [
        {"index": 0, "delta": {"content": "Let me look."}},
        {"index": 1, "delta": {"tool_calls": [part(0, "", "weather", "c1")]}},
    ]
    continued = [
        {"index": 0, "delta": {}, "finish_reason": "stop"},
        {"index": 1, "delta": {"tool_calls": [part(0, ULM["function"]["arguments"])]}},
        {"index": 2, "delta": {"tool_calls": [part(0, "{}", "time", "c3")]}, "finish_reason": "tool_calls"},
    ]
    mock = server(tape=event({"choices": begun}) + event({"choices": continued}) + DONE)
    result = smai("ask", "--base-url", mock.url, "--tool-calls", "hi")
    assert (result.status, result.stderr) == (0, "")
    text, *lines = result.stdout.splitlines()
    assert (text, [json.loads(line) for line in lines]) == (b"Let me look.", [ULM, TIME])


def test_an_unreadable_call_in_a_second_choice_is_a_failure(smai: Smai, server: Server) -> None:
    choices = [
        {"index": 0, "delta": {"content": "Let me look."}, "finish_reason": "stop"},
        {"index": 1, "delta": {"tool_calls": [{"id": "c", "type": "mystery", "mystery": 1}]}},
    ]
    mock = server(tape=event({"choices": choices}) + DONE)
    assert smai("ask", "--base-url", mock.url, "hi").status == 0
    assert smai("ask", "--base-url", mock.url, "--tool-calls", "hi").status == 8


def test_tools_are_offered_by_options(smai: Smai, server: Server) -> None:
    mock = server()
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    smai("ask", "--base-url", mock.url, "-O", f"tools={json.dumps(tools)}", "-O", "tool_choice=required", "hi")
    assert mock.received[0].json["tools"] == tools
    assert mock.received[0].json["tool_choice"] == "required"


BROKEN = [
    pytest.param(delta(content="Let me", tool_calls=[part(0, "{}", "weather", "c1")]), 8, id="cut"),
    pytest.param(
        delta(content="Let me", tool_calls=[part(0, '{"at"', "weather", "c1")]) + b"data: {", 8, id="cut event"
    ),
    pytest.param(delta(content="Let me", tool_calls=[part(0, '{"at"', "f", "c")]) + delta("length"), 9, id="length"),
    pytest.param(
        delta(content="Let me", tool_calls=[part(0, "{}", "f", "c")]) + event({"error": {"message": "x"}}),
        8,
        id="error",
    ),
    pytest.param(
        event({"type": "response.output_text.delta", "delta": "Let me"})
        + event({"type": "response.output_item.done", "item": item(ULM)}),
        8,
        id="responses, cut",
    ),
]


@pytest.mark.parametrize(("tape", "status"), BROKEN)
def test_no_tool_call_of_an_incomplete_answer_is_printed_or_named(smai: Smai, tape: bytes, status: int) -> None:
    for flags in ([], ["--tool-calls"]):
        result = smai("decode", *flags, stdin=tape)
        assert (result.status, result.stdout) == (status, b"Let me\n")
        assert len(result.stderr.splitlines()) == 1
        assert "tool" not in result.stderr


def test_a_broken_attempt_does_not_add_to_the_tool_calls(smai: Smai, server: Server) -> None:
    mock = server(tape=BROKEN[0].values[0])
    flags = ["--final", "--summary", "none", "--tool-calls", "--retries", "1"]
    result = smai("ask", "--base-url", mock.url, *flags, "hi")
    assert (result.status, result.stdout, len(mock.received)) == (8, b"", 2)


def test_tool_calls_does_not_change_an_answer_without_calls(smai: Smai, server: Server) -> None:
    url = server(reply="ok").url
    for flags in ([], ["--no-stream"], ["--api", "responses"]):
        assert smai("ask", "--base-url", url, "--tool-calls", *flags, "hi") == (0, b"ok\n", "")


@pytest.mark.parametrize("command", ["ask", "decode"])
@pytest.mark.parametrize("mode", ["--raw", "--jsonl"])
def test_tool_calls_cannot_be_combined_with_modes_that_print_them_already(smai: Smai, command: str, mode: str) -> None:
    result = smai(command, "--tool-calls", mode, stdin=b"hi")
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr == f"smai: --tool-calls and {mode} cannot be combined; the calls are in it already\n"


def test_tool_names_cannot_forge_a_line(smai: Smai) -> None:
    name = "x\nsmai: forged\x1b[2J\u202e"
    tape = delta(tool_calls=[part(0, "{}", name, "c")]) + END
    result = smai("decode", stdin=tape)
    (line,) = result.stderr.splitlines()
    assert "\x1b" not in line
    shown = smai("decode", "--tool-calls", stdin=tape)
    assert [json.loads(row)["function"]["name"] for row in shown.stdout.split(b"\n")[:-1]] == [name]
    assert b"\x1b" not in shown.stdout


def test_arguments_as_an_object_are_not_lost(smai: Smai) -> None:
    odd = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    result = smai("decode", "--tool-calls", stdin=delta(tool_calls=[odd]) + END)
    if result.status == 0:
        arguments = json.loads(result.stdout)["function"]["arguments"]
        assert arguments == {"a": 1} or json.loads(arguments or "null") == {"a": 1}


FILLERS: list[Any] = [None, {}, [], [None], [[]], [{}], [{"function": None}]]
ODD_CALLS: list[Any] = [*FILLERS, "x", 5, ["x"], [{"function": "f"}]]


def test_a_malformed_tool_call_is_an_empty_filler_or_a_failure(smai: Smai) -> None:
    for odd in ODD_CALLS:
        tape = delta(content="ok", tool_calls=odd, function_call=odd) + delta("stop") + DONE
        assert smai("decode", stdin=tape) == (0, b"ok\n", "")
        result = smai("decode", "--tool-calls", stdin=tape)
        is_filler = odd in FILLERS
        assert (result.status, result.stdout) == (0 if is_filler else 8, b"ok\n"), odd
        assert result.stderr == "" if is_filler else "a tool call" in result.stderr


@given(st.lists(st.lists(st.text(), min_size=1), max_size=5), st.randoms(use_true_random=False))
def test_the_parts_of_tool_calls_are_joined_in_whatever_order_they_arrive(
    arguments: list[list[str]], random: Any
) -> None:
    calls = ToolCalls()
    waiting = {number: list(parts) for number, parts in enumerate(arguments)}
    for number in waiting:
        calls.add([CallPart(number, f"c{number}", f"f{number}")])
    while waiting:
        number = random.choice(sorted(waiting))
        calls.add([CallPart(number, arguments=waiting[number].pop(0))])
        if not waiting[number]:
            del waiting[number]
    made = calls.as_json()
    assert made == [call(f"f{number}", "".join(parts), f"c{number}") for number, parts in enumerate(arguments)]


def test_the_time_for_arguments_in_many_parts_grows_linearly() -> None:
    calls = ToolCalls()
    before_s = time.process_time()
    for _ in range(300_000):
        calls.add([CallPart(0, "c", "f", "ab")])
    assert len(calls.as_json()[0]["function"]["arguments"]) == 600_000
    assert time.process_time() - before_s < 5  # half a second; 40 if each part were appended to a copy of the others


PARTS: list[Any] = [
    pytest.param(
        [CallPart(7, "a", "f", '{"x'), CallPart(None, arguments='":1}')], 1, id="no index, id and name: the call before"
    ),
    pytest.param([CallPart(None, "a", "f", "{}"), CallPart(None, "b", "f", "{}")], 2, id="two calls without an index"),
    pytest.param([CallPart(None, "", "f", "{}"), CallPart(None, "", "g", "{}")], 2, id="two calls with a name alone"),
    pytest.param([CallPart(None, "a", "f", "{"), CallPart(None, "a", "", "}")], 1, id="the same id, no index"),
    pytest.param([CallPart(0, "a", "f", "{}"), CallPart(0, "b", "g", "{}")], 2, id="another id under the same index"),
    pytest.param([CallPart(0, "", "f", "{}"), CallPart(0, "", "g", "{}")], 2, id="another name under the same index"),
    pytest.param([CallPart(0, "", "f", '{"x"'), CallPart(0, "", "f", ":1}")], 1, id="the same name in each part"),
    pytest.param([CallPart(0, "a", "f"), CallPart(0, "b", "", "{}")], 1, id="another id, and no name"),
    pytest.param([CallPart(0, "a", "f", "{}"), CallPart(1, "a", "f", "{}")], 1, id="equal calls under two indexes"),
    pytest.param([CallPart(0, "a", "f", "{}"), CallPart(1, "a", "f", "[1]")], 2, id="an equal id under two indexes"),
    pytest.param([CallPart(0, "", "f", "{}"), CallPart(1, "", "f", "{}")], 2, id="equal calls without an id"),
    pytest.param([CallPart(0, "a", "f", '{"x"'), CallPart(1, "a", "", ":1}")], 1, id="the next index, the same id"),
    pytest.param(
        [CallPart(0, "a", "f", '{"x"'), CallPart(1, "a", "f", ":"), CallPart(2, "a", "f", "1}")],
        1,
        id="the next index in each part, the same id and name",
    ),
    pytest.param(
        [
            CallPart(0, "a", "f", '{"x"'),
            CallPart(1, "a", "f", '{"x"'),
            CallPart(0, "", "", ":1}"),
            CallPart(1, "", "", ":1}"),
        ],
        1,
        id="equal calls under two indexes, in parts",
    ),
    pytest.param(
        [CallPart(None, "a", "f"), CallPart(None, "", "f", '{"x"'), CallPart(None, "", "f", ":1}")],
        1,
        id="no index, the same name in each part, an id in the first",
    ),
    pytest.param(
        [CallPart(None, "", "f", '{"x"'), CallPart(None, "", "f", ":1}")], 1, id="no index and id, the same name"
    ),
    pytest.param([CallPart(None, "", "f", "{}"), CallPart(None, "", "f", "{}")], 2, id="the same call twice, no id"),
    pytest.param([CallPart(None, "a", "f"), CallPart(0, arguments="{}")], 1, id="no index, then one"),
    pytest.param(
        [
            CallPart(0, "a", "f", "{}"),
            CallPart(1, arguments='{"x"'),
            CallPart(1, arguments=":1}"),
            CallPart(1, "b", "g"),
        ],
        2,
        id="the name and the id of the second after its arguments",
    ),
]


@pytest.mark.parametrize(("parts", "count"), PARTS)
def test_parts_are_joined_to_the_right_number_of_tool_calls(parts: list[CallPart], count: int) -> None:
    calls = ToolCalls()
    for one in parts:
        calls.add([one])
    made = calls.as_json()
    assert len(made) == len(calls) == count
    for function in (call["function"] for call in made):
        json.loads(function["arguments"])
        assert function["name"]


def test_a_custom_tool_is_printed_with_its_type(smai: Smai) -> None:
    made = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
    item = {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}
    done = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}
    for tape in (delta(tool_calls=[made]) + END, event(done)):
        result = smai("decode", "--tool-calls", stdin=tape)
        assert (result.status, result.stderr) == (0, "")
        assert json.loads(result.stdout) == {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}


def test_numbers_in_arguments_are_printed_unchanged(smai: Smai) -> None:
    made = '{"id":"c","function":{"name":"f","arguments":{"a":1.0,"b":1e3}}}'
    tape = f'data: {{"choices":[{{"delta":{{"tool_calls":[{made}]}}}}]}}\n\n'.encode() + END
    result = smai("decode", "--tool-calls", stdin=tape)
    assert json.loads(result.stdout)["function"]["arguments"] == '{"a": 1.0, "b": 1e3}'
