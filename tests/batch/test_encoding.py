"""The digest that matches a result to its request: the fast computation gives the digest of the real request."""

import hashlib
import json
from typing import Any

import pytest

from smai_cli.batch.input.canonical import digest_of_line
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.lines import Defaults, read_line

PROMPTS = [
    "a",
    "b",
    "x" * 5000,
    'quo"te',
    "back\\slash",
    "new\nline",
    "tab\t",
    "\x00\x01\x1f",
    "\x7f",
    "</script>",
    "é",
    "😀",
    "{}",
]


def defaults(**more: Any) -> Defaults:
    return Defaults(**{"model": "m", "api": "chat", "system": None, "parameters": {}, "extra_body": {}, **more})


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("system", [None, "S", "Sé"])
@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.5}])
def test_the_digest_is_that_of_the_body_without_the_members_of_a_stream(
    api: str, system: str | None, parameters: dict[str, Any]
) -> None:
    encoding = Encoding()
    options = defaults(api=api, system=system, parameters=parameters)
    for number, prompt in enumerate([*PROMPTS, *PROMPTS], 1):
        line = read_line(number, json.dumps(prompt).encode(), options)
        body = encoding.dialect(line).encode_request(line.request._replace(stream=False))
        canonical = json.dumps(json.loads(body), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        assert encoding.digest(line) == hashlib.sha256(canonical.encode()).digest(), prompt
        assert "stream" not in json.loads(body) or json.loads(body)["stream"] is False


def test_it_does_not_depend_on_whether_the_answer_is_streamed_or_on_the_lines_before() -> None:
    lines = [
        b'"a"',
        b'{"prompt": "a", "model": "n"}',
        b'{"prompt": "a", "system": "T"}',
        b'{"prompt": "a", "top_p": 1}',
    ]
    forward, backward = Encoding(), Encoding()
    options = defaults(), defaults(stream=False)
    there = [forward.digest(read_line(2, line, options[0])) for line in lines]
    back = [backward.digest(read_line(9, line, options[1])) for line in reversed(lines)]
    assert there == back[::-1]
    assert len(set(there)) == len(lines)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"prompt": "a", "temperature": 1}', b'{"temperature": 1.0, "prompt": "a"}'),
        (b'{"prompt": "a", "top_k": 40}', b'{"prompt": "a", "top_k": 4e1}'),
        (
            b'{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "x", "y": [1, 0.5]}}',
            b'{"response_format": {"y": [1.0, 0.50], "type": "x"}, "messages": [{"content": "a", "role": "user"}]}',
        ),
    ],
)
def test_it_does_not_depend_on_the_order_of_members_or_on_the_spelling_of_a_number(one: bytes, other: bytes) -> None:
    options = defaults()
    assert Encoding().digest(read_line(1, one, options)) == Encoding().digest(read_line(1, other, options))
    assert digest_of_line(one, is_text=False) == digest_of_line(other + b"\r\n", is_text=False)
    assert digest_of_line(one, is_text=True) != digest_of_line(other, is_text=True)


@pytest.mark.parametrize("other", [b'{"prompt": "a", "temperature": 0.5}', b'{"prompt": "a", "temperature": true}'])
def test_it_depends_on_the_value_of_a_number(other: bytes) -> None:
    one = read_line(1, b'{"prompt": "a", "temperature": 1}', defaults())
    assert Encoding().digest(one) != Encoding().digest(read_line(1, other, defaults()))
