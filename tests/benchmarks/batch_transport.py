"""Measures many answers at once: smai's pump and connections beside an AsyncOpenAI script with a semaphore.

`python batch_transport.py [--runs N] [--answers N] [--jobs N]` starts its own servers, which say canned bytes. The
part that is a round trip away needs root on Linux (see roundtrip.py). The clients are measured in processes of
their own, in turn; the ratios of their medians are what counts.
"""

import argparse
import asyncio
import os
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import roundtrip
import server

PYTHON, HERE = sys.executable, str(Path(__file__))
DELTAS = 50
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


# The server: `batch_transport.py serve HOST [CERT KEY]`.


def canned(deltas: int) -> bytes:
    """Return a whole answer of so many deltas."""
    words = b"".join(server.chunk(f"word{number} ") for number in range(deltas))
    end = server.chunk(None, "stop") + server.framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return server.HEAD + server.chunk() + words + end


class Answering(asyncio.Protocol):
    """A connection that answers each request at once."""

    answer = canned(DELTAS)
    connections = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.read = transport, b""
        Answering.connections += 1

    def data_received(self, data: bytes) -> None:
        self.read += data
        while (at := self.read.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self.read, 0, at)
            end = at + 4 + (int(length[1]) if length else 0)
            if len(self.read) < end:
                return
            self.read = self.read[end:]
            self.transport.write(self.answer)


async def serve(host: str, *pem: str) -> None:
    """Serve for ever."""
    context = None
    if pem:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pem)
    serving = await asyncio.get_running_loop().create_server(Answering, host, 0, ssl=context, backlog=1000)
    print(serving.sockets[0].getsockname()[1], flush=True)
    await serving.serve_forever()


# The clients, each in a process that loads nothing else: URL ANSWERS JOBS [CA_FILE]

SMAI = """
import sys, threading
from smai_cli.clocks import Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.http import transport
from smai_cli.http.keepalive import KeepAlive
from smai_cli.http.retry import Retries
from smai_cli.prompt.request import Request, conversation
from smai_cli.stream import pump
from smai_cli.stream.dialects import dialect_for
from smai_cli.stream.outcome import Outcome

class Collecting:
    holds_back, takes_all = True, False
    def __init__(self):
        self.texts = []
    def piece(self, data):
        pass
    def chunk(self, chunk):
        self.texts.append(chunk.text)
    def end(self, outcome):
        pass

endpoint, numbers, lock, lengths = Endpoint(sys.argv[1]), iter(range(int(sys.argv[2]))), threading.Lock(), []
dialect, clocks, ca_file = dialect_for("chat", ""), Clocks(), (sys.argv[4:] or [None])[0]

def work():
    keep_alive = KeepAlive()
    def post(body):
        return transport.post(endpoint, dialect.PATH, body, clocks, ca_file=ca_file, keep_alive=keep_alive)
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            break
        writer, outcome = Collecting(), Outcome(())
        request = Request("m", conversation(f"question {number}", None))
        pump.ask(request, post, dialect, writer=writer, outcome=outcome, retries=Retries(0, print))
        lengths.append(len("".join(writer.texts)) if outcome.error is None else 0)
    keep_alive.close()

threads = [threading.Thread(target=work) for _ in range(int(sys.argv[3]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(lengths) == int(sys.argv[2]) and len(set(lengths)) == 1 and lengths[0], set(lengths)
"""
OPENAI = """
import asyncio, os, sys
if sys.argv[4:]:
    os.environ["SSL_CERT_FILE"] = sys.argv[4]
from openai import AsyncOpenAI

async def main():
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    semaphore = asyncio.Semaphore(int(sys.argv[3]))
    async def ask(number):
        async with semaphore:
            texts, messages = [], [{"role": "user", "content": f"question {number}"}]
            async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True):
                if chunk.choices and chunk.choices[0].delta.content:
                    texts.append(chunk.choices[0].delta.content)
            return len("".join(texts))
    lengths = await asyncio.gather(*(ask(number) for number in range(int(sys.argv[2]))))
    assert len(set(lengths)) == 1 and lengths[0], set(lengths)

asyncio.run(main())
"""
CLIENTS = {"smai": SMAI, "openai": OPENAI}


# The measurement.


class Measured(NamedTuple):
    """One run of a client."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def run(client: str, *arguments: str) -> Measured:
    """Run a client in a process of its own."""
    begun_s = time.monotonic()
    process = subprocess.Popen([PYTHON, "-c", CLIENTS[client], *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{client} exited {process.returncode}")
    return Measured(time.monotonic() - begun_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def side_by_side(what: str, runs: int, *arguments: str) -> dict[str, Measured]:
    """Run the clients in turn; print and return the median of each."""
    results: dict[str, list[Measured]] = {name: [] for name in CLIENTS}
    for _ in range(runs):
        for name, found in results.items():
            found.append(run(name, *arguments))
    medians = {}
    for name, found in results.items():
        middle = Measured(*(statistics.median(values) for values in zip(*found, strict=True)))
        medians[name] = middle
        cpu_ms = middle.cpu_s * 1000 / int(arguments[1])
        print(f"{what:45} {name:7} {middle.wall_s:7.2f} s {cpu_ms:6.2f} ms CPU an answer {middle.peak_mb:5.0f} MB")
    return medians


@contextmanager
def served(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[int]:
    """Serve in a process of its own; the port."""
    command = [*prefix, PYTHON, HERE, "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def budget(what: str, value: float, limit: float) -> None:
    """Print what was reached of what was aimed at."""
    print(f"{'ok    ' if value <= limit else 'MISSED'} {what:60} {value:6.2f}  (budget <= {limit:g})")


def at_full_speed(runs: int, answers: int, jobs: int) -> None:
    """Measure what answers cost."""
    with served("127.0.0.1") as port:
        what = f"{answers} answers of {DELTAS} deltas, {jobs} at once"
        found = side_by_side(what, runs, f"http://127.0.0.1:{port}/v1", str(answers), str(jobs))
    budget("CPU / AsyncOpenAI script", found["smai"].cpu_s / found["openai"].cpu_s, 0.3)
    budget("wall / AsyncOpenAI script", found["smai"].wall_s / found["openai"].wall_s, 0.4)
    budget("peak memory, MB", found["smai"].peak_mb, 48)


def far_away(runs: int, round_trip_ms: int = 50, answers: int = 1000, jobs: int = 16) -> None:
    """Measure how long requests over TLS to a server far away take."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists() or not shutil.which("ip"):
        print("no round trips: they need root, /dev/net/tun and ip(8)")
        return
    import trustme  # noqa: PLC0415

    authority = trustme.CA()
    certificate = authority.issue_cert(roundtrip.FAR)
    with tempfile.TemporaryDirectory() as folder:
        ca, cert, key = (str(Path(folder, name)) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(ca)
        certificate.cert_chain_pems[0].write_to_path(cert)
        certificate.private_key_pem.write_to_path(key)
        carrier_command = [PYTHON, str(Path(HERE).with_name("roundtrip.py")), str(round_trip_ms)]
        with subprocess.Popen(carrier_command, stdout=subprocess.PIPE, bufsize=0) as carrier:
            assert carrier.stdout
            carrier.stdout.readline()
            inside = ("ip", "netns", "exec", roundtrip.NAMESPACE)
            try:
                with served(roundtrip.FAR, cert, key, prefix=inside) as port:
                    url = f"https://{roundtrip.FAR}:{port}/v1"
                    what = f"{answers} over TLS, {round_trip_ms} ms away, {jobs} at once"
                    found = side_by_side(what, runs, url, str(answers), str(jobs), ca)
            finally:
                carrier.terminate()
    budget("wall far away / AsyncOpenAI script", found["smai"].wall_s / found["openai"].wall_s, 1.0)


def main() -> None:
    """Measure, or be a part of what is measured."""
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each client")
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=64)
    arguments = parser.parse_args()
    at_full_speed(arguments.runs, arguments.answers, arguments.jobs)
    far_away(arguments.runs)


if __name__ == "__main__":
    main()
