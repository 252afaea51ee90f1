"""The TCP and TLS below httpcore: addresses are checked at every connection, and reads cost as little as asyncio allows.

A name is resolved once, every address it has is checked, and the connection is made to an address that passed: there is no second lookup
that could give another answer (DNS rebinding). Only `transport.py` imports this module, after httpx. Event-loop thread only.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from .urls import UnsafeURLError, parse_address, refusal

DNS_TTL = 5.0
"""Seconds an answer is reused, so that a burst of new connections is one lookup."""
_HIGH_WATER = 256 * 1024


class NetworkStream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection. `on_write` is called before each write, so that the caller knows that bytes may have left."""

    def __init__(self) -> None:
        self.on_write: Callable[[], None] | None = None
        self.handshakes = 0
        """How many TLS handshakes are done: behind a proxy that is reached by TLS itself, there are two."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None  # a reader waiting for bytes
        self._drained: asyncio.Future[None] | None = None  # a writer waiting for room; None when there is room
        self._eof = False
        self._paused = False
        self._lost: Exception | None = None
        self._over_tls = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; asyncio calls it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep bytes for the reader; asyncio calls it."""
        self._buffer += data
        if len(self._buffer) > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Note the end of what the peer sends; asyncio calls it."""
        self._eof = True
        self._wake()
        return not self._over_tls  # keep the writing side open; TLS has no half-closed state

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits; asyncio calls it."""
        self._eof = True
        self._lost = exc
        self._wake()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        """Make writers wait; asyncio calls it."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let writers go on; asyncio calls it."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        """Return the bytes at hand, waiting for some; empty at the end. Raises httpcore.ReadError, ReadTimeout."""
        if not self._buffer and not self._eof:
            self._waiter = self._loop.create_future()
            try:
                await _within(self._waiter, timeout, httpcore.ReadTimeout)
            finally:
                self._waiter = None
        if self._buffer:
            data = bytes(self._buffer[:max_bytes])
            del self._buffer[:max_bytes]
            if self._paused and len(self._buffer) < _HIGH_WATER // 2 and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()
            return data
        if self._lost is not None:
            raise httpcore.ReadError(f"connection lost: {self._lost}")
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        """Write all of `buffer`. Raises httpcore.WriteError, WriteTimeout."""
        if not buffer:
            return
        if self.on_write is not None:
            self.on_write()
        if self._transport is None or self._transport.is_closing():
            raise httpcore.WriteError(f"connection lost: {self._lost}")
        self._transport.write(buffer)
        if self._drained is not None:
            await _within(self._drained, timeout, httpcore.WriteTimeout)
            if self._lost is not None:
                raise httpcore.WriteError(f"connection lost: {self._lost}")

    async def aclose(self) -> None:
        """Close at once."""
        self.abort()

    def abort(self) -> None:
        """Close at once: what is unsent is dropped, and the peer sees the end of the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """Shake hands. Raises httpcore.ConnectError, ConnectTimeout."""
        assert self._transport is not None
        self._over_tls = True
        try:
            upgraded = await self._loop.start_tls(
                self._transport, self, ssl_context, server_hostname=server_hostname, ssl_handshake_timeout=timeout
            )
        except (TimeoutError, ConnectionAbortedError) as error:
            self._transport.abort()
            raise httpcore.ConnectTimeout(f"TLS handshake with {server_hostname}: {error}") from error
        except (ssl.SSLError, OSError) as error:
            self._transport.abort()
            raise httpcore.ConnectError(f"TLS handshake with {server_hostname}: {error}") from error
        except BaseException:
            self._transport.abort()
            raise
        if upgraded is None:
            raise httpcore.ConnectError(f"TLS handshake with {server_hostname}: connection closed")
        self._transport = upgraded
        self.handshakes += 1
        return self

    @property
    def all_sent(self) -> bool:
        """Whether nothing waits to be sent."""
        return self._transport is not None and not self._transport.get_write_buffer_size()

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks for: `is_readable` of an idle connection means that it ended, or holds bytes nobody asked for."""
        if info == "is_readable":
            return self._eof or bool(self._buffer) or self._transport is None or self._transport.is_closing()
        names = {"ssl_object": "ssl_object", "client_addr": "sockname", "server_addr": "peername", "socket": "socket"}
        return None if self._transport is None or info not in names else self._transport.get_extra_info(names[info])

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that `urls.refusal` lets pass. `unchecked` is for a proxy, which the operator named: any address goes."""

    def __init__(self, *, allow_private: bool, unchecked: bool = False) -> None:
        self._allow_private = allow_private
        self._unchecked = unchecked
        self._lookups: dict[tuple[str, int], tuple[float, asyncio.Task[list[str]]]] = {}

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - httpcore's signature; asyncio sets TCP_NODELAY by itself
    ) -> NetworkStream:
        """Connect. Raises UnsafeURLError, httpcore.ConnectError, ConnectTimeout; in all cases nothing was sent."""
        loop = asyncio.get_running_loop()
        local = None if local_address is None else (local_address, 0)
        try:
            async with asyncio.timeout(timeout):
                failure: OSError | None = None
                for address in await self._addresses(host, port):
                    try:
                        _, stream = await loop.create_connection(NetworkStream, address, port, local_addr=local)
                    except OSError as error:
                        failure = error
                    else:
                        return stream
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"connecting to {host}:{port} took over {timeout} s") from None
        except OSError as error:
            raise httpcore.ConnectError(f"resolving {host}: {error}") from error
        raise httpcore.ConnectError(f"connecting to {host}:{port}: {failure}")

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, all checked. A name with one bad address is refused whole: it is not what it should be."""
        literal = parse_address(host)
        found = [host.strip("[]")] if literal is not None else await self._lookup(host, port)
        if not self._unchecked:
            for text in found:
                address = parse_address(text)
                why = (
                    f"{host} was resolved to {text!r}, which is no IP address"
                    if address is None
                    else refusal(address, host=host, allow_private=self._allow_private)
                )
                if why:
                    raise UnsafeURLError(why)
        return found

    async def _lookup(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        until, task = self._lookups.get((host, port), (0.0, None))
        if task is None or loop.time() > until or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = loop.create_task(_resolve(host, port))
            self._lookups[host, port] = (loop.time() + DNS_TTL, task)
        return await asyncio.shield(task)  # shared: one caller's cancellation is not the others'

    async def close(self) -> None:
        """Give up the lookups under way."""
        for _, task in self._lookups.values():
            task.cancel()


async def _resolve(host: str, port: int) -> list[str]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


async def _within(future: asyncio.Future[None], seconds: float | None, error: type[Exception]) -> None:
    if seconds is None:
        await future
        return
    try:
        async with asyncio.timeout(seconds):
            await future
    except TimeoutError:
        raise error(f"no answer from the network for {seconds:g} s") from None
