"""Takes the pictures of the README: the page of `smai serve`, light and dark, an answer complete and one that was cut.

python tests/serve/screenshots.py [FOLDER]
"""

import os
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import ViewportSize, expect, sync_playwright

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "serve")]

from browser import ARGUMENTS, CHROMIUM, ask, expect_verdict, only_posts  # noqa: E402  # where they are is known now
from rawserver import DONE, HEAD, LAST_CHUNK, STOP, RawServer, answer, chunk, event, reach  # noqa: E402  # as above

SIZE = ViewportSize(width=760, height=640)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":62,"total_tokens":76}}\n\n'
WHOLE = (
    "Air scatters short waves of light far more than long ones. On its way to your eyes, sunlight meets molecules much "
    "smaller than a wavelength, and these send blue aside about four times as often as red. So blue reaches you from "
    "every direction at once, and the whole dome glows with it."
)
PART = "Its path through the air is some forty times as long then. Most of the blue has been scattered away before the "


def steps(text: str, *end: bytes) -> list[bytes]:
    """Return the steps of an answer, a word in each delta."""
    return [HEAD, *(chunk(event(word + " ")) for word in text.split()), *end]


def main(folder: Path) -> None:
    """Take both pictures."""
    folder.mkdir(exist_ok=True)
    end = [*map(chunk, (STOP, USAGE, DONE)), LAST_CHUNK]
    whole, part = answer(*steps(WHOLE, *end)), answer(*steps(PART))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for scheme in ("light", "dark"):
            server = RawServer(whole, part, reads=only_posts)
            command = [str(Path(sys.executable).with_name("smai")), "serve"]
            with subprocess.Popen(command, env=os.environ | reach(server), stdout=subprocess.PIPE) as child:
                assert child.stdout
                page = browser.new_page(color_scheme=scheme, viewport=SIZE)
                page.goto(child.stdout.readline().decode().strip())
                for prompt, verdict in (("Why is the sky blue?", "complete"), ("And red at sunset?", "incomplete")):
                    ask(page, prompt)
                    expect(page.locator(".question").last).to_have_text(prompt)
                    expect_verdict(page, verdict)
                page.screenshot(path=folder / f"{scheme}.png")
                child.kill()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "screenshots")
