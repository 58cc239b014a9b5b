"""Count the tokens of a text with the model's tokenizer if it is known and installed, or estimate them."""

import functools
import re
from typing import TYPE_CHECKING

from smai_cli.common.text import ascii_in

if TYPE_CHECKING:
    from splintr import AnyTokenizer

# English has about 4 characters per token, other scripts about 1 (the service's rule of thumb).
_ASCII_PER_TOKEN = 4
_PACKAGE = "splintr"
_MAKERS = ("", "openai", "azure")
# A name is a family, optionally followed by a dash and a size or a date. A family that is not listed has no tokenizer:
# an exact count must not be a guess.
_ENCODINGS = {
    "o200k_base": r"(?:(?:chat)?gpt-4o|gpt-4\.[15]|gpt-5(?:\.\d+)?|o[134])(?:-.+)?",
    "cl100k_base": r"gpt-(?:4|3\.5|35)(?:-.+)?",
}


def encoding_for(model: str) -> str | None:
    """Return the name of the encoding of `model`; None if it is not known.

    `model` may begin with its maker (openai/gpt-4o), and may be a fine-tuned model (ft:gpt-4o:org::id).
    """
    path, _, name = model.rpartition("/")
    if path.rpartition("/")[2] not in _MAKERS:
        return None
    family = name.removeprefix("ft:").partition(":")[0]
    return next((encoding for encoding, pattern in _ENCODINGS.items() if re.fullmatch(pattern, family)), None)


def is_installed() -> bool:
    """Return whether the package with the tokenizers (the extra `tokens`) is installed, without loading it."""
    from importlib.util import find_spec  # only when tokens are counted

    return find_spec(_PACKAGE) is not None


def count(text: str, model: str) -> int | None:
    """Return the number of tokens of `text` for `model`; names of special tokens in it count as plain text.

    None if the tokenizer of the model is not known or not installed.
    """
    if not text:
        return 0
    encoding = encoding_for(model)
    if encoding is None:
        return None
    try:
        tokenizer = _tokenizer(encoding)
    except ImportError:
        return None
    return len(tokenizer.encode_ordinary(text))


@functools.cache  # loaded once for many answers
def _tokenizer(encoding: str) -> "AnyTokenizer":
    from splintr import Tokenizer  # megabytes of vocabulary, and most runs count nothing

    return Tokenizer.from_pretrained(encoding)


def estimate_of(text: str) -> int:
    """Estimate the tokens of a text."""
    return estimate(len(text), ascii_in(text))


def estimate(characters: int, ascii_characters: int) -> int:
    """Estimate the tokens of `characters` characters, of which `ascii_characters` are ASCII."""
    return characters - ascii_characters + -(-ascii_characters // _ASCII_PER_TOKEN)
