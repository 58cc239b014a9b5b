"""The user's text and files -> the messages to send, and the format that the answer must have."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from smai_cli.common.files import Read, file_named_in, shown_name, text_in, text_of_value
from smai_cli.common.frozen import Frozen
from smai_cli.errors import UsageError
from smai_cli.prompt.prompt import compose
from smai_cli.prompt.request import Message, build_messages

if TYPE_CHECKING:
    from smai_cli.prompt.attachments import Attachment
    from smai_cli.prompt.conversation import ConversationFile
    from smai_cli.prompt.response_format import ResponseFormat


class InputOptions(Frozen):
    """The options for the input: the system text, or `@` and a file name, and the names of files.

    The name `-` is stdin. `system_is_typed` says that the system text is from the command line, not from the
    configuration. `json` asks for JSON, `schema` for JSON that matches the schema in that file. `option` are the
    KEY=VALUE pairs of -O; `takes_one` says that only one answer can be delivered.
    """

    system: str | None = None
    system_is_typed: bool = False
    attach: tuple[str, ...] = ()
    chat: str | None = None
    messages: str | None = None
    json: bool = False
    schema: str | None = None
    option: tuple[str, ...] = ()
    takes_one: bool = False

    @property
    def has_files(self) -> bool:
        """Whether they name files that must be read or opened before the request."""
        values = (self.system or "", *(pair.partition("=")[2] for pair in self.option))
        is_named = any(file_named_in(value) is not None for value in values)
        return bool(self.attach or self.chat or self.messages or self.schema or is_named)


class Question(Frozen):
    """What was read from files: the system text, earlier messages, attachments, and the format of the answer.

    `extra_body` are members of the request, sent unchanged. `chat` is the locked file of the conversation.
    """

    system: str | None
    earlier: tuple[Message, ...]
    attachments: "tuple[Attachment, ...]"
    response_format: "ResponseFormat | None"
    extra_body: dict[str, Any]
    chat: "ConversationFile | None" = None

    def messages(self, words: list[str], piped: str | None) -> tuple[Message, ...]:
        """Return the messages to send, for the operands `words` and the text from stdin. Raises UsageError."""
        return build_messages(self._content(words, piped), self.system, self.earlier)

    def _content(self, words: list[str], piped: str | None) -> str | list[dict[str, Any]] | None:
        is_answered = self.chat is not None and self.earlier[-1:] and self.earlier[-1].role == "assistant"
        if self.earlier and not is_answered and not words and not (piped or "").strip():
            if self.attachments:
                raise UsageError("there is an attachment, but no prompt", "give a prompt")
            return None
        text = compose(words, piped)
        if not self.attachments:
            return text
        from smai_cli.prompt.attachments import content_with  # for few runs

        return content_with(self.attachments, text)


def read_question(options: InputOptions, read: Read) -> Question:
    """Read the files that the options name, except for a conversation, with `read`. Raises UsageError.

    The modules for each kind of file are loaded only if needed.
    """
    response_format = None
    extra_body: dict[str, Any] = {}
    attachments: tuple[Attachment, ...] = ()
    if options.option:
        from smai_cli.prompt.extra_body import extra_members

        extra_body = extra_members(options.option, read, takes_one=options.takes_one)
    system = None if options.system is None else text_of_value(options.system, read, "-s")
    if options.json or options.schema:
        from smai_cli.prompt.response_format import ResponseFormat

        response_format = ResponseFormat(options.schema, read)
    if options.attach:
        from smai_cli.prompt.attachments import read_attachment

        attachments = tuple(read_attachment(path, read) for path in options.attach)
    earlier = _read_messages(options.messages, read) if options.messages else ()
    if earlier and not options.system_is_typed:
        system = None  # a configured system text is only for the beginning of a conversation
    return Question(
        system=system,
        earlier=earlier,
        attachments=attachments,
        response_format=response_format,
        extra_body=extra_body,
    )


def _read_messages(path: str, read: Read) -> tuple[Message, ...]:
    """Return the messages in a file. Raises UsageError, also if there are none."""
    from smai_cli.prompt.messages import parse_messages  # only with --messages

    name = shown_name(path)
    earlier = parse_messages(text_in(read(path, None), name), name)
    if not earlier:
        raise UsageError(f"{name} contains no message", "check --messages")
    return earlier


@contextlib.contextmanager
def in_conversation(question: Question, options: InputOptions, notice: Callable[[str], None]) -> Iterator[Question]:
    """Yield the question with the conversation in its file before it. The file is locked within the context.

    Without such a file, the question is unchanged. Enter it after reading stdin: the program that writes to stdin may
    wait for the same file. Raises UsageError.
    """
    path = options.chat
    if not path:
        yield question
        return
    from smai_cli.prompt.conversation import ConversationFile  # only with --chat

    with ConversationFile(path, notice) as chat:
        system = question.system
        if chat.messages and not options.system_is_typed:
            system = None  # as in read_question
        first = [message.content for message in chat.messages[:1] if message.role in ("system", "developer")]
        if chat.messages and system is not None and first != [system]:
            raise UsageError(f"{path} began without this system message", "drop -s, or begin another conversation")
        yield question.replaced(system=system, earlier=chat.messages, chat=chat)
