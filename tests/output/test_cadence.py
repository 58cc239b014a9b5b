"""The cadence of an answer as a line: what it draws, and when it is shown."""

import os
import re
import subprocess

import pytest
from conftest import Server
from process import SMAI
from terminal import Terminal, terminal

from smai_cli.answer.chunk import Chunk
from smai_cli.output.cadence import Cadence, speaks_utf8

TAPE = b"".join(b'data: {"choices":[{"delta":{"content":"w "}}]}\n\n' for _ in range(400))
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def draw(times_s: list[float], columns: int = 80, *, is_utf8: bool = True) -> str:
    clock = iter(times_s)
    cadence = Cadence(now=lambda: next(clock))
    for _ in times_s:
        cadence.chunk(Chunk(text="w "))
    return cadence.line(10.0, columns, is_utf8=is_utf8)


def test_a_steady_stream_is_a_level_line() -> None:
    line = draw([10.5 + place * 0.01 for place in range(400)])
    assert re.fullmatch(r"[▆▇█]{20,59}[▁-█] 0\.5-4\.5 s, longest pause 0\.0 s", line)


def test_a_pause_is_a_gap_as_wide_as_the_pause_was_long() -> None:
    before, after = ([start + place * 0.005 for place in range(200)] for start in (11.0, 13.0))
    line = draw(before + after)
    cells, rest = re.fullmatch(r"(\S+ +\S+)( \d.*)", line).groups()  # type: ignore[union-attr]
    assert rest == " 1.0-4.0 s, longest pause 1.0 s"
    assert cells.count(" ") / len(cells) == pytest.approx(1 / 3, abs=0.1)


def test_a_burst_is_visible_in_the_cadence() -> None:
    slow = [10.0 + place * 0.1 for place in range(40)]
    line = draw(sorted(slow + [12.05 + place * 0.0002 for place in range(400)]))
    assert line.count("█") == 1
    assert set(line.split(" 0.0-")[0]) <= set("▁▂█ ")


def test_without_utf_8_the_cadence_is_drawn_in_ascii() -> None:
    line = draw([10 + place**2 / 1000 for place in range(100)], is_utf8=False)
    assert line.isascii()
    assert line.startswith("@")


@pytest.mark.parametrize("columns", range(10, 120))
def test_the_cadence_fits_into_every_terminal(columns: int) -> None:
    line = draw([10 + place * 0.01 for place in range(4000)], columns)
    assert len("smai: ") + len(line) < columns
    assert bool(line) == (columns >= 22)
    assert len(line.split(" ")[0]) <= 60


@pytest.mark.parametrize(
    "times_s",
    [[], [11.0], [11.0, 12.0], [11.0] * 1000, [11.0 + place * 0.01 for place in range(3)]],
    ids=["none", "one", "two", "at once", "short"],
)
def test_no_cadence_is_drawn_for_an_answer_that_is_too_short(times_s: list[float]) -> None:
    assert draw(times_s) == ""


def test_memory_does_not_grow_with_the_length_of_an_answer() -> None:
    clock = iter([10.0 + place * 60 for place in range(10_000)])
    cadence = Cadence(now=lambda: next(clock))
    for _ in range(10_000):
        cadence.chunk(Chunk(text="w "))
    assert len(cadence._counts) == 120
    assert sum(cadence._counts) == 10_000
    assert cadence.line(10.0, 80, is_utf8=True).endswith(" 0.0-599940.0 s, longest pause 60.0 s")


@pytest.mark.parametrize(
    ("environ", "is_utf8"),
    [
        ({}, False),
        ({"LANG": "C"}, False),
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "de_DE.utf8"}, True),
        ({"LANG": "de_DE.UTF-8@euro"}, True),
        ({"LANG": "C.UTF-8", "LC_CTYPE": "C"}, False),
        ({"LANG": "C", "LC_CTYPE": "C", "LC_ALL": "en_US.UTF-8"}, True),
        ({"LANG": "C.UTF-8", "LC_ALL": ""}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),  # Python has set it
        ({"LC_ALL": "C.UTF-8"}, True),
        ({"LC_CTYPE": "de_DE.UTF-8"}, True),
    ],
)
def test_the_cadence_uses_utf_8_only_if_the_locale_does(environ: dict[str, str], is_utf8: bool) -> None:
    assert speaks_utf8(environ) is is_utf8


def ask(tty: Terminal, environment: dict[str, str], url: str, *flags: str) -> list[str]:
    """Ask with stderr on the terminal; return the lines on the screen."""
    command = [SMAI, "ask", "-n", "hi", "--base-url", url, *flags]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=tty.slave, check=True)
    return tty.read_rest().splitlines()


@pytest.mark.thorough
@pytest.mark.parametrize(("locale", "marks"), [("C.UTF-8", "[▁▂▃▄▅▆▇█ ]"), ("C", r"[.:=+*#@ -]")], ids=["UTF-8", "C"])
def test_the_cadence_is_drawn_below_the_text_summary_on_a_terminal(
    environment: dict[str, str], server: Server, locale: str, marks: str
) -> None:
    url = server(delay_s=0.01).url
    for flags in (["--summary", "text"], ["--final"]):
        with terminal() as tty:
            summary, cadence = ask(tty, environment | {"LANG": locale, "NO_COLOR": "1"}, url, *flags)
        assert summary.startswith("smai: 160 characters")
        assert re.fullmatch(rf"smai: {marks}{{4,60}} \d+\.\d-\d+\.\d s, longest pause \d+\.\d s", cadence)


@pytest.mark.thorough
def test_no_cadence_is_drawn_in_other_output(environment: dict[str, str], server: Server) -> None:
    url = server(delay_s=0.01).url
    for flags in ([], ["--summary", "json"], ["--final", "--summary", "none"]):
        with terminal() as tty:
            assert not re.search(r"longest pause|[▁▂▃▄▅▆▇█]", "".join(ask(tty, environment, url, *flags)))
    command = [SMAI, "ask", "-n", "hi", "--base-url", url, "--final"]
    piped = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert piped.stderr.count(b"\n") == 1


def test_decode_draws_the_cadence_of_a_piped_answer(environment: dict[str, str]) -> None:
    with terminal() as tty:
        command = [SMAI, "decode", "--summary", "text"]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=tty.slave
        ) as process:
            assert process.stdin
            assert process.stdout
            for _ in range(2):
                process.stdin.write(TAPE)
                process.stdin.flush()
                read = 0
                while read < 800:
                    read += len(os.read(process.stdout.fileno(), 65536))
                tty.resize(80)
            process.stdin.write(STOP)
            process.stdin.close()
            assert process.wait(20) == 0
        assert tty.read_rest().startswith("smai: 1600 characters; ")
