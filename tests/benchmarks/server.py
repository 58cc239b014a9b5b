"""A loopback chat server that stamps every delta with the moment it was sent.

`python server.py [HOST [PORT [CERT KEY]]]` prints its port and serves until killed, over TLS with a certificate.
The path sets the pace: /n200-d5/v1/chat/completions sends 200 deltas 5 ms apart (d0: as fast as it can). The
text of a delta is `<monotonic ns> `, so that a reader's clock gives the latency. For each request that has
arrived in full, a line with the monotonic ns goes to stdout.
"""

import asyncio
import json
import re
import ssl
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str | None = None, finish_reason: str | None = None) -> bytes:
    """Return one event in one HTTP chunk, with the fields that a real service sends."""
    delta = {} if text is None else {"content": text}
    payload = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1234567890,
        "model": "gpt-4.1",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return framed(b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n")


def framed(data: bytes) -> bytes:
    """Return `data` as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read one request and stream the answer that its path asks for."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length[1]) if length else 0)
    print(time.monotonic_ns(), flush=True)
    pace = re.match(rb"POST /n(\d+)-d(\d+)/", head)
    count, delay_s = (int(pace[1]), int(pace[2]) / 1000) if pace else (10, 0.0)
    writer.write(HEAD + chunk())
    for _ in range(count):
        if delay_s:
            await asyncio.sleep(delay_s)
        writer.write(chunk(f"{time.monotonic_ns()} "))
        await writer.drain()
    writer.write(chunk(None, "stop") + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests until the client leaves."""
    try:
        while True:
            await answer(reader, writer)
    except (asyncio.IncompleteReadError, OSError):
        writer.close()


async def main(host: str = "127.0.0.1", port: str = "0", *pem: str) -> None:
    """Serve for ever."""
    context = None
    if pem:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pem)
    server = await asyncio.start_server(connection, host, int(port), ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
