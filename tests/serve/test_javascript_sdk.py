"""The official JavaScript SDK through `smai serve`; only its base URL and key are changed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from browser import Served, only_posts
from rawserver import HEAD, HELLO, KEY, PLAIN_ANSWER, Serve, Step, chunk

pytestmark = pytest.mark.thorough

pytest_plugins = ["rawserver", "browser"]
# `npm install --prefix .node openai` in the root of the project.
MODULES = Path(__file__).parents[2] / ".node" / "node_modules"
SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.URL, apiKey: process.env.TOKEN, maxRetries: 0 });
const stream = await client.chat.completions.create({
  model: "gpt-4.1-mini",
  messages: [{ role: "user", content: "Write a poem" }],
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
"""


def run(url: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    origin, token = url.split("/#token=")
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "ask.mjs").write_text(SCRIPT)
    env = {"PATH": os.environ["PATH"], "URL": f"{origin}/v1", "TOKEN": token}
    return subprocess.run(["node", "ask.mjs"], cwd=folder, env=env, capture_output=True, check=False, timeout=40)


@pytest.mark.skipif(shutil.which("node") is None or not (MODULES / "openai").exists(), reason="no node, or no SDK")
@pytest.mark.parametrize(
    ("steps", "is_well"), [(PLAIN_ANSWER, True), ([HEAD, chunk(HELLO)], False)], ids=["complete", "cut"]
)
def test_the_openai_javascript_sdk_streams_with_the_token_as_its_key_and_detects_a_cut(
    serve: Serve, served: Served, tmp_path: Path, steps: list[Step], is_well: bool
) -> None:
    server = serve(*steps, reads=only_posts)
    done = run(served(server), tmp_path)
    assert done.stdout == (b"Hello world\n" if is_well else b"Hello "), done.stderr.decode()
    assert (done.returncode == 0) == is_well
    assert f"authorization: bearer {KEY}".lower().encode() in server.requests[0].head.lower()
