"""Draws the picture of the README: real runs of smai in a terminal, as an SVG that plays once, in light and dark.

python tests/picture/record.py [FILE]
"""

import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from smai_cli.mock.script import Script
from smai_cli.mock.server import Mock

SMAI_FOLDER = Path(sys.executable).parent
COLUMNS = 106
LINE_PX, CELL_PX, MARGIN_PX = 20, 8.43, 18
TYPED_S, PAUSE_S = 0.025, 0.9
SCENES = [
    'smai ask "Write a poem" | tee poem.txt',
    'smai ask --final "Write a poem" > poem.txt',
    'smai ask --base-url $BAD_SERVER hello; echo "exit status $?"',
]


class Piece(NamedTuple):
    """Text that appeared at a time, in seconds from the beginning, at a place on the screen."""

    at_s: float
    line: int
    column: int
    text: str
    kind: str


class Screen:
    """A screen that only ever gets text and line ends, which is all that smai writes."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.now_s = 0.4
        self.line = 0
        self._column = 0

    def put(self, text: str, kind: str) -> None:
        """Show `text` now, from where the last one ended; long lines are folded, as a terminal does."""
        for part in text.replace("\r", "").splitlines(keepends=True):
            rest = part.rstrip("\n")
            while rest:
                room = COLUMNS - self._column
                shown, rest = rest[:room], rest[room:]
                self.pieces.append(Piece(self.now_s, self.line, self._column, shown, kind))
                self._column += len(shown)
                if rest:
                    self._newline()
            if part.endswith("\n"):
                self._newline()

    def _newline(self) -> None:
        self.line += 1
        self._column = 0


def play(screen: Screen, command: str, environment: dict[str, str], folder: str) -> None:
    """Type `command` on the screen, run it on a real terminal, and show what it prints when it prints it."""
    screen.put("$ ", "prompt")
    for character in command:
        screen.put(character, "typed")
        screen.now_s += TYPED_S
    screen.put("\n", "typed")
    leader, follower = os.openpty()
    began_s, at_s = time.monotonic(), screen.now_s
    run = subprocess.Popen(
        ["sh", "-c", command], env=environment, cwd=folder, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    while select.select([leader], [], [], 30)[0]:
        try:
            data = os.read(leader, 4096)
        except OSError:  # how Linux says that nobody has the terminal any more
            break
        screen.now_s = at_s + time.monotonic() - began_s
        for line in data.decode().splitlines(keepends=True):
            screen.put(line, "said" if line.startswith(("smai:", "exit status")) else "answer")
    run.wait()
    os.close(leader)
    screen.put("\n", "answer")
    screen.now_s += PAUSE_S


def svg(screen: Screen) -> str:
    """Return the picture: every piece appears at its time; all of them at once where nothing moves, or is to move."""
    width, height = COLUMNS * CELL_PX + 2 * MARGIN_PX, screen.line * LINE_PX + 3 * MARGIN_PX
    rows = [
        f'<text class="{piece.kind}" x="{MARGIN_PX + piece.column * CELL_PX:.1f}" '
        f'textLength="{len(piece.text) * CELL_PX:.1f}" lengthAdjust="spacingAndGlyphs" '
        f'y="{2 * MARGIN_PX + piece.line * LINE_PX}" style="animation-duration:{piece.at_s:.2f}s">'
        f"{escape(piece.text)}</text>"
        for piece in screen.pieces
        if piece.text.strip()
    ]
    return "\n".join(
        [
            f'<svg {_NAMES} viewBox="0 0 {width:.0f} {height:.0f}">',
            "<title>smai in a terminal: an answer streams, a complete one is summed up, a cut one exits 8</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" rx="10"/>',
            *rows,
            "</svg>\n",
        ]
    )


_NAMES = 'xmlns="http://www.w3.org/2000/svg" role="img" xml:space="preserve"'
# What no animation hides is to be seen: a page that plays none, such as PyPI's, or paper, shows the whole of it.
_STYLE = """
.paper{fill:#fbfaf7;stroke:#d8d4ca}
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}
text{animation:wait 0s;fill:#26241f}
.prompt{fill:#8a6d1b}.typed{fill:#1c5d99;font-weight:600}.said{fill:#8c3b2e}
@keyframes wait{from,to{opacity:0}}
@media (prefers-reduced-motion:reduce){text{animation:none}}
@media (prefers-color-scheme:dark){
.paper{fill:#16181d;stroke:#2c3038}text{fill:#d7dae0}
.prompt{fill:#d8b45a}.typed{fill:#7fb8ea}.said{fill:#e39a86}}
"""


def main() -> None:
    """Record all scenes and write the picture."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("smai.svg"))
    screen = Screen()
    with Mock(Script(delay_s=0.04)) as good, Mock(Script(cut_after=4, delay_s=0.04)) as bad:
        environment = {
            "PATH": f"{SMAI_FOLDER}:{os.defpath}",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "NO_COLOR": "1",  # no line that is drawn and erased while smai waits
            "SMAI_BASE_URL": good.url,
            "SMAI_NO_STDIN": "1",
            "BAD_SERVER": bad.url,
        }
        with tempfile.TemporaryDirectory() as folder:
            for command in SCENES:
                play(screen, command, environment, folder)
    target.write_text(svg(screen), encoding="utf-8")


if __name__ == "__main__":
    main()
