"""What a user gave, in words and in files -> the messages to send, and the form that the answer must have."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from smai_cli.errors import UsageError
from smai_cli.files import read_file, read_text
from smai_cli.prompt import compose, piped_text
from smai_cli.request import Message, Request, conversation

if TYPE_CHECKING:
    from smai_cli.attachments import Attachment
    from smai_cli.chatfile import ChatFile
    from smai_cli.form import Form

# Options of `ask` whose value is the name of a file.
FILES = ("messages", "chat", "attach", "schema", "output", "record")


class Question(NamedTuple):
    """What was read from files: the system text, earlier messages, attachments, and what the answer must be.

    `chat` is the file that keeps the conversation, and is locked.
    """

    system: str | None
    earlier: tuple[Message, ...]
    attachments: "tuple[Attachment, ...]"
    form: "Form | None"
    chat: "ChatFile | None"

    def messages(self, words: list[str], piped: str | None) -> tuple[Message, ...]:
        """Return the messages to send, for the operands `words` and what stdin held. Raises UsageError."""
        return conversation(self._content(words, piped), self.system, self.earlier)

    def keeper(self, request: Request) -> "Callable[[Message], None] | None":
        """Return what keeps the answer to `request`, with what was asked, in the conversation; None without one."""
        chat = self.chat
        if chat is None:
            return None
        asked = request.messages[len(self.earlier) :]
        return lambda answer: chat.append([*asked, answer])

    def _content(self, words: list[str], piped: str | None) -> str | list[dict[str, Any]] | None:
        is_answered = self.chat is not None and self.earlier[-1:] and self.earlier[-1].role == "assistant"
        if self.earlier and not is_answered and not words and not (piped or "").strip():
            if self.attachments:
                raise UsageError("nothing is asked about the attachment", "give a prompt")
            return None
        text = compose(words, piped)
        if not self.attachments:
            return text
        from smai_cli.attachments import content_with  # noqa: PLC0415  # for few runs

        return content_with(self.attachments, text)


def names_files(flags: dict[str, Any]) -> bool:
    """Return whether the options name files that must be read or opened before anything can be asked."""
    return any(flags[name] for name in FILES) or (flags["system"] or "").startswith("@")


def read_question(
    flags: dict[str, Any], stack: contextlib.ExitStack, read_stdin: Callable[[], bytes], notice: Callable[[str], None]
) -> Question:
    """Read the files that the options name; a conversation stays locked as long as `stack` is open.

    The modules for each kind of file are loaded for those who use it. Raises UsageError.
    """
    chat = form = None
    system = _system(flags["system"])
    earlier: tuple[Message, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    if flags["json"] or flags["schema"]:
        from smai_cli.form import Form  # noqa: PLC0415

        form = Form(flags["schema"])
    if flags["attach"]:
        from smai_cli.attachments import read_attachment  # noqa: PLC0415

        attachments = tuple(map(read_attachment, flags["attach"]))
    if path := flags["messages"]:
        from smai_cli.messages import parse_messages  # noqa: PLC0415

        name = "stdin" if path == "-" else path
        earlier = parse_messages(piped_text(read_stdin() if path == "-" else read_file(path, name), name), name)
        if not earlier:
            raise UsageError(f"{name} holds no message", "check --messages")
    if flags["chat"]:
        from smai_cli.chatfile import ChatFile  # noqa: PLC0415

        chat = stack.enter_context(ChatFile(flags["chat"], notice))
        earlier = chat.messages
        if (
            earlier
            and system is not None
            and flags["system_is_typed"]
            and system not in [message.content for message in earlier[:1]]
        ):
            raise UsageError(
                f"{flags['chat']} began without this system message", "drop -s, or begin another conversation"
            )
    if earlier and not flags["system_is_typed"]:
        system = None  # that of the configuration begins conversations, and does not come into one that has begun
    return Question(system, earlier, attachments, form, chat)


def _system(text: str | None) -> str | None:
    """Return the system text; `@` before a name reads it from that file, `@@` is a text that begins with one."""
    if text is None or not text.startswith("@"):
        return text
    if text == "@":
        raise UsageError("-s @ names no file", "give its name behind the @, or write @@ for the sign itself")
    return text[1:] if text.startswith("@@") else read_text(text[1:], text[1:])
