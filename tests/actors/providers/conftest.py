"""A server that sends exactly the bytes a test says, and a listener that collects a call's events."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable

import pytest

from callboard.actors.providers.engine import CallEngine, Failed, Finished, Text
from callboard.actors.providers.model import Message, Request, Timeouts
from callboard.actors.providers.settings import ProviderSettings

WAIT = 10.0
KEY = "sk-test-0123456789abcdef"


class Exchange:
    """One request as it came, and the means to answer it."""

    def __init__(self, head, body, reader, writer):
        self.head, self.body, self.reader, self.writer = head, body, reader, writer
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.headers = dict(line.split(": ", 1) for line in lines[1:] if line)

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body, status="200 OK", headers=()):
        lines = [f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "", ""]
        await self.send("\r\n".join(lines).encode() + body)

    async def open_stream(self, first=b"", headers=()):
        lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", *headers, "", ""]
        await self.send("\r\n".join(lines).encode())
        if first:
            await self.chunk(first)

    async def chunk(self, data):
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self):
        await self.send(b"0\r\n\r\n")

    async def gone(self):
        """Return when the client has closed the connection."""
        while await self.reader.read(65536):
            pass


class RawServer:
    """Runs `answer(exchange)` for each request, on an event loop of its own. It keeps connections alive until `answer` closes them."""

    def __init__(self, answer: Callable[[Exchange], Awaitable[None]], tls=None) -> None:
        self._answer = answer
        self.seen: list[Exchange] = []
        self.connections = 0
        self.disconnected = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: set[asyncio.Task] = set()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000, ssl=tls), self.loop
        ).result(WAIT)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ),
                    0,
                )
                exchange = Exchange(head, await reader.readexactly(length), reader, writer)
                self.seen.append(exchange)
                self.arrived.release()
                await self._answer(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self.disconnected.set()
            writer.transport.abort()

    def close(self):
        async def end():
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(WAIT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT)
        self.loop.close()


class Listener:
    """Collects the events of one call."""

    def __init__(self):
        self._queue = queue.Queue()
        self.events = []

    def __call__(self, event):
        self._queue.put(event)

    def next(self):
        event = self._queue.get(timeout=WAIT)
        self.events.append(event)
        return event

    def end(self):
        while not isinstance(event := self.next(), Finished | Failed):
            pass
        assert self._queue.empty()
        return event

    @property
    def text(self):
        said = [event.text for event in self.events if isinstance(event, Text)]
        return "".join(said) + (self.events[-1].rest if isinstance(self.events[-1], Finished) else "")

    def nothing_more(self):
        return self._queue.empty()


@pytest.fixture
def key():
    return KEY


@pytest.fixture
def serve():
    servers = []

    def start(answer, tls=None):
        servers.append(RawServer(answer, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def listener():
    return Listener


@pytest.fixture
def start_engine():
    """Start an engine for a base URL; every one is stopped at the end, and must have left no thread."""
    engines = []

    def start(base_url, wire="openai-chat", environ=None, **settings):
        settings = {"name": "test", "wire": wire, "base_url": base_url, "key_env": "TEST_KEY", **settings}
        engine = CallEngine(ProviderSettings(**settings), environ={"TEST_KEY": KEY} if environ is None else environ)
        engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.stop()
        assert not any(
            thread.name.startswith("callboard-") for thread in threading.enumerate() if thread is engine._thread
        )
        assert engine.in_flight == 0


@pytest.fixture
def call(listener):
    """Make one call and wait for its end."""

    def make(engine, request=None, timeouts=None):
        heard = listener()
        engine.submit(
            object(), request or Request(model="m", messages=(Message("user", "hi"),)), timeouts or Timeouts(), heard
        )
        return heard.end(), heard

    return make
