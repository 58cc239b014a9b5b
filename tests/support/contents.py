"""The values that servers send as a text or a call, and the status of each kind of output: one table.

The JSON is a string here, because the spelling of a number matters.
"""

from typing import NamedTuple

COMPLETE, REFUSED, BROKEN, WITHHELD = 0, 4, 8, 10


class Content(NamedTuple):
    """The deltas of an answer that ends with `reason` and [DONE], and the exit status in each kind of output.

    `text` is what text mode prints. `status` is that of text mode and --final, `calls` that with --tool-calls or
    --chat, `batch` that of the result of a batch; each defaults to the one before, but that media are kept in a batch.
    With --raw and --jsonl, each is complete.
    """

    name: str
    deltas: tuple[str, ...]
    text: str = ""
    status: int = COMPLETE
    calls: int | None = None
    batch: int | None = None
    reason: str = "stop"

    @property
    def calls_status(self) -> int:
        return self.status if self.calls is None else self.calls

    @property
    def batch_status(self) -> int:
        if self.batch is not None:
            return self.batch
        return COMPLETE if self.calls_status == REFUSED else self.calls_status

    @property
    def stream(self) -> bytes:
        last = f'data: {{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{self.reason}"}}]}}\n\ndata: [DONE]\n\n'
        events = (f'data: {{"choices":[{{"index":0,"delta":{delta}}}]}}\n\n' for delta in self.deltas)
        return ("".join(events) + last).encode()

    @property
    def body(self) -> bytes | None:
        """The same answer in one piece; None if it has several deltas."""
        if len(self.deltas) != 1:
            return None
        choice = f'{{"index":0,"message":{self.deltas[0]},"finish_reason":"{self.reason}"}}'
        return f'{{"object":"chat.completion","choices":[{choice}]}}'.encode()


def _content(name: str, value: str, text: str = "", status: int = COMPLETE) -> Content:
    return Content(name, (f'{{"content":{value}}}',), text, status)


def _calls(name: str, calls: str, status: int = COMPLETE, calls_status: int = COMPLETE, text: str = "") -> Content:
    content = f'"content":"{text}",' if text else ""
    return Content(name, (f'{{{content}"tool_calls":{calls}}}',), text, status, calls_status, reason="tool_calls")


_FUNCTION = '{"name":"f","arguments":"{}"}'
NUMBERS = ["0", "7", "-7", "42", "0.005", "1.0", "1e3", "1E+3", "-0", "-0.0", "1e999", "12345678901234567890", "NaN"]
TEXTS = [
    *(_content(f"the number {number}", number, number) for number in NUMBERS),
    *(_content(f"the number {number} in a part", f'[{{"type":"text","text":{number}}}]', number) for number in NUMBERS),
    Content(
        "number-like tokens (Workers AI)", ('{"content":"See ["}', '{"content":1}', '{"content":"]."}'), "See [1]."
    ),
    Content("a number with a role", ('{"role":"assistant","content":0}',), "0"),
    _content("true", "true", "true"),
    Content("false", ('{"content":false}', '{"content":"."}'), "false."),
    Content("false with a role", ('{"role":"assistant","content":false}', '{"content":"a"}'), "a"),
    Content("false with empty members", ('{"content":false,"role":null,"tool_calls":[]}', "{}"), "false"),
    _content("null", "null"),
    _content("an empty string", '""'),
    _content("an empty list", "[]"),
    _content("an empty object", "{}"),
    _content("a part instead of a list", '{"type":"text","text":"a"}', "a"),
    _content("a text with a value (Assistants API)", '[{"type":"text","text":{"value":"a"}}]', "a"),
    _content("two parts", '[{"type":"text","text":"a"},{"type":"output_text","text":"b"}]', "ab"),
    _content("a string among parts", '["a",{"type":"text","text":"b"}]', "ab"),
    _content("a part without a type", '[{"text":"a"}]', "a"),
    _content("a part with a content", '[{"content":"a"}]', "a"),
    _content("an empty part", '[{"type":"text"},{"type":"text","text":null},{}]'),
    _content("a part of reasoning", '[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"text":"a"}]', "a"),
    _content("a part of reasoning with a text", '[{"type":"reasoning","text":"hm"},{"type":"text","text":"a"}]', "a"),
    _content("a reference (Mistral)", '[{"type":"text","text":"a"},{"type":"reference","reference_ids":[1]}]', "a"),
    Content("annotations", ('{"content":"a","annotations":[{"type":"url_citation","url":"https://x.test/"}]}',), "a"),
    Content("metadata of an empty answer", ('{"role":"assistant","content":"","name":"a name of some length"}',)),
    Content("reasoning alone", ('{"reasoning_content":"a long chain of thoughts"}',)),
    Content("reasoning details alone", ('{"reasoning_details":[{"type":"reasoning.text","text":"a long thought"}]}',)),
    Content("a short text in an unknown member", ('{"content":"","sid":"123456789012345"}',)),
    Content("the text in an unknown member, with a text", ('{"content":"a","text":"some words of the answer"}',), "a"),
]
UNREAD = [
    _content("an object", '{"blob":"?"}', status=BROKEN),
    _content("a list in a list", '[["a"]]', status=BROKEN),
    _content("a part of a new type", '[{"type":"output_blob","blob":"?"}]', status=BROKEN),
    _content("a part whose text is a list", '[{"type":"text","text":["a"]}]', status=BROKEN),
    _content("a part whose text is an object", '[{"type":"text","text":{"a":"b"}}]', status=BROKEN),
    Content("a refusal that is an object", ('{"content":"a"}', '{"refusal":{"blob":"?"}}'), "a", BROKEN),
    _content("an object next to a text", '[{"type":"text","text":"a"},{"blob":"?"}]', "a", BROKEN),
    Content(
        "an object between texts", ('{"content":"a"}', '{"content":{"blob":"?"}}', '{"content":"b"}'), "ab", BROKEN
    ),
    Content("the text in an unknown member", ('{"text":"some words of the answer"}',), "", BROKEN),
    Content("the text in several unknown members", ('{"texts":["some words",{"of":"the answer"}]}',), "", BROKEN),
]
MEDIA = [
    Content("images (OpenRouter)", ('{"content":"","images":[{"type":"image_url"}]}',), "", REFUSED),
    Content("a sentence and an image", ('{"content":"a"}', '{"images":[{"type":"image_url"}]}'), "a", REFUSED),
    Content("audio", ('{"audio":{"id":"a","data":"AA=="}}',), "", REFUSED),
    _content("an image part", '[{"type":"image_url","image_url":{"url":"data:"}}]', status=REFUSED),
    _content("an image part with a text", '[{"type":"image","text":"a","data":"AA=="}]', "a", REFUSED),
    _content("an image in a part with a text", '[{"type":"text","text":"a","image_url":"data:"}]', "a", REFUSED),
    _content("a file", '[{"type":"file","file":{"file_data":"AA=="}}]', status=REFUSED),
    _content("a video", '[{"type":"text","text":"a"},{"type":"video_url","video_url":{}}]', "a", REFUSED),
    Content("an image and an object", ('{"content":{"blob":"?"},"images":[{}]}',), "", BROKEN),
    Content("no image after all", ('{"content":"a","images":[],"audio":null}',), "a"),
]
CALLS = [
    _calls("a call", f'[{{"index":0,"id":"c","type":"function","function":{_FUNCTION}}}]'),
    _calls("a flat call", '[{"id":"c","name":"f","arguments":"{}"}]'),
    _calls("a lone call", f'{{"id":"c","function":{_FUNCTION}}}'),
    _calls("a custom tool (OpenAI)", '[{"id":"c","type":"custom","custom":{"name":"f","input":"x"}}]'),
    _calls("arguments that are an object", '[{"id":"c","function":{"name":"f","arguments":{"a":1.0}}}]'),
    _calls("an unread call", '[{"id":"c","type":"mystery","mystery":{"name":"f"}}]', BROKEN, BROKEN),
    _calls("an unread call and a call", f'[{{"id":"c","function":{_FUNCTION}}},{{"mystery":1}}]', COMPLETE, BROKEN),
    _calls("an unread call and a text", '[{"id":"c","mystery":1}]', COMPLETE, BROKEN, "a"),
    _calls("a call that is a string", '["f"]', BROKEN, BROKEN),
    _calls("arguments that are a list", '[{"id":"c","function":{"name":"f","arguments":["a"]}}]', BROKEN, BROKEN),
    _calls("a call without a name", '[{"id":"c","function":{"arguments":"{}"}}]', COMPLETE, BROKEN),
    Content(
        "a part that may belong to either of two calls",
        (
            '{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\\"a\\":"}}]}',
            '{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{\\"b\\":"}}]}',
            '{"tool_calls":[{"function":{"arguments":"1}"}}]}',
            '{"tool_calls":[{"function":{"arguments":"2}"}}]}',
        ),
        "",
        COMPLETE,
        BROKEN,
        reason="tool_calls",
    ),
    Content(
        "a second call without a name",
        (
            '{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}',
            '{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}',
        ),
        "",
        COMPLETE,
        BROKEN,
        reason="tool_calls",
    ),
    _calls(
        "a call without its end (vLLM)", r'[{"id":"c","function":{"name":"f","arguments":"{\"a\": \"b"}}]', 0, BROKEN
    ),
    _calls("a call cut in a number", r'[{"id":"c","function":{"name":"f","arguments":"{\"a\": -1."}}]', 0, BROKEN),
    _calls("a call that is not JSON", r'[{"id":"c","function":{"name":"f","arguments":"{\"a\": 1,}"}}]'),
    _calls("a custom tool with an input that is the beginning of JSON", '[{"custom":{"name":"f","input":"{"}}]'),
    _calls("a call without arguments or a form for them", '[{"name":"f"}]', BROKEN, BROKEN),
    Content("a reason for calls without a call", ('{"content":""}',), "", BROKEN, reason="tool_calls"),
    Content("a reason for calls with a text alone", ('{"content":"a"}',), "a", COMPLETE, BROKEN, reason="tool_calls"),
    Content("a reason for a function call without it", ("{}",), "", BROKEN, reason="function_call"),
    Content("fillers for calls", ('{"content":"a","tool_calls":null,"function_call":{"name":""}}',), "a"),
    Content("an empty call in a list", ('{"content":"a","tool_calls":[{"index":0,"function":{"name":null}}]}',), "a"),
    _content("a call in a part", '[{"type":"tool_use","id":"c","name":"f","input":{}}]', "", BROKEN),
]
CONTENTS = TEXTS + UNREAD + MEDIA + CALLS
