"""The head and the body of an answer, as http.client reads them, without its leniency."""

import http
import http.client
import re

from smai_cli.common.text import one_line
from smai_cli.http.early_answer import ResponseFile
from smai_cli.http.sending import Sending

_HTTP_1_1 = 11
# The end of a chunk, the size of the next one, which is not the last, and something of it (RFC 9112, section 7.1).
_NEXT_CHUNK = rb"\r\n0*[1-9A-Fa-f][0-9A-Fa-f]{0,8}\r\n(?s:.)"  # compiled where it is needed
_LONGEST_LENGTH = 18  # digits


class Response(http.client.HTTPResponse):
    """A response that is the final one: interim ones, such as 103 Early Hints, are passed over (RFC 9110, 15.2).

    http.client passes over 100 only, and takes another for an empty answer. Nor does it mind lengths that contradict
    each other or are none; `sending` hears of them.
    """

    sending: Sending
    # Whether its end is beyond doubt, so that what follows it can be the next answer.
    is_framed_well = False
    _is_coded = False

    def begin(self) -> None:
        """Read the head, and pass over each that is not the final one."""
        super().begin()
        while http.HTTPStatus.SWITCHING_PROTOCOLS < self.status < http.HTTPStatus.OK:
            # The same as for the first line: without headers, begin reads a status and headers.
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        self._is_coded = "content-encoding" in self.headers
        lengths = self.headers.get_all("content-length")
        # One with both lengths, or of HTTP/1.0, is nothing to rely on (RFC 9112, sections 6.1 and 6.3).
        self.is_framed_well = self.version == _HTTP_1_1 and bool(lengths) != ("transfer-encoding" in self.headers)
        if not self.chunked and lengths:
            self._check(lengths)

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived, as many chunks as are there: each round through the layers above costs more."""
        piece = super().read1(n)
        parts, left = [piece], n - len(piece)
        while piece and self.chunked and left > 0 and self._has_next_chunk():
            piece = super().read1(left)
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts) if len(parts) > 1 else piece

    def _has_next_chunk(self) -> bool:
        """Return whether a byte of another chunk was read ahead: nothing will block, and nothing will fail.

        Where a coding is to be undone, that may fail in the next chunk, and what came before is not to go with it.
        """
        if self.chunk_left != 0 or self._is_coded or not isinstance(self.fp, ResponseFile):
            return False
        return re.match(_NEXT_CHUNK, self.fp.buffered()) is not None

    def _check(self, lengths: list[str]) -> None:
        """Drop a Content-Length that cannot be told (RFC 9112, section 6.3), so that a failure keeps its status."""
        found = list(dict.fromkeys(length.strip() for field in lengths for length in field.split(",")))
        wrong = [length for length in found if not _is_length(length)]
        if wrong:
            self.sending.malformed = f"a length that is not a number: {one_line(wrong[0], 40)}"
        elif len(found) > 1:
            self.sending.malformed = f"two lengths: {found[0]} and {found[1]}"
        else:
            return
        del self.headers["content-length"]
        self.length = None

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # read as so many bytes from the end
            raise http.client.HTTPException(f"it is malformed HTTP: a chunk of {size} bytes")
        return size


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_LENGTH
