"""What a user gave, in words and in files -> the messages to send, and the form that the answer must have."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from smai_cli.errors import UsageError
from smai_cli.files import read_file, read_text, text_in
from smai_cli.frozen import Frozen
from smai_cli.prompt.prompt import compose
from smai_cli.prompt.request import Message, Request, conversation

if TYPE_CHECKING:
    from smai_cli.prompt.attachments import Attachment
    from smai_cli.prompt.conversation import ConversationFile
    from smai_cli.prompt.response_format import ResponseFormat


class InputOptions(Frozen):
    """What the options say of the input: the system text, or `@` and the name of a file, and the names of files.

    `system_is_typed` says that the system text was typed, and does not come from the configuration. `json` asks for
    JSON, `schema` for JSON after the schema in that file.
    """

    system: str | None = None
    system_is_typed: bool = False
    attach: tuple[str, ...] = ()
    chat: str | None = None
    messages: str | None = None
    json: bool = False
    schema: str | None = None

    @property
    def are_files(self) -> bool:
        """Whether they name files that must be read or opened before anything can be asked."""
        is_file = (self.system or "").startswith("@")
        return bool(self.attach or self.chat or self.messages or self.schema or is_file)


class Turn(Frozen):
    """What was asked in a conversation, to be kept in its file together with the answer, or not at all."""

    chat: "ConversationFile"
    asked: tuple[Message, ...]

    def prepare(self, answer: Message) -> None:
        """Have the turn on the disk. Raises OutputError."""
        self.chat.prepare([*self.asked, answer])

    def commit(self) -> None:
        """Make it a part of the conversation. Raises OutputError."""
        self.chat.commit()


class Question(Frozen):
    """What was read from files: the system text, earlier messages, attachments, and what the answer must be.

    `chat` is the file that keeps the conversation, and is locked.
    """

    system: str | None
    earlier: tuple[Message, ...]
    attachments: "tuple[Attachment, ...]"
    response_format: "ResponseFormat | None"
    chat: "ConversationFile | None" = None

    def messages(self, words: list[str], piped: str | None) -> tuple[Message, ...]:
        """Return the messages to send, for the operands `words` and what stdin held. Raises UsageError."""
        return conversation(self._content(words, piped), self.system, self.earlier)

    def turn(self, request: Request) -> Turn | None:
        """Return what `request` adds to the conversation; None without one."""
        return Turn(chat=self.chat, asked=request.messages[len(self.earlier) :]) if self.chat else None

    def _content(self, words: list[str], piped: str | None) -> str | list[dict[str, Any]] | None:
        is_answered = self.chat is not None and self.earlier[-1:] and self.earlier[-1].role == "assistant"
        if self.earlier and not is_answered and not words and not (piped or "").strip():
            if self.attachments:
                raise UsageError("nothing is asked about the attachment", "give a prompt")
            return None
        text = compose(words, piped)
        if not self.attachments:
            return text
        from smai_cli.prompt.attachments import content_with  # noqa: PLC0415  # for few runs

        return content_with(self.attachments, text)


def read_question(options: InputOptions, read_stdin: Callable[[], bytes]) -> Question:
    """Read the files that the options name, but for a conversation.

    The modules for each kind of file are loaded for those who use it. Raises UsageError.
    """
    response_format = None
    system = _system(options.system)
    earlier: tuple[Message, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    if options.json or options.schema:
        from smai_cli.prompt.response_format import ResponseFormat  # noqa: PLC0415

        response_format = ResponseFormat(options.schema)
    if options.attach:
        from smai_cli.prompt.attachments import read_attachment  # noqa: PLC0415

        attachments = tuple(map(read_attachment, options.attach))
    if path := options.messages:
        from smai_cli.prompt.messages import parse_messages  # noqa: PLC0415

        name = "stdin" if path == "-" else path
        earlier = parse_messages(text_in(read_stdin() if path == "-" else read_file(path, name), name), name)
        if not earlier:
            raise UsageError(f"{name} holds no message", "check --messages")
    if earlier and not options.system_is_typed:
        system = None  # that of the configuration begins conversations, and does not come into one that has begun
    return Question(system=system, earlier=earlier, attachments=attachments, response_format=response_format)


@contextlib.contextmanager
def in_conversation(question: Question, options: InputOptions, notice: Callable[[str], None]) -> Iterator[Question]:
    """Provide the question behind the conversation in its file, which is locked as long as the context lasts.

    Without such a file, it is the question as it was. To be entered when stdin has been read: what comes from there
    may wait for the same file. Raises UsageError.
    """
    path = options.chat
    if not path:
        yield question
        return
    from smai_cli.prompt.conversation import ConversationFile  # noqa: PLC0415  # for those who have one

    with ConversationFile(path, notice) as chat:
        system = question.system
        if chat.messages and not options.system_is_typed:
            system = None  # as above
        first = [message.content for message in chat.messages[:1] if message.role in ("system", "developer")]
        if chat.messages and system is not None and first != [system]:
            raise UsageError(f"{path} began without this system message", "drop -s, or begin another conversation")
        yield question.replaced(system=system, earlier=chat.messages, chat=chat)


def _system(text: str | None) -> str | None:
    """Return the system text; `@` before a name reads it from that file, `@@` is a text that begins with one."""
    if text is None or not text.startswith("@"):
        return text
    if text == "@":
        raise UsageError("-s @ names no file", "give its name behind the @, or write @@ for the sign itself")
    return text[1:] if text.startswith("@@") else read_text(text[1:], text[1:])
