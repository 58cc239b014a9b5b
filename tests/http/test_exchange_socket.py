"""The exchange and its socket, within the test process."""

import contextlib
import socket
from typing import Any

import pytest
from conftest import Server

from smai_cli.common.clocks import Clocks, Deadline
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import ClockError
from smai_cli.http.exchange import Exchange
from smai_cli.http.progress import Progress, Upload
from smai_cli.prompt.request import Request, build_messages
from smai_cli.stream.dialects import chat

BODY = chat.encode_request(Request("m", build_messages("hi", None)))


def posted(url: str, clocks: Clocks | None = None) -> Any:
    return Exchange(Endpoint(url), chat.PATH, BODY, clocks or Clocks()).open()


def test_tcp_keepalive_is_set(server: Server) -> None:
    with contextlib.closing(posted(server().url)) as exchange:
        peer = exchange._response.raw.connection.sock
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_requests_ask_for_no_compression(server: Server) -> None:
    mock = server()
    posted(mock.url).close()
    assert mock.received[0].headers["accept-encoding"] == "identity"


def test_a_cancelled_request_is_not_sent_after_a_late_connection() -> None:
    progress = Progress()
    upload = Upload(BODY, progress)
    assert progress.cancel() is False
    with pytest.raises(OSError, match="cancel"):
        upload.read(10)
    assert not progress.connected


def test_a_request_whose_upload_began_counts_as_connected() -> None:
    progress = Progress()
    assert Upload(BODY, progress).read(10) == BODY[:10]
    assert progress.cancel() is True


def test_the_message_names_max_time_if_it_ends_the_wait_for_an_answer(server: Server) -> None:
    with pytest.raises(ClockError, match="in all"):
        for _ in posted(server(stall_after=0).url, Clocks(deadline=Deadline(0.1))):
            pass
