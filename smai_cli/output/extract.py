"""Extract the first fenced code block from the text of a complete answer, for -x.

The rules are those of CommonMark 0.31, section 4.5, with one difference: an open block at the end of the text is a
failure, because more than the fence may be missing. A fence may begin a list item.

Some servers leave the reasoning of a model in the answer. A draft in it is not the answer (gptme/gptme#579,
huggingface/smolagents#1915).
"""

import re

from smai_cli.errors import BrokenError, Retry

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_OPENING = re.compile(
    r"(?P<spaces> {0,3})(?P<item>(?:(?:[-+*]|[0-9]{1,9}[.)]) {1,4})*)"
    r"(?:(?P<backquotes>`{3,})[^`\r\n]*|(?P<tildes>~{3,})[^\r\n]*)[\r\n]*"
)
_MOST_SPACES = 3
_REASONING_BEGINS = re.compile(r"\s*<(think|thinking)>")
_REASONING_ENDS = re.compile(r"^[ \t]*</think(?:ing)?>[ \t]*\r?$", re.MULTILINE)


def code_block(text: str) -> str:
    """Return the content of the first fenced code block in `text`, with its last line end; "" for an empty block.

    Reasoning at the beginning of `text` is skipped. Raises BrokenError if there is no block, or if it is not closed.
    """
    lines = iter(_LINE.findall(_without_reasoning(text)))
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


def _without_reasoning(text: str) -> str:
    """Return what follows the reasoning at the beginning of `text`; all of `text` if it has none.

    The prompt templates of DeepSeek-R1 and QwQ contain the opening tag, so their answers have only the closing one.
    """
    if opening := _REASONING_BEGINS.match(text):
        return text.partition(f"</{opening[1]}>")[2]
    end = _REASONING_ENDS.search(text)
    return text[end.end() :] if end and "<think" not in text[: end.start()] else text


def _no_block(what: str) -> BrokenError:
    """Return the failure for an answer without a block: it was complete and billed, so smai does not repeat it."""
    return BrokenError(what, "ask for a code block, or leave -x out", retry=Retry.NEVER)
