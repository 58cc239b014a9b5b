"""Writing to stdout and stderr, on real pipes."""

import errno
import os
import threading
from pathlib import Path

import pytest

from smai_cli.errors import OutputError, ReaderGoneError
from smai_cli.output.descriptors import Output, stdout_error


def test_a_non_blocking_pipe_with_a_slow_reader_gets_every_byte() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(1_000_000)
    output = Output(writing)

    def write() -> None:
        output.write(data)
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    got = b"".join(iter(lambda: os.read(reading, 1000), b""))
    thread.join()
    os.close(reading)
    assert got == data
    assert output.written == len(data)


def test_a_closed_pipe_is_not_an_output_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(ReaderGoneError):
        Output(writing).write(b"x")
    os.close(writing)


def test_a_full_disk_is_reported() -> None:
    with Path("/dev/full").open("wb") as full, pytest.raises(OutputError, match="No space left on device"):
        Output(full.fileno()).write(b"x")


def test_every_failure_of_stdout_has_a_next_step() -> None:
    for number in (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG):
        assert "; " in str(stdout_error(OSError(number, os.strerror(number))))
