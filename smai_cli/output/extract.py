"""Extract the first fenced code block from the text of a complete answer, for -x.

The rules are those of CommonMark 0.31, section 4.5. A fence is three or more backquotes or tildes, with up to three
spaces before it. An info string may follow an opening fence; after backquotes it contains no backquote. A closing fence
has the same character, is at least as long, and only spaces and tabs follow it. The indentation of the opening fence is
removed from each line of the content. A fence may begin a list item.

One difference: CommonMark closes an open block at the end of the text. Here that is a failure, because more than the
fence may be missing.
"""

import re

from smai_cli.errors import BrokenError, Retry

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_OPENING = re.compile(
    r"(?P<spaces> {0,3})(?P<item>(?:(?:[-+*]|[0-9]{1,9}[.)]) {1,4})*)"
    r"(?:(?P<backquotes>`{3,})[^`\r\n]*|(?P<tildes>~{3,})[^\r\n]*)[\r\n]*"
)
_MOST_SPACES = 3


def code_block(text: str) -> str:
    """Return the content of the first fenced code block in `text`, with its last line end; "" for an empty block.

    Raises BrokenError if there is none, or if it is not closed.
    """
    lines = iter(_LINE.findall(text))
    opening = next(filter(None, map(_OPENING.fullmatch, lines)), None)
    if opening is None:
        raise _no_block("the answer has no code block")
    item = len(opening["item"])
    indent = len(opening["spaces"]) + item
    fence = opening["backquotes"] or opening["tildes"]
    most = _MOST_SPACES + (indent if item else 0)
    closing = re.compile(rf" {{0,{most}}}{fence}{fence[0]}*[ \t]*[\r\n]*")
    content: list[str] = []
    for line in lines:
        if closing.fullmatch(line):
            return "".join(content)
        spaces = len(line) - len(line.lstrip(" "))
        content.append(line[min(indent, spaces) :])
    raise _no_block("the code block in the answer is never closed")


def _no_block(what: str) -> BrokenError:
    """Return the failure for an answer without a block: it was complete and billed, so smai does not repeat it."""
    return BrokenError(what, "ask for a code block, or leave -x out", retry=Retry.NEVER)
