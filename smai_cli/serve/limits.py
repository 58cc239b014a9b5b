"""How much of the gateway one client may use."""

from typing import NamedTuple

_DESCRIPTORS_EACH = 4
_OTHER_DESCRIPTORS = 16


class ClientLimits(NamedTuple):
    """What a client may use.

    A connection may wait `idle_s` for its next request. A head must arrive within `head_s`, a body within `body_s`, and
    the client must take a page or an error within `write_s`. After a refusal, the rest of the request is read for
    `linger_s`. At most `streams` answers stream at once, because browsers open six connections to a host and the next
    page needs one. At most `connections` are open, because each has a thread.
    """

    idle_s: float = 60.0
    head_s: float = 10.0
    body_s: float = 60.0
    write_s: float = 10.0
    linger_s: float = 2.0
    streams: int = 5
    connections: int = 128


def limits_within(descriptors: int) -> ClientLimits:
    """Return the limits of a process that can open so many files.

    Each connection needs a descriptor, and up to three more while its request is answered. If connections without the
    token could use up all of them, no other client could connect.
    """
    most = ClientLimits().connections
    return ClientLimits(connections=max(1, min(most, (descriptors - _OTHER_DESCRIPTORS) // _DESCRIPTORS_EACH)))
