"""The digest that matches a result to its request: the fast computation gives the digest of the real request."""

import hashlib
import json
from typing import Any

import pytest

from smai_cli.batch.input.encoding import Encoding, digest_of_line
from smai_cli.batch.input.lines import Defaults, read_line, read_plain_line

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
def test_the_digest_is_computed_from_the_body_without_the_members_for_streaming(
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


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("system", [None, "S"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_plain_line_has_the_id_and_the_digest_that_it_has_when_it_is_read_completely(
    api: str, system: str | None, end: bytes
) -> None:
    encoding = Encoding()
    options = defaults(api=api, system=system)
    digest_of = encoding.digest_of_prompt(read_line(1, b'"?"', options))
    assert digest_of
    for number, prompt in enumerate(PROMPTS):
        for name in (None, number, -number, str(number), prompt):
            for is_ascii in (True, False):
                data = json.dumps({"id": name, "prompt": prompt}, ensure_ascii=is_ascii).encode() + end
                line = read_line(1, data, options)
                plain = read_plain_line(data)
                assert plain
                assert (plain[0], digest_of(plain[1])) == (line.id, encoding.digest(line)), data


@pytest.mark.parametrize(
    "data",
    [
        b'"a"',
        b'{"prompt": "a", "model": "n"}',
        b'{"prompt": "a", "note": 1}',
        b'{"messages": [{"role": "user", "content": "a"}]}',
        b'{"prompt": "a", "custom_id": "b"}',
        b' {"prompt": "a"}',
        b'{"prompt": "a"} ',
        b'{"prompt": "a"}{}',
        b'{"prompt": ""}',
        b'{"prompt": " "}',
        b'{"prompt": 1}',
        b'{"id": 1}',
        b'{"prompt": "a", "id": 1.0}',
        b'{"prompt": "a", "id": true}',
        b'{"prompt": "a", "id": NaN}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\xff"}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        b'{"prompt": "a"',
        b'{"prompt": "a\tb"}',
        b"[" * 100_000,
    ],
)
def test_every_other_line_is_not_plain(data: bytes) -> None:
    assert read_plain_line(data) is None


def test_the_digest_does_not_depend_on_streaming_or_on_earlier_lines() -> None:
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
def test_the_digest_does_not_depend_on_the_order_of_members_or_the_format_of_a_number(one: bytes, other: bytes) -> None:
    options = defaults()
    assert Encoding().digest(read_line(1, one, options)) == Encoding().digest(read_line(1, other, options))
    assert digest_of_line(one, is_text=False) == digest_of_line(other + b"\r\n", is_text=False)
    assert digest_of_line(one, is_text=True) != digest_of_line(other, is_text=True)


@pytest.mark.parametrize("other", [b'{"prompt": "a", "temperature": 0.5}', b'{"prompt": "a", "temperature": true}'])
def test_the_digest_depends_on_the_value_of_a_number(other: bytes) -> None:
    one = read_line(1, b'{"prompt": "a", "temperature": 1}', defaults())
    assert Encoding().digest(one) != Encoding().digest(read_line(1, other, defaults()))
