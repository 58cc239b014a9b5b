"""Attached files -> the content of a message: text under its file name, images as data URLs (RFC 2397)."""

import base64
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from smai_cli.common.files import UTF16_BOMS, Read, read_named, shown_name, text_in
from smai_cli.common.text import on_a_line
from smai_cli.errors import UsageError

LIMIT_BYTES = 20 * 1024 * 1024
_WEBP = re.compile(rb"RIFF.{4}WEBP", re.DOTALL)
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


class Attachment(NamedTuple):
    """An attached file: its name without the folder, and its text, or the data URL of its image."""

    name: str
    text: str = ""
    url: str = ""


def read_attachment(path: str, read: Read = read_named) -> Attachment:
    """Return the attachment in the file `path`, read by `read`; the type is detected from the content.

    Raises UsageError if it cannot be read, is larger than LIMIT_BYTES, or is neither an image nor text.
    """
    data = read(path, LIMIT_BYTES)
    path = shown_name(path)
    # File names are bytes; the model needs text.
    name = on_a_line(os.fsencode(os.path.basename(path)).decode("utf-8", "replace"))
    if media_type := image_type(data):
        return Attachment(name, url=f"data:{media_type};base64,{base64.b64encode(data).decode()}")
    neither = UsageError(f"{path} is neither text nor an image in PNG, JPEG, WebP or GIF", "convert it")
    if b"\0" in data and data[:2] not in UTF16_BOMS:
        raise neither
    try:
        text = text_in(data, path)
    except UsageError as exc:
        raise neither from exc
    if not text:
        raise UsageError(f"{path} is empty", "attach a file with something in it")
    return Attachment(name, text)


def content_with(attachments: Sequence[Attachment], prompt: str) -> str | list[dict[str, Any]]:
    """Return the content of the message that asks `prompt` about `attachments`.

    Without an image it is a string, which every server accepts: each text, fenced under its name, then the prompt.
    """
    if not any(attachment.url for attachment in attachments):
        return "\n\n".join([*map(_fenced_text, attachments), prompt])
    return [*map(_part, attachments), {"type": "text", "text": prompt}]


def _part(attachment: Attachment) -> dict[str, Any]:
    if attachment.url:
        return {"type": "image_url", "image_url": {"url": attachment.url}}
    return {"type": "text", "text": _fenced_text(attachment)}


def _fenced_text(attachment: Attachment) -> str:
    """Return the text between fences that do not occur in it (CommonMark, section 4.5)."""
    longest = max(map(len, re.findall("`+", attachment.text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if attachment.text.endswith("\n") else "\n"
    return f"{attachment.name}:\n{fence}\n{attachment.text}{end}{fence}"


def image_type(data: bytes) -> str | None:
    """Return the media type of an image that can be attached; None for anything else."""
    if _WEBP.match(data):
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC.items() if data.startswith(magic)), None)
