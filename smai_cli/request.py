"""What is asked: a model, messages and options, before any dialect and any server."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Message(NamedTuple):
    """One message of a conversation: `role` is system, user or assistant, `content` its text."""

    role: str
    content: str


class Request(NamedTuple):
    """One request for one answer.

    `options` are the sampling parameters by the names of the API reference (temperature, top_p, max_tokens).
    `stream` asks for the answer delta by delta, `include_usage` for the server's token counts in the stream.
    """

    model: str
    messages: tuple[Message, ...]
    options: Mapping[str, Any] = MappingProxyType({})
    stream: bool = True
    include_usage: bool = False


def conversation(prompt: str, system: str | None) -> tuple[Message, ...]:
    """Return the messages for one prompt, the system text first if there is one."""
    user = Message("user", prompt)
    return (user,) if system is None else (Message("system", system), user)
