"""Compare `smai batch` with its alternatives, in turns, against servers that send fixed bytes.

`python batch.py [--runs N] [--only WORD] [--plot FILE]`: only the ratios of the medians are meaningful. Measurements a
round trip away need root on Linux (see roundtrip.py).
"""

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import roundtrip
import server

PYTHON, HERE = sys.executable, Path(__file__)
SMAI = str(Path(sys.executable).with_name("smai"))
ANSWERS, JOBS = 2000, 64
ENVIRON = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}


DELTAS = 50
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


# The server: `batch.py serve HOST DELTAS [CERT KEY]`.


def canned(deltas: int) -> bytes:
    """Return a complete answer with this many deltas."""
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


async def serve(host: str, deltas: str, *pem: str) -> None:
    """Answer every request with so many deltas, for ever."""
    Answering.answer = canned(int(deltas))
    context = None
    if pem:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pem)
    serving = await asyncio.get_running_loop().create_server(Answering, host, 0, ssl=context, backlog=1000)
    print(serving.sockets[0].getsockname()[1], flush=True)
    await serving.serve_forever()


@contextmanager
def served(host: str, deltas: int, *pem: str, prefix: tuple[str, ...] = ()) -> Iterator[int]:
    """Serve in a separate process; provide the port."""
    command = [*prefix, PYTHON, str(HERE), "serve", host, str(deltas), *pem]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def served_far_away(round_trip_ms: int, folder: str) -> Iterator[tuple[str, str] | None]:
    """Serve over TLS, a round trip away; provide the base URL and the file of certificates, or None if impossible."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists() or not shutil.which("ip"):
        print("no round trips: they need root, /dev/net/tun and ip(8)")
        yield None
        return
    import trustme  # from the extra `bench`

    authority = trustme.CA()
    certificate = authority.issue_cert(roundtrip.FAR)
    ca, cert, key = (str(Path(folder, name)) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    command = [PYTHON, str(HERE.with_name("roundtrip.py")), str(round_trip_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as carrier:
        assert carrier.stdout
        carrier.stdout.readline()
        inside = ("ip", "netns", "exec", roundtrip.NAMESPACE)
        try:
            with served(roundtrip.FAR, DELTAS, cert, key, prefix=inside) as port:
                yield f"https://{roundtrip.FAR}:{port}/v1", ca
        finally:
            carrier.terminate()


# What a user would write instead: URL ANSWERS JOBS [CA_FILE]

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


# The measurement.


class Measured(NamedTuple):
    """One run of a client: of it and all its children."""

    wall_s: float
    cpu_s: float
    peak_mb: float


RESULTS: list[tuple[str, float, float]] = []


def run(command: list[str], *, cwd: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Measured:
    """Run a command that must succeed, its output thrown away."""
    begun_s = time.monotonic()
    with open(stdin or os.devnull) as source, open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, cwd=cwd, stdin=source, stdout=nowhere, env=ENVIRON | (env or {}))
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)[:200]} exited {process.returncode}")
    return Measured(time.monotonic() - begun_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def in_turn(what: str, runs: int, clients: dict[str, Callable[[], Measured]]) -> dict[str, Measured]:
    """Run the clients in turn; print and return the median of each."""
    found: dict[str, list[Measured]] = {name: [] for name in clients}
    for _ in range(runs):
        for name, client in clients.items():
            found[name].append(client())
    medians = {}
    for name, values in found.items():
        medians[name] = Measured(*(statistics.median(column) for column in zip(*values, strict=True)))
        print(f"{what:34} {name:24} {medians[name].wall_s:8.2f} s {medians[name].cpu_s:8.2f} s CPU "
              f"{medians[name].peak_mb:6.0f} MB", flush=True)  # fmt: skip
    return medians


def budget(what: str, value: float, limit: float) -> None:
    """Print what was reached of what was aimed at, and keep it for the plot."""
    RESULTS.append((what, value, limit))
    print(f"{'ok    ' if value <= limit else 'MISSED'} {what:70} {value:7.2f}  (budget <= {limit:g})", flush=True)


def lines(folder: str, name: str, count: int, size: int = 20) -> str:
    """Write an input with this many lines; return its path."""
    path = str(Path(folder, name))
    prompts = (f"question {number} ".ljust(size, "x") for number in range(count))
    with open(path, "w") as file:
        file.writelines(json.dumps({"id": f"row-{n}", "prompt": prompt}) + "\n" for n, prompt in enumerate(prompts))
    return path


def batch(
    base_url: str, path: str, jobs: int, *more: str, ca: str | None = None, folder: str
) -> Callable[[], Measured]:
    """Return what runs `smai batch` once, into a file."""

    def once() -> Measured:
        for left in Path(folder).glob("out.jsonl*"):
            left.unlink()
        env = {"SMAI_API_KEY": "none", "SMAI_BASE_URL": base_url} | ({"SSL_CERT_FILE": ca} if ca else {})
        return run([SMAI, "batch", "-j", str(jobs), "-o", "out.jsonl", *more, path], cwd=folder, env=env)

    return once


def script(base_url: str, answers: int, jobs: int, ca: str | None = None, *, folder: str) -> Callable[[], Measured]:
    """Return what runs the AsyncOpenAI script once."""
    return lambda: run([PYTHON, "-c", OPENAI, base_url, str(answers), str(jobs), *([ca] if ca else [])], cwd=folder)


def at_full_speed(runs: int, folder: str) -> None:
    """Measure the cost of answers relative to the AsyncOpenAI script."""
    path = lines(folder, "in.jsonl", ANSWERS)
    with served("127.0.0.1", DELTAS) as port:
        url = f"http://127.0.0.1:{port}/v1"
        found = in_turn(
            f"{ANSWERS} answers, {JOBS} at once",
            runs,
            {
                "smai batch": batch(url, path, JOBS, "--no-adapt", folder=folder),
                "AsyncOpenAI": script(url, ANSWERS, JOBS, folder=folder),
            },
        )
    smai, other = found["smai batch"], found["AsyncOpenAI"]
    budget("CPU an answer / AsyncOpenAI script", smai.cpu_s / other.cpu_s, 0.3)
    budget("wall / AsyncOpenAI script", smai.wall_s / other.wall_s, 0.4)
    budget("peak memory with 64 at once, MB", smai.peak_mb, 48)


def beside_xargs(runs: int, folder: str, answers: int = 500) -> None:
    """Measure the cost of answers relative to one process for each."""
    path = lines(folder, "in.jsonl", answers)
    prompts = Path(folder, "prompts.txt")
    prompts.write_text("".join(f"question {number}\n" for number in range(answers)))
    with served("127.0.0.1", DELTAS) as port:
        url = f"http://127.0.0.1:{port}/v1"
        ask = f"SMAI_API_KEY=none {SMAI} ask -n --base-url {url} {{}}"
        body = '{"model":"m","stream":true,"messages":[{"role":"user","content":"{}"}]}'
        pick = """sed -un 's/^data: //p' | grep -v DONE | jq -rj '.choices[0].delta.content // empty'"""
        curl = f"curl -sN -H 'Content-Type: application/json' -d '{body}' {url}/chat/completions | {pick}"

        def each(command: str) -> Callable[[], Measured]:
            return lambda: run(["xargs", "-P", str(JOBS), "-I{}", "sh", "-c", command], cwd=folder, stdin=str(prompts))

        found = in_turn(
            f"{answers} answers, {JOBS} at once",
            runs,
            {
                "smai batch": batch(url, path, JOBS, "--no-adapt", folder=folder),
                "xargs smai ask": each(ask),
                "xargs curl, sed, grep, jq": each(curl),
            },
        )
    cpu_s = found["smai batch"].cpu_s
    budget("CPU / xargs -P 64 smai ask", cpu_s / found["xargs smai ask"].cpu_s, 0.1)
    budget("CPU / xargs -P 64 curl | jq", cpu_s / found["xargs curl, sed, grep, jq"].cpu_s, 0.5)


def many_streams(runs: int, folder: str) -> None:
    """Measure the delay of 128 streams of 50 deltas a second relative to one stream."""
    one, many = lines(folder, "one.jsonl", 1), lines(folder, "many.jsonl", 128)
    with paced_server() as port:
        url = f"http://127.0.0.1:{port}/n500-d20/v1"
        found = in_turn(
            "10 s at 50 deltas a second",
            runs,
            {
                "1 stream": batch(url, one, 1, folder=folder),
                "128 streams": batch(url, many, 128, "--no-adapt", folder=folder),
            },
        )
    budget("128 streams / one, wall", found["128 streams"].wall_s / found["1 stream"].wall_s, 1.05)


@contextmanager
def paced_server() -> Iterator[int]:
    """Run server.py, whose path sets the pace; yield its port."""
    command = [PYTHON, str(HERE.with_name("server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        try:
            yield port
        finally:
            process.kill()
            drain.wait()


def far_away(runs: int, folder: str, answers: int = 1000, jobs: int = 16) -> None:
    """Measure requests over TLS to a server 50 ms away."""
    path = lines(folder, "in.jsonl", answers)
    with served_far_away(50, folder) as far:
        if far is None:
            return
        url, ca = far
        found = in_turn(
            f"{answers} over TLS, 50 ms away",
            runs,
            {
                "smai batch": batch(url, path, jobs, "--no-adapt", ca=ca, folder=folder),
                "AsyncOpenAI": script(url, answers, jobs, ca, folder=folder),
            },
        )
    budget("1,000 over TLS, 50 ms away: wall / script", found["smai batch"].wall_s / found["AsyncOpenAI"].wall_s, 1.0)


def long_inputs(runs: int, folder: str) -> None:
    """Measure the memory per line, and the time to resume after 100,000 results."""
    short, long = lines(folder, "1k.jsonl", 1000, 1000), lines(folder, "100k.jsonl", 100_000, 1000)
    with served("127.0.0.1", 2) as port:
        url = f"http://127.0.0.1:{port}/v1"
        peaks = [batch(url, path, 16, "--no-adapt", folder=folder)().peak_mb for path in (short, long)]
        budget("MiB more for 100,000 lines of 1 kB than for 1,000", peaks[1] - peaks[0], 20)
        results = Path(folder, "out.jsonl").read_bytes().splitlines(keepends=True)
        partial = Path(folder, "out.jsonl.partial")
        times = []
        for _ in range(runs):
            Path(folder, "out.jsonl").unlink(missing_ok=True)
            partial.write_bytes(b"".join(results[:-1]))
            begun_s = time.monotonic()
            env = {"SMAI_API_KEY": "none", "SMAI_BASE_URL": url}
            run([SMAI, "batch", "-o", "out.jsonl", "--resume", "-v", long], cwd=folder, env=env)
            times.append(time.monotonic() - begun_s)
        # From the start to the end of the run, with one request and the sorting of the whole file.
        print(f"resuming 100,000 results, the whole run: {statistics.median(times):.2f} s")
        budget("resuming 100,000 results: seconds until the first request", until_first_request(folder, url, long), 2)


def until_first_request(folder: str, url: str, path: str) -> float:
    """Return the seconds from the start until the trace of -v names the first request."""
    partial = Path(folder, "out.jsonl.partial")
    results = Path(folder, "out.jsonl").read_bytes().splitlines(keepends=True)
    Path(folder, "out.jsonl").unlink()
    partial.write_bytes(b"".join(results[:-1]))
    begun_s = time.monotonic()
    command = [SMAI, "batch", "-o", "out.jsonl", "--resume", "-v", path]
    env = ENVIRON | {"SMAI_API_KEY": "none", "SMAI_BASE_URL": url}
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        found_s = next((time.monotonic() - begun_s for line in process.stderr if "request sent" in line), 0.0)
        process.stderr.read()
    return found_s


def plot(path: str) -> None:
    """Draw each figure next to its budget."""
    from matplotlib import pyplot as plt  # from the extra `bench`

    figure, axes = plt.subplots(figsize=(9, 0.5 * len(RESULTS) + 1))
    names = [what for what, _, _ in RESULTS][::-1]
    shares = [value / limit for _, value, limit in RESULTS][::-1]
    axes.barh(names, shares, color=["tab:green" if share <= 1 else "tab:red" for share in shares])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("measured / budget")
    figure.tight_layout()
    figure.savefig(path)


PARTS = {
    "at_full_speed": at_full_speed,
    "beside_xargs": beside_xargs,
    "many_streams": many_streams,
    "far_away": far_away,
    "long_inputs": long_inputs,
}


def main() -> None:
    """Measure, or be a part of what is measured."""
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each client")
    parser.add_argument("--only", choices=PARTS, help="measure this part only")
    parser.add_argument("--plot", metavar="FILE", help="draw the figures into FILE")
    arguments = parser.parse_args()
    assert shutil.which("jq"), "jq is needed"
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            if arguments.only in (None, name):
                part(arguments.runs, folder)
    if arguments.plot:
        plot(arguments.plot)


if __name__ == "__main__":
    main()
