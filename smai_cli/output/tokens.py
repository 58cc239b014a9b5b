"""A text -> the number of its tokens: by the model's tokenizer where it is known and installed, or estimated."""

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splintr import AnyTokenizer

# English runs at about 4 characters a token, other scripts at about 1 (the service's billing rule of thumb).
_ASCII_PER_TOKEN = 4
_PACKAGE = "splintr"
_MAKERS = ("", "openai", "azure")
# A name is a family and, behind a dash, a size or a date. A family that is not here has no tokenizer: a count that
# claims to be exact must not be a guess.
_ENCODINGS = {
    "o200k_base": re.compile(r"(?:(?:chat)?gpt-4o|gpt-4\.[15]|gpt-5(?:\.\d+)?|o[134])(?:-.+)?"),
    "cl100k_base": re.compile(r"gpt-(?:4|3\.5|35)(?:-.+)?"),
}


def encoding_for(model: str) -> str | None:
    """Return the name of the encoding that `model` reads and writes; None where it is not known.

    The name may have its maker before it (openai/gpt-4o), and be that of a fine-tuned model (ft:gpt-4o:org::id).
    """
    path, _, name = model.rpartition("/")
    if path.rpartition("/")[2] not in _MAKERS:
        return None
    family = name.removeprefix("ft:").partition(":")[0]
    return next((encoding for encoding, pattern in _ENCODINGS.items() if pattern.fullmatch(family)), None)


def installed() -> bool:
    """Return whether the package with the tokenizers is there (the extra `tokens`), without loading it."""
    from importlib.util import find_spec  # only where somebody wants a count

    return find_spec(_PACKAGE) is not None


def count(text: str, model: str) -> int | None:
    """Return how many tokens `text` is for `model`, the names of special tokens in it taken as plain text.

    Return None where the tokenizer of the model is not known, or not installed.
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


@functools.cache  # a process with many answers loads it once
def _tokenizer(encoding: str) -> "AnyTokenizer":
    from splintr import Tokenizer  # megabytes of vocabulary, and most runs count nothing

    return Tokenizer.from_pretrained(encoding)


def estimate_of(text: str) -> int:
    """Return about how many tokens a text is."""
    return estimate(len(text), sum(map(str.isascii, text)))


def estimate(characters: int, ascii_characters: int) -> int:
    """Return about how many tokens so many characters are, of which so many are ASCII."""
    return characters - ascii_characters + -(-ascii_characters // _ASCII_PER_TOKEN)
