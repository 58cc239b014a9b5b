"""Compare smai with its alternatives: python bench.py [--runs N] [--out DIR] [--only PART]

Starts its own server. Uses curl, jq, the openai SDK and llm if they are installed (`pip install '.[bench]'` installs
the Python ones) and, as root on Linux, makes a second host a round trip away. Prints medians with minimum and maximum,
and the budgets with the figures; writes bench.json and bench.svg. Only ratios are meaningful, and only on an idle
machine: the clients take turns, and a budget is the median of the ratios within a turn. `--other SMAI`, repeatable,
adds another smai, for example of another commit in its own environment.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PYTHON, SMAI = sys.executable, str(BIN / "smai")
BODY = json.dumps({"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
JQ = "jq --unbuffered -j '.choices[0].delta.content // empty'"
UNIX = f"sed -un 's/^data: //p' | grep --line-buffered -v '^\\[DONE\\]' | {JQ}"

SDK = """
import sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="none")
messages = [{"role": "user", "content": "hi"}]
for chunk in client.chat.completions.create(model="gpt-4.1", messages=messages, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
"""
NAIVE = """
import json, sys
import click, requests, sseclient
body = {"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
response = requests.post(sys.argv[1] + "/chat/completions", json=body, stream=True)
for event in sseclient.SSEClient(response).events():
    if event.data == "[DONE]":
        break
    for choice in json.loads(event.data)["choices"]:
        click.echo(choice["delta"].get("content", ""), nl=False)
"""
BARE_LOOP = """
import json, sys
import sseclient
def pieces():
    with open(sys.argv[1], "rb") as file:
        while piece := file.read(65536):
            yield piece
for event in sseclient.SSEClient(pieces()).events():
    if event.data != "[DONE]":
        json.loads(event.data)
"""

Command = list[str]


class Measured(NamedTuple):
    """One run of a client, in ms and MB; `latencies_ms` has one entry a delta."""

    request_ms: float
    first_ms: float
    exit_ms: float
    wall_ms: float
    cpu_ms: float
    peak_mb: float
    latencies_ms: list[float]


class Server:
    """A server.py that runs; `requests` reads the moments (monotonic ns) at which requests arrived."""

    def __init__(self, *arguments: str, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, PYTHON, str(HERE / "server.py"), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
        self.port = int(self._line())

    def request_ns(self) -> int:
        """Return when the next request arrived."""
        return int(self._line())

    def _line(self) -> bytes:
        assert self.process.stdout
        return self.process.stdout.readline()


def environment(home: Path) -> dict[str, str]:
    """Return an environment without the machine's own settings."""
    return {"PATH": f"{BIN}:{os.defpath}", "HOME": str(home), "LANG": "C.UTF-8", "LLM_USER_PATH": str(home)}


def run(command: Command, env: dict[str, str], server: Server | None = None, *, timed: bool = True) -> Measured:
    """Run a client once and measure it; with `server`, its output is deltas of that server, `timed` or not."""
    started_ns = time.monotonic_ns()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=env, bufsize=0
    )
    assert process.stdout
    latencies, rest, last_ns, first_ns = [], b"", started_ns, 0
    while piece := os.read(process.stdout.fileno(), 65536):
        last_ns = time.monotonic_ns()
        *words, rest = (rest + piece).split(b" ")
        stamps = (word.rsplit(b'"', 1)[-1] for word in words) if server and timed else ()
        sent = [int(stamp) for stamp in stamps if stamp.isdigit()]
        first_ns = first_ns or (last_ns if sent else 0)
        latencies += [(last_ns - at_ns) / 1e6 for at_ns in sent]
    _, status, usage = os.wait4(process.pid, 0)
    ended_ns = time.monotonic_ns()
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"{command} exited {process.returncode}")
    request_ns = server.request_ns() if server else started_ns
    return Measured(
        (request_ns - started_ns) / 1e6,
        (first_ns - started_ns) / 1e6,
        (ended_ns - last_ns) / 1e6,
        (ended_ns - started_ns) / 1e6,
        (usage.ru_utime + usage.ru_stime) * 1e3,
        usage.ru_maxrss / 1024,
        latencies,
    )


def side_by_side(
    commands: dict[str, Command],
    runs: int,
    env: dict[str, str],
    server: Server | None = None,
    *,
    asks_nothing: str = "",
) -> dict[str, list[Measured]]:
    """Run the clients in turn, `runs` times after one that warms up; `asks_nothing` names one that needs no server."""
    results: dict[str, list[Measured]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            measured = run(command, env, None if name == asks_nothing else server)
            if turn:
                results[name].append(measured)
    return results


def quiet(command: Command) -> Command:
    """Return `command` with its output discarded, so that no reader affects its time."""
    return ["bash", "-c", 'exec "$@" > /dev/null', "bash", *command]


def median(results: Sequence[Measured], field: str) -> float:
    """Return the median of one field."""
    return float(statistics.median(getattr(result, field) for result in results))


def ratio(results: dict[str, list[Measured]], one: str, other: str, field: str, other_field: str = "") -> float:
    """Return how `one` compares with `other`: the median of the ratios of the runs that followed each other."""
    pairs = zip(results[one], results[other], strict=True)
    return float(statistics.median(getattr(a, field) / getattr(b, other_field or field) for a, b in pairs))


def percentile(results: Sequence[Measured], percent: int) -> float:
    """Return a percentile of the latencies of all runs together, in ms."""
    latencies = sorted(latency for result in results for latency in result.latencies_ms)
    return latencies[min(len(latencies) - 1, len(latencies) * percent // 100)]


class Bench:
    """The measurements of one run, and what they come to."""

    def __init__(self, runs: int, out: Path, stack: ExitStack, others: Sequence[Path] = ()) -> None:
        self.runs = runs
        self.others = others
        self.out = out
        self.stack = stack
        self.home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.env = environment(self.home)
        self.server = self._serve()
        self.rows: list[dict[str, Any]] = []
        self.budgets: list[tuple[str, float, str, float]] = []
        self.plots: dict[str, list[float]] = {}
        self.latencies: dict[str, list[float]] = {}

    def _serve(self, *arguments: str, prefix: Sequence[str] = ()) -> Server:
        server = Server(*arguments, prefix=prefix)
        self.stack.callback(server.process.wait)
        self.stack.callback(server.process.kill)
        return server

    def clients(self, pace: str) -> dict[str, Command]:
        """Return the clients that this machine has, each asking for the answer that `pace` names."""
        url = f"http://127.0.0.1:{self.server.port}/{pace}/v1"
        curl = ["curl", "-sN", f"{url}/chat/completions", "-d", BODY]
        found = {**self.smais(url), "curl -N": curl}
        if shutil.which("jq"):
            found["curl | sed | grep | jq"] = ["bash", "-c", f'"$@" | {UNIX}', "bash", *curl]
        found["click + requests + sseclient, naive"] = [PYTHON, "-c", NAIVE, url]
        if subprocess.run([PYTHON, "-c", "import openai"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            found["openai SDK script"] = [PYTHON, "-c", SDK, url]
        if (BIN / "llm").exists():
            model = f"- model_id: {pace}\n  model_name: gpt-4.1\n  api_base: {url}\n  api_key_name: none\n"
            (self.home / "extra-openai-models.yaml").write_text(model)
            (self.home / "keys.json").write_text('{"none": "none"}')
            found["llm"] = [str(BIN / "llm"), "-m", pace, "--no-log", "hi"]
        return found

    def smais(self, url: str) -> dict[str, Command]:
        """Return smai asking the server at `url`, and each other smai that there is."""
        rest = ["ask", "-n", "--base-url", url, "hi"]
        return {"smai": [SMAI, *rest], **{f"smai, {other}": [str(other), *rest] for other in self.others}}

    def row(self, what: str, name: str, values: Sequence[float], unit: str) -> float:
        """Keep and print one line of the table; return its median."""
        middle = statistics.median(values)
        self.rows.append(
            {"what": what, "client": name, "median": middle, "min": min(values), "max": max(values), "unit": unit}
        )
        print(f"{what:38} {name:36} {middle:9.1f} {min(values):9.1f} {max(values):9.1f} {unit}", flush=True)
        return middle

    def budget(self, what: str, value: float, limit: float, relation: str = "<=") -> None:
        """Keep a budget, to be shown at the end."""
        self.budgets.append((what, value, relation, limit))

    def start_up(self) -> None:
        """How long the interpreter, the imports and the help take."""
        outcome = self.env | {"_SMAI_COMPLETE": "bash_complete", "COMP_WORDS": "smai ask --m", "COMP_CWORD": "2"}
        commands = {
            "python -c pass": [PYTHON, "-c", "pass"],
            "import click": [PYTHON, "-c", "import click"],
            "smai --help": [SMAI, "--help"],
        }
        results = side_by_side(commands, self.runs, self.env)
        walls = {n: self.row("whole run", n, [r.wall_ms for r in rs], "ms") for n, rs in results.items()}
        tab = [run([SMAI], outcome).wall_ms for _ in range(self.runs)]
        completing = self.row("whole run", "smai, completion at TAB", tab, "ms")
        self.budget("smai --help / import click", walls["smai --help"] / walls["import click"], 1.6)
        self.budget("completion / import click", completing / walls["import click"], 1.6)

    def first_delta(self) -> None:
        """How long each client takes to send the request, to show the first delta, and to leave."""
        imports = "import click, requests, sseclient"
        commands = {imports: [PYTHON, "-c", imports], **self.clients("n10-d5")}
        results = side_by_side(commands, self.runs, self.env, self.server, asks_nothing=imports)
        self.row("whole run", imports, [r.wall_ms for r in results[imports]], "ms")
        for name, found in results.items():
            if name == imports:
                continue
            self.row("spawn to request", name, [r.request_ms for r in found], "ms")
            self.row("spawn to first delta", name, [r.first_ms for r in found], "ms")
            self.row("last delta to exit", name, [r.exit_ms for r in found], "ms")
            self.row("peak memory", name, [r.peak_mb for r in found], "MB")
            self.plots[name] = [r.first_ms for r in found]
        to_request = ratio(results, "smai", imports, "request_ms", "wall_ms")
        self.budget("request / import click, requests, sseclient", to_request, 0.8)
        if "openai SDK script" in results:
            self.budget("request / openai SDK script", ratio(results, "smai", "openai SDK script", "request_ms"), 0.22)
        self.budget("last delta to exit, ms", median(results["smai"], "exit_ms"), 20)

    def stdin_to_request(self) -> None:
        """How long after the end of a slow stdin the request arrives."""
        url = f"http://127.0.0.1:{self.server.port}/n1-d0/v1"
        waits = []
        for _ in range(self.runs):
            process = subprocess.Popen(
                [SMAI, "ask", "--base-url", url], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=self.env
            )
            assert process.stdin
            process.stdin.write(b"hi")
            time.sleep(1.0)  # a producer that takes longer than the imports
            process.stdin.close()
            ended_ns = time.monotonic_ns()
            process.wait()
            waits.append((self.server.request_ns() - ended_ns) / 1e6)
        self.budget("end of a slow stdin to request, ms", self.row("end of stdin to request", "smai", waits, "ms"), 40)

    def delta_latency(self) -> None:
        """How long a delta takes from the server's send to the reader of stdout, at 200 a second."""
        results = side_by_side(self.clients("n200-d5"), max(3, self.runs // 5), self.env, self.server)
        for name, found in results.items():
            self.latencies[name] = [latency for result in found for latency in result.latencies_ms]
            self.row("delta latency, p50", name, [percentile([result], 50) for result in found], "ms")
            self.row("delta latency, p99", name, [percentile([result], 99) for result in found], "ms")
        self.budget("p50 / curl -N", percentile(results["smai"], 50) / percentile(results["curl -N"], 50), 1.5)
        self.budget("p99, ms", percentile(results["smai"], 99), 5)

    def burst(self) -> None:
        """What 20,000 deltas at full speed cost."""
        results = side_by_side(self.clients("n20000-d0"), max(3, self.runs // 5), self.env, self.server)
        for name, found in results.items():
            self.row("CPU, 20,000 deltas in a burst", name, [r.cpu_ms for r in found], "ms")
        if "openai SDK script" in results:
            of_sdk = ratio(results, "smai", "openai SDK script", "cpu_ms")
            self.budget("CPU of the burst / openai SDK script", of_sdk, 0.16)

    def decoding(self) -> None:
        """How fast a tape of 200,000 events is decoded."""
        tape = self.home / "tape.sse"
        payload = (
            '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1234567890,"model":"gpt-4.1","choices":'
        )
        event = f'data: {payload}[{{"index":0,"delta":{{"content":"word "}},"finish_reason":null}}]}}\n\n'
        stop = f'data: {payload}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
        tape.write_text(event * 200_000 + stop + "data: [DONE]\n\n")
        commands = {
            "smai decode": [SMAI, "decode", str(tape)],
            "sseclient + json.loads": [PYTHON, "-c", BARE_LOOP, str(tape)],
        }
        if shutil.which("jq"):
            commands["sed | grep | jq -j"] = [
                "bash",
                "-c",
                f'< "$1" {UNIX.replace("--unbuffered ", "")}',
                "bash",
                str(tape),
            ]
        results = side_by_side(
            {name: quiet(command) for name, command in commands.items()}, max(3, self.runs // 5), self.env
        )
        walls = {n: self.row("decode 200,000 events", n, [r.wall_ms for r in rs], "ms") for n, rs in results.items()}
        self.budget("speed / sseclient + json.loads", walls["sseclient + json.loads"] / walls["smai decode"], 0.7, ">=")
        if "sed | grep | jq -j" in walls:
            self.budget("speed / sed | grep | jq -j", walls["sed | grep | jq -j"] / walls["smai decode"], 5, ">=")

    def memory(self) -> None:
        """What a long stream needs beyond a short one."""
        for flag in ("text", "--raw", "--jsonl"):
            peaks = []
            for count in (1000, 200_000):
                url = f"http://127.0.0.1:{self.server.port}/n{count}-d0/v1"
                flags = [] if flag == "text" else [flag]
                peaks.append(
                    run(
                        [SMAI, "ask", "-n", "--base-url", url, *flags, "hi"], self.env, self.server, timed=False
                    ).peak_mb
                )
                self.row("peak memory", f"smai {flag}, {count} deltas", peaks[-1:], "MB")
            self.budget(f"peak memory, {flag}, MB", max(peaks), 31)
            self.budget(f"growth of memory, {flag}, MB", peaks[1] - peaks[0], 8)

    def round_trips(self) -> None:
        """How long a complete run of 3 deltas takes over TLS with a distant server."""
        for round_trip_ms, limit in ((50, 1.1), (150, 1.04)):
            with far_server(round_trip_ms, self.home) as found:
                if found is None:
                    print("no round trips: they need root, /dev/net/tun, ip(8) and the package trustme")
                    return
                server, host, ca_file = found
                env = self.env | {"SSL_CERT_FILE": ca_file}
                url = f"https://{host}:{server.port}/n3-d0/v1"
                commands = {
                    **self.smais(url),
                    "curl -N": ["curl", "-sN", "--cacert", ca_file, f"{url}/chat/completions", "-d", BODY],
                }
                results = side_by_side(commands, self.runs, env, server)
            what = f"TLS, {round_trip_ms} ms round trip, 3 deltas"
            for name, measured in results.items():
                self.row(what, name, [one.wall_ms for one in measured], "ms")
            self.budget(f"{what} / curl", ratio(results, "smai", "curl -N", "wall_ms"), limit)

    def report(self) -> None:
        """Print the budgets; write bench.json and bench.svg."""
        print()
        for what, value, relation, limit in self.budgets:
            ok = value <= limit if relation == "<=" else value >= limit
            print(f"{'ok    ' if ok else 'MISSED'} {what:48} {value:8.2f}  (budget {relation} {limit:g})")
        machine = {"machine": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        budgets = [dict(zip(("what", "value", "relation", "limit"), budget, strict=True)) for budget in self.budgets]
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "bench.json").write_text(json.dumps({**machine, "rows": self.rows, "budgets": budgets}, indent=1))
        if self.plots and self.latencies:  # of both
            plot(self.plots, self.latencies, self.out / "bench.svg")


@contextmanager
def far_server(round_trip_ms: int, folder: Path) -> Iterator[tuple[Server, str, str] | None]:
    """Serve over TLS on a host that is a round trip away: the server, its address, its CA; None if it cannot be."""
    try:
        import trustme
    except ImportError:
        yield None
        return
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists() or not shutil.which("ip"):
        yield None
        return
    import roundtrip

    authority = trustme.CA()
    certificate = authority.issue_cert(roundtrip.FAR)
    paths = [str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    authority.cert_pem.write_to_path(paths[0])
    certificate.cert_chain_pems[0].write_to_path(paths[1])
    certificate.private_key_pem.write_to_path(paths[2])
    with subprocess.Popen(
        [PYTHON, str(HERE / "roundtrip.py"), str(round_trip_ms)], stdout=subprocess.PIPE, bufsize=0
    ) as carrier:
        assert carrier.stdout
        carrier.stdout.readline()
        server = Server(roundtrip.FAR, "0", *paths[1:], prefix=["ip", "netns", "exec", roundtrip.NAMESPACE])
        try:
            yield server, roundtrip.FAR, paths[0]
        finally:
            server.process.kill()
            server.process.wait()
            carrier.terminate()


def plot(first_ms: dict[str, list[float]], latencies_ms: dict[str, list[float]], path: Path) -> None:
    """Draw spawn to first delta, and the distribution of the delta latency, as SVG."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plot: it needs matplotlib")
        return
    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4))
    names = list(first_ms)
    left.boxplot([first_ms[name] for name in names], orientation="horizontal", tick_labels=names)
    left.set_xlabel("spawn to first delta, ms")
    left.set_xlim(left=0)
    for name, values in latencies_ms.items():
        ordered = sorted(values)
        right.plot(ordered, [100 * (at + 1) / len(ordered) for at in range(len(ordered))], label=name)
    right.set_xscale("log")
    right.set_xlabel("server's send to the reader of stdout, ms")
    right.set_ylabel("% of deltas")
    if latencies_ms:
        right.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure what the command line names, everything by default."""
    parts: dict[str, Callable[[Bench], None]] = {
        "memory": Bench.memory,  # first, while this process is small: a child's peak begins with its parent's
        "start_up": Bench.start_up,
        "first_delta": Bench.first_delta,
        "stdin": Bench.stdin_to_request,
        "latency": Bench.delta_latency,
        "burst": Bench.burst,
        "decode": Bench.decoding,
        "round_trips": Bench.round_trips,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=15, help="runs of each client")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for bench.json and bench.svg")
    parser.add_argument("--only", choices=parts, nargs="+", default=list(parts), help="some of the measurements")
    parser.add_argument(
        "--other", type=Path, action="append", default=[], help="another smai that takes turns with this one"
    )
    arguments = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(arguments.runs, arguments.out, stack, arguments.other)
        for name, measure in parts.items():
            if name in arguments.only:
                measure(bench)
        bench.report()


if __name__ == "__main__":
    main()
