"""The body of an answer in the chunked coding, within the test process."""

import contextlib
import io
import itertools
import socket
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rawserver import HEAD, LAST_CHUNK, chunk

from smai_cli.http.progress import Progress
from smai_cli.http.response import Response, ResponseStream

MOST_BYTES = 65536
BUFFER_BYTES = io.DEFAULT_BUFFER_SIZE


class PacketSocket(socket.socket):
    """A socket that receives these packets, one at a time."""

    def __init__(self, packets: list[bytes]) -> None:
        super().__init__()
        self.packets = packets

    def recv_into(self, buffer: Any, *_: int) -> int:
        if not self.packets:
            return 0
        packet = self.packets.pop(0)
        size = min(len(packet), len(buffer))
        buffer[:size] = packet[:size]
        if size < len(packet):
            self.packets.insert(0, packet[size:])
        return size


class CountedResponse(Response):
    """A response that counts how often http.client reads the size of a chunk."""

    sizes = 0

    def _read_next_chunk_size(self) -> int:
        self.sizes += 1
        return super()._read_next_chunk_size()


@contextlib.contextmanager
def arriving(body: bytes, cuts: list[int]) -> Iterator[CountedResponse]:
    """Open the response whose body arrives in packets, cut at these places."""
    places = sorted({0, *(cut % len(body) for cut in cuts), len(body)})
    packets = [body[start:end] for start, end in itertools.pairwise(places)]
    with PacketSocket(packets) as connection:
        response = CountedResponse(ResponseStream(HEAD, connection, Progress()), method="POST")
        response.begin()
        with contextlib.closing(response):
            yield response


def read_pieces(response: Response, most_bytes: int = MOST_BYTES) -> list[bytes]:
    return list(iter(lambda: response.read1(most_bytes), b""))


def test_chunks_that_arrive_together_are_read_together_without_http_client() -> None:
    delta = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'
    with arriving(chunk(delta) * 50 + LAST_CHUNK, []) as response:
        assert read_pieces(response) == [delta * 50]
        assert response.sizes == 2  # the first one and the last one


@given(
    st.lists(st.integers(1, 60) | st.integers(1, 3 * BUFFER_BYTES), max_size=12),
    st.lists(st.integers(min_value=0), max_size=12),
    st.integers(1, 100) | st.just(MOST_BYTES),
)
def test_no_byte_of_a_chunk_is_lost_wherever_packets_end(sizes: list[int], cuts: list[int], most_bytes: int) -> None:
    bodies = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    with arriving(b"".join(map(chunk, bodies)) + LAST_CHUNK, cuts) as response:
        pieces = read_pieces(response, most_bytes)
    assert b"".join(pieces) == b"".join(bodies)
    assert max(map(len, pieces), default=0) <= most_bytes
