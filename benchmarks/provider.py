"""A provider that costs as little as Python allows, in a process of its own, so that what is measured is the client.

It reads just enough HTTP to find the end of a request and streams a canned answer: after a latency in one event, or at a pace in 50.
`python -m benchmarks.provider LATENCY PACE` prints its URL and serves until its stdin ends.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .worker import ROOT

CHUNKS = 50
_USAGE = {"prompt_tokens": 5, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 5}


def _stream(chunks: int) -> list[bytes]:
    """The parts of a streamed reply: its head, the text in so many chunks, and its end."""

    def part(**fields: object) -> bytes:
        event = "data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", **fields}) + "\n\n"
        return f"{len(event):x}\r\n{event}\r\n".encode()

    def choice(finish: str | None, **delta: str) -> list[dict[str, object]]:
        return [{"index": 0, "delta": delta, "finish_reason": finish}]

    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    end = part(choices=choice("stop")) + part(choices=[], usage=_USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    return [head, *(part(choices=choice(None, content="word " * (CHUNKS // chunks))) for _ in range(chunks)), end]


STREAM = _stream(CHUNKS)
REPLY = b"".join(_stream(1))


class Connection(asyncio.Protocol):
    """One connection, one request at a time. `pace`: seconds between two chunks."""

    def __init__(self, latency: float, pace: float) -> None:
        self._latency = latency
        self._pace = pace
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lowered = head.lower()
        at = lowered.find(b"content-length:")
        length = int(lowered[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self._buffer = b""
        loop = asyncio.get_running_loop()
        if self._pace > 0:
            start = loop.time()
            for number, part in enumerate(STREAM):
                loop.call_at(start + number * self._pace, self._write, part)
        else:
            loop.call_later(self._latency, self._write, REPLY)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


async def serve(latency: float, pace: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(latency, pace), "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def provider(*, latency: float = 0.0, pace: float = 0.0) -> Iterator[str]:
    """Its URL, while it runs. `latency`: seconds before an answer in one event; with a `pace` there are 50, so many seconds apart."""
    command = [sys.executable, "-m", "benchmarks.provider", str(latency), str(pace)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(10)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), float(sys.argv[2])))
