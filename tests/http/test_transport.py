"""The exchange and its socket, without a process of their own."""

import socket
from typing import Any

import pytest
from conftest import Server

from smai_cli.common.clocks import Clocks, Deadline
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import ClockError
from smai_cli.http import transport
from smai_cli.http.sending import Sending, Upload
from smai_cli.prompt.request import Request, conversation
from smai_cli.stream.dialects import chat

BODY = chat.encode_request(Request("m", conversation("hi", None)))


def posted(url: str, clocks: Clocks | None = None) -> Any:
    return transport.post(Endpoint(url), chat.PATH, BODY, clocks or Clocks())


def test_a_peer_that_vanished_is_noticed_by_the_system(server: Server) -> None:
    peer = posted(server().url)._raw.connection.sock
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nobody_is_asked_to_compress(server: Server) -> None:
    mock = server()
    posted(mock.url)
    assert mock.received[0].headers["accept-encoding"] == "identity"


def test_a_request_that_was_given_up_is_not_sent_when_its_connection_comes_after_all() -> None:
    sending = Sending()
    upload = Upload(BODY, sending)
    assert sending.cancel() is False
    with pytest.raises(OSError, match="cancel"):
        upload.read(10)
    assert not sending.connected


def test_a_request_that_was_begun_is_known_to_be_begun() -> None:
    sending = Sending()
    assert Upload(BODY, sending).read(10) == BODY[:10]
    assert sending.cancel() is True


def test_the_deadline_is_named_where_it_ends_the_wait_for_an_answer(server: Server) -> None:
    with pytest.raises(ClockError, match="in all"):
        for _ in posted(server(stall_after=0).url, Clocks(deadline=Deadline(0.1))):
            pass
