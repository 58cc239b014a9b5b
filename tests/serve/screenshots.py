"""Take the screenshots of the page of `smai serve`, light and dark, with a complete answer and a cut one.

python tests/serve/screenshots.py [FOLDER]
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import ViewportSize, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from browser import ARGUMENTS, CHROMIUM, ask, expect_verdict, only_posts  # after sys.path is set
from rawserver import DONE, HEAD, LAST_CHUNK, STOP, RawServer, answer, chunk, event, reach  # as above

SIZE = ViewportSize(width=760, height=780)
USAGE = (
    b'data: {"model":"gpt-4.1-2025-04-14","choices":[],'
    b'"usage":{"prompt_tokens":14,"completion_tokens":62,"total_tokens":76}}\n\n'
)
COMPLETE = """Count them while you read, so that a long file needs little memory:

```python
from collections import Counter

with open("words.txt", encoding="utf-8") as file:
    counts = Counter(word for line in file for word in line.split())
```

`counts.most_common(10)` has the ten most frequent ones."""
PART = "The order in which they were first seen: a Counter is a dict, and dicts keep the order of "


def steps(text: str, *end: bytes) -> list[bytes]:
    """Return the steps of an answer, a word in each delta."""
    return [HEAD, *(chunk(event(word)) for word in re.findall(r"\S+\s*|\s+", text)), *end]


def main(folder: Path) -> None:
    """Take both pictures."""
    folder.mkdir(exist_ok=True)
    end = [*map(chunk, (STOP, USAGE, DONE)), LAST_CHUNK]
    complete, part = answer(*steps(COMPLETE, *end)), answer(*steps(PART))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for scheme in ("light", "dark"):
            server = RawServer(complete, part, reads=only_posts)
            command = [str(Path(sys.executable).with_name("smai")), "serve"]
            with subprocess.Popen(command, env=os.environ | reach(server), stdout=subprocess.PIPE) as child:
                assert child.stdout
                page = browser.new_page(color_scheme=scheme, viewport=SIZE)
                page.goto(child.stdout.readline().decode().strip())
                for prompt, verdict in (
                    ("How do I count the words of a large file in Python?", "complete"),
                    ("And words with the same count?", "incomplete"),
                ):
                    ask(page, prompt)
                    expect(page.locator(".question").last).to_have_text(prompt)
                    expect_verdict(page, verdict)
                page.screenshot(path=folder / f"{scheme}.png")
                child.kill()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "screenshots")
