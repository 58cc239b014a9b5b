"""The errors that servers report are read in every format."""

import json
from typing import Any

import pytest

from smai_cli.answer.api_error import api_error_in_body, api_error_of, error_in, error_of_array
from smai_cli.answer.causes import cause_of


def body(payload: Any) -> bytes:
    return payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ({"error": {"message": "m", "code": "c"}}, "m (c)"),
        ({"error": {"message": "m", "code": None, "type": "t", "param": "p"}}, "m (t, p)"),
        ({"error": "m"}, "m"),
        ({"error": {}}, "no message"),
        ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, '{"code": 429, "status": "RESOURCE_EXHAUSTED"}'),
        ({"error": [{"message": "m", "code": 429}, {"message": "n"}]}, "m (429)"),
        ({"error": "name", "message": "m"}, "m (name)"),
        ({"error": "a sentence", "code": "The caller may not"}, "a sentence (The caller may not)"),
        ({"error": True, "message": "m", "status_code": 500}, "m (500)"),
        ({"error": True}, "no message"),
        ({"error": {"error": {"message": "m"}}}, "m"),
        ({"errors": [{"code": 7003, "message": "m"}], "success": False}, "m (7003)"),
        ({"errors": {"n": ["too large"]}}, '{"n": ["too large"]}'),
        ({"errors": ["m"]}, "m"),
        ({"error": {"message": "m", "metadata": {"raw": "n", "provider_name": "p"}}}, "m: n"),
        ({"error": {"message": "m", "metadata": {"raw": '{"error": {"message": "n"}}'}}}, "m: n"),
        ({"error": {"message": "m n", "metadata": {"raw": "n"}}}, "m n"),
        ({"error": {"message": "m", "metadata": {"raw": "<html>"}}}, "m"),
        ({"error": {"message": '{"error": {"message": "m", "code": "c"}}', "type": "t"}}, "m (c)"),
        ({"error": '[{"error": {"message": "m", "status": "S"}}]'}, "m (S)"),
        ({"error": {"message": '{"a": 1'}}, '{"a": 1'),
        ({"detail": "m"}, "m"),
        ({"detail": {"message": "m", "code": "c"}}, "m (c)"),
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "missing", "type": "x"}]}, "messages.0: missing"),
        ({"object": "error", "message": "m", "type": "NotFoundError", "code": 404}, "m (404)"),
        ({"type": "error", "message": "m", "code": "c", "sequence_number": 1}, "m (c)"),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, "m (t)"),
        ({"text": "m", "error_code": 50001}, "m (50001)"),
        ({"error_code": 17, "error_msg": "m"}, "m (17)"),
        ({"base_resp": {"status_code": 1004, "status_msg": "m"}}, "m (1004)"),
        ({"id": "1", "choices": [], "x_groq": {"id": "r", "error": "over capacity"}}, "over capacity"),
        ({"id": "1", "choices": [{"delta": {}}], "error": {"code": 502, "message": "m"}}, "m (502)"),
    ],
)
def test_an_error_object_is_read_in_every_format(payload: Any, shown: str) -> None:
    api_error = error_in(payload)
    assert api_error is not None
    assert str(api_error) == shown
    assert str(api_error_in_body(body(payload))) == shown


CHOICE = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None}


@pytest.mark.parametrize(
    "payload",
    [
        {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [CHOICE]},
        {"choices": [CHOICE], "error": None, "errors": [], "detail": None, "base_resp": None, "x_groq": None},
        {"choices": [CHOICE], "error": "", "detail": "", "error_code": 0},
        {"choices": [CHOICE], "error": False, "error_code": None, "x_groq": {"id": "r"}},
        {"choices": [CHOICE], "error": {"message": "", "type": "", "param": "", "code": None}},
        {"object": "response", "error": {"code": "", "message": ""}, "output": [{"type": "message"}]},
        {"choices": [CHOICE], "base_resp": {"status_code": 0, "status_msg": ""}},
        {"choices": [CHOICE], "detail": "of something", "message": "hello", "code": 0, "status": "ok"},
        {"choices": [], "usage": {"total_tokens": 3}, "detail": "of the usage"},
        {"type": "ping"},
        {"type": "response.created", "response": {"error": None, "status": "in_progress"}},
        {"object": "response", "error": None, "output": []},
        {},
    ],
)
def test_an_ordinary_payload_is_not_an_error(payload: Any) -> None:
    assert error_in(payload) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"upstream connect error\n", "upstream connect error"),
        (b'"Unauthorized"', "Unauthorized"),
        (b'{"code": "INSUFFICIENT_BALANCE", "message": "m"}', "m (INSUFFICIENT_BALANCE)"),
        (b'[{"error": {"message": "m"}}]', "m"),
        (b'\xef\xbb\xbf{"error": {"message": "m"}}', "m"),
        (b'data: {"error": {"message": "m"}}\n\ndata: [DONE]\n\n', "m"),
        (b'event: error\ndata: {"message": "m", "type": "error"}\n\n', "m"),
        (b"<html>502</html>", "no message"),
        (b"[]", "no message"),
        (b"null", "no message"),
        (b"", "no message"),
        (b'{"error": ' * 90 + b"{}" + b"}" * 90, '{"error": ' * 50),
        (b"[" * 90 + b"]" * 90, ""),
    ],
)
def test_an_error_body_is_read_in_every_format(text: bytes, shown: str) -> None:
    assert str(api_error_in_body(text)).startswith(shown)


def test_only_the_beginning_of_a_long_name_is_searched() -> None:
    api_error = api_error_of({"message": "credit " * 100_000, "code": "expired" * 100_000})
    assert cause_of(api_error) is None


@pytest.mark.parametrize(
    ("payload", "is_error"),
    [
        ([{"error": {"message": "m"}}], True),
        ([{"error": {"message": "m"}}, {"error": {"message": "n"}}], True),
        ([{"id": "one"}, {"error": {"message": "m"}}], False),
        ([[{"error": {"message": "m"}}]], False),
        (["error"], False),
        ([], False),
        ({"error": {"message": "m"}}, False),
    ],
)
def test_the_first_object_of_an_array_decides_whether_it_is_an_error(payload: Any, is_error: bool) -> None:
    assert error_of_array(payload) == (payload[0] if is_error else None)
