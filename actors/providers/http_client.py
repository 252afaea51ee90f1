"""HTTP for the engine: straight over connections of its own (`direct.py`), or, for uploads and through a proxy, by an httpx transport.

httpx's own pool walks every connection for every waiting request, which at 50 calls in flight costs six times what the calls do. Here the
last connection used is the next one taken, at constant cost, and the rest grow old and are closed. The transport is used without
`httpx.AsyncClient`: redirects, cookies, proxy variables and `.netrc` are features of the client, and each of them can carry a key to
where it should not go. Import this module through `transport.open_client` only. Event-loop thread only.
"""

import functools
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore
import httpx

from .adapter import HttpRequest
from .direct import KEEPALIVE, TIMEOUTS, DirectBody, DirectClient, mapped
from .network import CheckedNetwork, NetworkStream
from .transport import Sending
from .urls import UnsafeURLError, check_base_url

_TIMEOUTS = TIMEOUTS


@functools.cache
def shared_tls_context() -> ssl.SSLContext:
    """Return the process's one TLS context: building one costs 35 ms and 0.9 MB."""
    return httpx.create_ssl_context(trust_env=False)


class Reply:
    """A reply whose headers have come; their names are lower-case. Read `chunks()`, then `close()` in any case."""

    def __init__(self, status: int, headers: dict[str, str], body: "_Body | DirectBody") -> None:
        self.status = status
        self.headers = headers
        self._body = body

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the body as it comes, decompressed if the server compressed it unasked. Raises httpx.TransportError, DecodingError."""
        if self.headers.get("content-encoding", "identity") == "identity":
            return aiter(self._body)
        return httpx.Response(self.status, headers=self.headers, stream=_Stream(self._body)).aiter_bytes()

    async def close(self) -> None:
        """End the reply. The connection is used again if the body was read to its end, else it is closed at once."""
        await self._body.aclose()


class HttpClient:
    """Sends requests to one base URL. Concurrency is bounded by its caller; each request in flight has a connection of its own."""

    def __init__(self, base_url: str, *, allow_private: bool = False, proxy: str | None = None) -> None:
        self._base_url = check_base_url(base_url, allow_private=allow_private)
        url = httpx.URL(self._base_url)
        tls = shared_tls_context() if url.scheme == "https" else None
        self._network = CheckedNetwork(allow_private=allow_private, unchecked=proxy is not None)
        self._transport = StackTransport(url, tls, self._network, proxy)
        self._direct = None if proxy is not None else DirectClient(self._base_url, tls, self._network)

    async def send(
        self,
        request: HttpRequest,
        sending: Sending,
        *,
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> Reply:
        """Send a request and return the reply once its headers are here. Cancelling closes the connection.

        `body`, of `length` bytes, is sent in place of the request's own: what need not be in memory as a whole.
        `sending.started` is set when the first byte is about to leave. Raises httpx.TransportError (there is no read timeout: deadlines
        are the caller's) and UnsafeURLError.
        """
        if self._direct is not None and body is None:
            answer = await self._direct.send(request, sending)
            return Reply(answer.status, answer.headers, answer)
        sized = () if length is None else (("content-length", str(length)),)
        built = httpx.Request(
            request.method,
            self._base_url + request.path,
            headers=(*request.headers, *sized),
            content=request.body if body is None else body,
            extensions={"timeout": _TIMEOUTS, "sending": sending},
        )
        response = await self._transport.handle_async_request(built)
        assert isinstance(response.stream, _Body)
        return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.stream)

    async def close_expired(self) -> None:
        """Close the connections that have been idle for long or that the server ended."""
        if self._direct is not None:
            self._direct.close_expired()
        await self._transport.close_expired()

    async def close(self) -> None:
        """Close every idle connection and give up name lookups. Connections in use are closed by the cancellation of their calls."""
        if self._direct is not None:
            self._direct.close()
        await self._transport.aclose()
        await self._network.close()


class _Stream(httpx.AsyncByteStream):
    """A body as httpx's decoders read it; whoever opened the reply closes it."""

    def __init__(self, body: "_Body | DirectBody") -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._body:
            yield part


class StackTransport(httpx.AsyncBaseTransport):
    """Connections to one origin, last in first out."""

    def __init__(self, url: httpx.URL, tls: ssl.SSLContext | None, network: CheckedNetwork, proxy: str | None) -> None:
        port = url.port or (443 if url.scheme == "https" else 80)
        self._origin = httpcore.Origin(url.raw_scheme, url.raw_host, port)
        self._tls = tls
        self._proxy = None if proxy is None else httpx.Proxy(proxy)
        # Through a proxy, what is written before TLS stands to the provider is for the proxy alone.
        to_proxy = self._proxy is not None and self._proxy.url.scheme == "https"
        self._handshakes = 0 if self._proxy is None else (self._tls is not None) + to_proxy
        self._network = network
        self._idle: list[_Slot] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send on the connection used last, or a new one. `request.extensions["sending"]` is told of the first byte."""
        slot = self._take()
        slot.sending = request.extensions["sending"]
        url = request.url
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await slot.connection.handle_async_request(asked)
        except Exception as error:
            await slot.connection.aclose()
            known = mapped(error)
            if known is error:
                raise
            raise known from error
        except BaseException:
            await slot.connection.aclose()
            raise
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(self, slot, answer.stream), request=request
        )

    async def release(self, slot: "_Slot") -> None:
        """Put a connection back on the stack if it can be used again; close it otherwise."""
        slot.sending = None
        if slot.reusable():
            self._idle.append(slot)
        else:
            await slot.connection.aclose()

    async def close_expired(self) -> None:
        """Close what can no longer be used; the oldest connections are at the bottom of the stack."""
        expired = [slot for slot in self._idle if not slot.reusable()]
        if expired:
            self._idle = [slot for slot in self._idle if slot not in expired]
        for slot in expired:
            await slot.connection.aclose()

    async def aclose(self) -> None:
        """Close the idle connections."""
        slots, self._idle = self._idle, []
        for slot in slots:
            await slot.connection.aclose()

    def _take(self) -> "_Slot":
        while self._idle:
            slot = self._idle.pop()
            if slot.reusable():
                return slot
            slot.drop()
        slot = _Slot(self._network, self._handshakes)
        if self._proxy is None:
            slot.connection = httpcore.AsyncHTTPConnection(
                self._origin, ssl_context=self._tls, keepalive_expiry=KEEPALIVE, network_backend=slot
            )
        else:
            slot.connection = _through_proxy(self._proxy, self._tls, slot)
        return slot


class _Slot(httpcore.AsyncNetworkBackend):
    """One connection (behind a proxy: a pool of one), and the way it connects, so that its writes can be noticed."""

    def __init__(self, network: CheckedNetwork, handshakes: int) -> None:
        self.connection: Any = None
        self.sending: Sending | None = None
        self._network = network
        self._handshakes = handshakes
        self._stream: NetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        stream.on_write = self._note_write
        self._stream = stream
        return stream

    def reusable(self) -> bool:
        """Whether the next request may go out on it."""
        if self._stream is None:
            return False
        if isinstance(self.connection, httpcore.AsyncHTTPConnection):
            return self.connection.is_idle() and not self.connection.has_expired()
        return not self._stream.get_extra_info("is_readable")

    def drop(self) -> None:
        """Close the connection without waiting."""
        if self._stream is not None:
            self._stream.abort()

    def _note_write(self) -> None:
        if self.sending is not None and self._stream is not None and self._stream.handshakes >= self._handshakes:
            self.sending.started = True


class _Body(httpx.AsyncByteStream):
    """A reply's body; closing it gives the connection back."""

    def __init__(self, transport: StackTransport, slot: _Slot, stream: Any) -> None:
        self._transport = transport
        self._slot = slot
        self._stream = stream
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except Exception as error:
            known = mapped(error)
            if known is error:
                raise
            raise known from error

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                await self._stream.aclose()
            finally:
                await self._transport.release(self._slot)


def _through_proxy(proxy: httpx.Proxy, tls: ssl.SSLContext | None, slot: _Slot) -> Any:
    common: dict[str, Any] = {
        "proxy_url": httpcore.URL(
            scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
        ),
        "proxy_auth": proxy.raw_auth,
        "ssl_context": tls,
        "max_connections": 1,
        "keepalive_expiry": KEEPALIVE,
        "network_backend": slot,
    }
    if proxy.url.scheme.startswith("socks5"):
        try:
            return httpcore.AsyncSOCKSProxy(**common)
        except (ImportError, RuntimeError) as error:
            raise UnsafeURLError(
                "proxy: a SOCKS proxy needs the package socksio, which is not here; run: pip install 'httpx[socks]'"
            ) from error
    if proxy.url.scheme == "https":
        common["proxy_ssl_context"] = shared_tls_context()
    return httpcore.AsyncHTTPProxy(**common)
