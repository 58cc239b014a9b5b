"""A second host on this machine, a chosen round trip away: python roundtrip.py MS

Makes a network namespace with the address FAR and a pair of TUN devices to it, and carries packets between
them, each held for half the round trip. Needs root and iproute2 on Linux. Prints `up`; runs until killed.
"""

import fcntl
import heapq
import itertools
import os
import select
import signal
import struct
import subprocess
import sys
import time

NAMESPACE, NEAR, FAR = "smai-bench", "10.98.7.1", "10.98.7.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_PACKET_BYTES = 65536


def ip(*arguments: str, far: bool = False) -> None:
    """Run ip(8), here or in the namespace."""
    inside = ["ip", "netns", "exec", NAMESPACE] if far else []
    subprocess.run([*inside, "ip", *arguments], check=True)


def tun(name: str) -> int:
    """Make a TUN device; return its descriptor, which carries bare IP packets."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def carry(near: int, far: int, half_s: float) -> None:
    """Carry packets both ways for ever, each held for `half_s`."""
    held: list[tuple[float, int, int, bytes]] = []
    order = itertools.count()
    other = {near: far, far: near}
    while True:
        wait_s = max(0.0, held[0][0] - time.monotonic()) if held else None
        for fd in select.select([near, far], [], [], wait_s)[0]:
            heapq.heappush(held, (time.monotonic() + half_s, next(order), other[fd], os.read(fd, _PACKET_BYTES)))
        while held and held[0][0] <= time.monotonic():
            _, _, fd, packet = heapq.heappop(held)
            os.write(fd, packet)


def main(round_trip_ms: float) -> None:
    """Make the namespace and the devices, carry packets, and take everything down again."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    subprocess.run(["ip", "netns", "del", NAMESPACE], stderr=subprocess.DEVNULL, check=False)
    ip("netns", "add", NAMESPACE)
    try:
        near, far = tun("smai-near"), tun("smai-far")
        ip("addr", "add", f"{NEAR}/24", "dev", "smai-near")
        ip("link", "set", "smai-near", "up")
        ip("link", "set", "smai-far", "netns", NAMESPACE)
        ip("addr", "add", f"{FAR}/24", "dev", "smai-far", far=True)
        ip("link", "set", "smai-far", "up", far=True)
        print("up", flush=True)
        carry(near, far, round_trip_ms / 2000)
    finally:
        ip("netns", "del", NAMESPACE)


if __name__ == "__main__":
    main(float(sys.argv[1]))
