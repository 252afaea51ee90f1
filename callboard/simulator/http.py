"""HTTP/1.1 for a server that must be able to misbehave: h11 for the framing, asyncio streams for the bytes.

A web framework would finish replies politely. Here a connection can be aborted in the middle of one, and a client that goes away is
noticed at once: the transport says so (`eof_received`, `connection_lost`), with no need to write to it first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import h11

MAX_BODY_BYTES = 32 * 1024 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
_REASONS = {
    200: b"OK",
    307: b"Temporary Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    404: b"Not Found",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
}


class ClientGoneError(ConnectionError):
    """The client closed the connection before its reply was complete."""


@dataclass(slots=True)
class Request:
    """A whole request. `body` is empty when it was larger than MAX_BODY_BYTES (`too_large`). Header names are in lower case."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    too_large: bool = False
    by_name: dict[str, str] = field(default_factory=dict)
    query: str = ""


class WatchedProtocol(asyncio.StreamReaderProtocol):
    """A stream protocol that remembers, as a future, that its peer has closed."""

    def __init__(self, connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(asyncio.StreamReader(limit=_READ_BYTES, loop=loop), connected, loop=loop)
        self.gone: asyncio.Future[None] = loop.create_future()

    def eof_received(self) -> bool | None:
        """Note that the client has closed, or at least will send no more, which no HTTP client does while it waits."""
        self._mark()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection has ended."""
        self._mark()
        super().connection_lost(exc)

    def _mark(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class HttpConnection:
    """One connection, one request at a time. Everything raises ClientGoneError (a ConnectionError) once the client is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self._out: list[bytes] = []
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, WatchedProtocol)
        self._gone = protocol.gone

    async def next_request(self) -> Request | None:
        """Return the next request, or None when the client is done. Raises h11.RemoteProtocolError for what is not HTTP."""
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        head: Request | None = None
        parts: list[bytes] = []
        size = 0
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                    await self.flush()
                self._h11.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers]
                path, _, query = event.target.decode("ascii").partition("?")
                head = Request(event.method.decode("ascii"), path, headers, by_name=dict(headers), query=query)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size <= MAX_BODY_BYTES:
                    parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                head.too_large = size > MAX_BODY_BYTES
                head.body = b"" if head.too_large else b"".join(parts)
                return head
            else:  # h11.ConnectionClosed or h11.PAUSED: there will be no more requests
                return None

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Buffer a reply's head. Without a content length the body is chunked."""
        self._send(h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b"")))

    def write(self, data: bytes) -> None:
        """Buffer a part of the body."""
        self._send(h11.Data(data=data))

    async def finish(self) -> None:
        """End the reply and send what is buffered."""
        self._send(h11.EndOfMessage())
        await self.flush()

    async def flush(self) -> None:
        """Send what is buffered, and wait while the client is slow to take it."""
        if self._gone.done():
            raise ClientGoneError
        if self._out:
            data, self._out = b"".join(self._out), []
            self._writer.write(data)
            await self._writer.drain()

    async def pause(self, seconds: float | None) -> None:
        """Wait for so many seconds (None: for ever), or until the client is gone."""
        if not self._gone.done():
            await asyncio.wait([self._gone], timeout=seconds)
        if self._gone.done():
            raise ClientGoneError

    async def wait_for(self, released: asyncio.Future[None]) -> None:
        """Wait for a future, or until the client is gone."""
        await asyncio.wait([self._gone, released], return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            raise ClientGoneError

    @property
    def reusable(self) -> bool:
        """Whether another request may follow the last reply."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    @property
    def can_reply(self) -> bool:
        """Whether no part of a reply has been started."""
        return self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}

    def abort(self) -> None:
        """Drop the connection at once: what is buffered is lost and the client sees a reset or a premature end."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Close the connection after what was written has been sent."""
        self._writer.close()

    def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._out.append(data)
