"""A chat server for many concurrent requests, which answers with the prompt, and fails at configurable random rates.

`python chaosserver.py JSON` prints its port and serves until killed; JSON changes the DEFAULTS below. The text of an
answer is the prompt, reversed. GET /stats returns what was served: `asked` counts the answers begun for each prompt.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from typing import Any

DEFAULTS: dict[str, Any] = {
    "busy": 0.0,  # the share of requests that get 429 or 503
    "cut": 0.0,  # the share of answers that break in the middle
    "status": 0,  # the HTTP status of all answers, 0: 200
    "message": "smai mock was set to refuse",
    "code": "error",
    "deltas": 3,
    "delay_s": 0.0,  # before each delta
    "busy_first": 0,  # this many requests get 429 at first
    "limit": 0,  # how many requests a second are accepted
    "retry_after": "1",
    "size": 0,  # answer with this many characters instead of the prompt
    "hold": False,  # never answer
    "hold_after": -1,  # requests from this one on are never answered
    "finish": "stop",
    "only": "",  # only prompts that contain it get faults
    "seed": 1,
}


class Chaos:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = DEFAULTS | options
        self.random = random.Random(self.options["seed"])
        self.asked: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.connections = self.cuts = 0
        self.now = self.most = 0
        self.streams = self.most_streams = 0
        self.window = (0, 0)
        self.begun_s = 0.0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self.request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if head.startswith(b"GET"):
            return await self.whole(writer, 200, self.stats())
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self.answer(writer, json.loads(body))
        finally:
            self.now -= 1

    def stats(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "statuses": self.statuses,
            "most": self.most,
            "most_streams": self.most_streams,
            "connections": self.connections,
            "cuts": self.cuts,
            "seconds": time.monotonic() - self.begun_s,
        }

    def status_of(self, prompt: str) -> int:
        options = self.options
        self.begun_s = self.begun_s or time.monotonic()
        if options["only"] and options["only"] not in prompt:
            return 200
        if options["limit"]:
            second = int(time.monotonic() - self.begun_s)
            count = self.window[1] + 1 if self.window[0] == second else 1
            self.window = (second, count)
            if count > options["limit"]:
                return 429
        if self.statuses.total() < options["busy_first"]:
            return 429
        if self.random.random() < options["busy"]:
            return self.random.choice([429, 503])
        return options["status"] or 200

    async def answer(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> bool:
        prompt = str(request["messages"][-1]["content"])
        status = self.status_of(prompt)
        self.statuses[status] += 1
        if self.options["hold"] or 0 <= self.options["hold_after"] < self.statuses.total():
            await asyncio.sleep(3600)
        if status != 200:
            error = {"error": {"message": self.options["message"], "code": self.options["code"]}}
            return await self.whole(writer, status, error)
        self.asked[prompt] += 1
        self.streams += 1
        self.most_streams = max(self.most_streams, self.streams)
        try:
            await self.stream(writer, prompt, is_cut=self.random.random() < self.options["cut"])
        finally:
            self.streams -= 1
        return True

    async def stream(self, writer: asyncio.StreamWriter, prompt: str, *, is_cut: bool) -> None:
        options = self.options
        text = "x" * options["size"] or prompt[::-1]
        step = max(1, -(-len(text) // options["deltas"]))
        deltas = [text[at : at + step] for at in range(0, len(text), step)]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if is_cut:
            deltas = deltas[: self.random.randrange(len(deltas))]
        for delta in deltas:
            if options["delay_s"]:
                await asyncio.sleep(options["delay_s"])
            writer.write(chunk({"choices": [{"index": 0, "delta": {"content": delta}, "finish_reason": None}]}))
        if is_cut:
            self.cuts += 1
            await writer.drain()
            raise OSError("cut")
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": options["finish"]}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}}
        writer.write(chunk(end) + chunk(usage) + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async def whole(self, writer: asyncio.StreamWriter, status: int, payload: dict[str, Any]) -> bool:
        body = json.dumps(payload).encode()
        after = (
            f"Retry-After: {self.options['retry_after']}\r\n" if status == 429 and self.options["retry_after"] else ""
        )
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{after}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return True


def chunk(payload: dict[str, Any]) -> bytes:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1"}
    return framed(b"data: " + json.dumps(base | payload).encode() + b"\n\n")


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def main(options: str) -> None:
    chaos = Chaos(json.loads(options))
    server = await asyncio.start_server(chaos.connection, "127.0.0.1", 0, backlog=1024, limit=64 * 1024 * 1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "{}"))
