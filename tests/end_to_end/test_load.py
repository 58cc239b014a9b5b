"""Up to a million deltas: memory does not grow with the length of the stream."""

import os
import socket
import subprocess

import pytest
from process import SMAI
from rawserver import CLOSE_HEAD, DONE, STOP, Serve, Step, reach

pytest_plugins = ["rawserver"]

# The smallest event that is a delta, so that the million is over soon.
DELTA = b'data: {"choices":[{"delta":{"content":"w "}}]}\n\n'


def deltas(count: int) -> Step:
    """Send this many deltas as fast as the client takes them."""

    def send(connection: socket.socket) -> None:
        for _ in range(count // 1000):
            connection.sendall(DELTA * 1000)

    return send


@pytest.mark.thorough
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("flags", "many"),
    [
        pytest.param([], 1_000_000, marks=pytest.mark.nightly),
        ([], 50_000),
        pytest.param(["--raw"], 50_000, marks=pytest.mark.nightly),
        pytest.param(["--jsonl"], 50_000, marks=pytest.mark.nightly),
    ],
)
def test_a_long_stream_needs_no_more_memory_than_a_thousand_deltas(
    environment: dict[str, str], serve: Serve, flags: list[str], many: int
) -> None:
    peak_kib = []
    for count in (1000, many):
        server = serve(CLOSE_HEAD, deltas(count), STOP, DONE)
        command = [SMAI, "ask", "-n", "hi", *flags]
        with subprocess.Popen(command, env=environment | reach(server), stdout=subprocess.PIPE) as process:
            assert process.stdout
            read = 0
            while piece := process.stdout.read(65536):
                read += len(piece)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert read >= 2 * count
        peak_kib.append(usage.ru_maxrss)
    small, large = peak_kib
    assert large - small <= 8 * 1024
