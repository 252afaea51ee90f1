"""HTTP/1.1 straight over a connection: what nearly all calls take.

A request whose body is in memory, sent without a proxy, needs no more than one write and the reading of its reply, so it does not go through httpx
and httpcore, which together cost three times what is left. Uploads from disk and proxies do (`http_client.py`). Errors are httpx's in both.
Connections stand on a stack: the last one used is the next one taken, and the rest grow old and are closed. Event-loop thread only.
"""

import asyncio
import re
import ssl
from contextlib import suppress

import httpcore
import httpx

from .adapter import HttpRequest
from .http1 import BadReplyError, ReplyParser
from .network import CheckedNetwork, NetworkStream
from .transport import Sending

TIMEOUTS: dict[str, float | None] = {"connect": 10.0, "write": 30.0, "read": None, "pool": None}
"""Seconds, as httpx names them. How long an answer may take is the caller's business."""
KEEPALIVE = 15.0
"""Seconds an idle connection is kept. Short, because a request that meets a dying connection has an unknown outcome."""
READ_BYTES = 256 * 1024
MAX_PATHS = 64
"""First lines that are kept: a provider has a few paths that are asked again and again."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Headers that say where a request goes and where it ends: nobody else may."""

ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.ProxyError, httpx.ProxyError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
)


class DirectClient:
    """Requests to one origin. Each in flight has a connection of its own."""

    def __init__(self, base_url: str, tls: ssl.SSLContext | None, network: CheckedNetwork) -> None:
        url = httpx.URL(base_url)
        self._base_url = base_url
        self._host = url.raw_host.decode("ascii")
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
        self._network = network
        self._first_lines: dict[tuple[str, str], str] = {}
        self._idle: list[_Connection] = []

    async def send(self, request: HttpRequest, sending: Sending) -> "DirectBody":
        """Send a request; the beginning of its reply, once the headers are here. As `HttpClient.send`."""
        data = self._head(request) + request.body
        stream: NetworkStream | None = None
        try:
            taken = self._take()
            stream = await self._connect() if taken is None else taken
            sending.started = True
            with suppress(httpcore.WriteError):  # it may have refused, and closed, what it did not read to its end
                await stream.write(data, TIMEOUTS["write"])
            parser = ReplyParser()
            while True:
                read = await stream.read(READ_BYTES)
                if not read:
                    parser.end()
                pieces = parser.feed(read)
                if parser.headers is not None:
                    return DirectBody(self, stream, parser, pieces)
        except BaseException as error:
            if stream is not None:
                stream.abort()
            if (known := mapped(error)) is error:
                raise
            raise known from error

    def give_back(self, stream: NetworkStream, parser: ReplyParser) -> None:
        """A reply is done with: keep its connection if it can be used again, else close it."""
        if parser.reusable and not stream.get_extra_info("is_readable") and stream.all_sent:
            self._idle.append(_Connection(stream, asyncio.get_running_loop().time() + KEEPALIVE))
        else:
            stream.abort()

    def close_expired(self) -> None:
        """Close the connections that have been idle for long or that the server ended."""
        now = asyncio.get_running_loop().time()
        for connection in self._idle:
            if not connection.usable(now):
                connection.stream.abort()
        self._idle = [connection for connection in self._idle if connection.usable(now)]

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.stream.abort()
        self._idle.clear()

    def _take(self) -> NetworkStream | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(now):
                return connection.stream
            connection.stream.abort()
        return None

    async def _connect(self) -> NetworkStream:
        stream = await self._network.connect_tcp(self._host, self._port, TIMEOUTS["connect"])
        if self._tls is not None:
            await stream.start_tls(self._tls, self._host, TIMEOUTS["connect"])
        return stream

    def _head(self, request: HttpRequest) -> bytes:
        """The request line and the headers, as bytes. Raises httpx.LocalProtocolError for what would not be one request to its reader."""
        key = request.method, request.path
        head = self._first_lines.get(key)
        if head is None:
            url = httpx.URL(self._base_url + request.path)  # which quotes what must not stand in an address
            head = f"{request.method} {url.raw_path.decode('ascii')} HTTP/1.1\r\nHost: {url.netloc.decode('ascii')}\r\n"
            if len(self._first_lines) < MAX_PATHS:  # paths with an id in them are as many as there are ids
                self._first_lines[key] = head
        lines = [head]
        for name, value in request.headers:
            if name.lower() in OURS or _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
                raise httpx.LocalProtocolError(f"header {name!r} cannot be sent")
            lines.append(f"{name}: {value}\r\n")
        if request.body or request.method != "GET":
            lines.append(f"Content-Length: {len(request.body)}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("ascii")


class _Connection:
    """An idle connection, and until when it is one (loop time)."""

    __slots__ = ("stream", "until")

    def __init__(self, stream: NetworkStream, until: float) -> None:
        self.stream = stream
        self.until = until

    def usable(self, now: float) -> bool:
        """Whether the next request may go out on it."""
        return now < self.until and not self.stream.get_extra_info("is_readable")


class DirectBody:
    """A reply whose headers have come, and its body as an asynchronous iterator. To be closed in any case."""

    def __init__(self, client: DirectClient, stream: NetworkStream, parser: ReplyParser, pieces: list[bytes]) -> None:
        assert parser.headers is not None
        self.status = parser.status
        self.headers = parser.headers
        self._client = client
        self._stream = stream
        self._parser = parser
        self._pieces = pieces
        self._closed = False

    def __aiter__(self) -> "DirectBody":
        return self

    async def __anext__(self) -> bytes:
        """What one read from the network held. Raises httpx.TransportError."""
        try:
            while not self._pieces:
                if self._parser.done:
                    raise StopAsyncIteration
                read = b"" if self._parser.broken else await self._stream.read(READ_BYTES)
                if read:
                    self._pieces = self._parser.feed(read)
                else:
                    self._parser.end()
        except (BadReplyError, httpcore.ReadError) as error:
            raise mapped(error) from error
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        """End the reply: the connection is used again if it was read to its end, else closed at once."""
        if not self._closed:
            self._closed = True
            self._client.give_back(self._stream, self._parser)


def mapped(error: BaseException) -> BaseException:
    """Return httpx's exception for httpcore's or the parser's; any other error is returned as it is."""
    if isinstance(error, BadReplyError):
        return httpx.RemoteProtocolError(str(error))
    for theirs, ours in ERRORS:
        if isinstance(error, theirs):
            return ours(str(error))
    return error
