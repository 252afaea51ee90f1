"""One operation of a provider's batch API, from its first byte to its one terminal event. Runs in the engine's event-loop thread.

Files are streamed: the requests from disk, the results to disk, in pieces and by a thread beside the loop, so that neither a batch's size nor a
slow disk is felt by the calls under way. A file of results has its name only once it is whole and on disk.
"""

import asyncio
import json
import logging
import os
import traceback
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .adapter import HttpRequest
from .batch_api import (
    MAX_LINE_BYTES,
    BatchFormat,
    CreateBatch,
    FetchResults,
    FindBatch,
    LineReader,
    Operation,
    Report,
    ResultsFetched,
    Upload,
    batch_format_for,
)
from .call import MAX_BODY_BYTES, MAX_ERROR_BODY_BYTES, Failed, Provider
from .deadlines import Deadlines, timed_out
from .errors import clean, malformed, refused
from .key_sources import key_for
from .keys import KeyUnavailableError, Secret, redact, unechoed
from .model import Billed, CallError, ErrorClass, LimitSnapshot, Scope, Timeouts
from .transport import Sending
from .urls import UnsafeURLError

if TYPE_CHECKING:
    from .http_client import Reply

logger = logging.getLogger(__name__)

TIMEOUTS = Timeouts(first_token=120.0, no_progress=120.0, total=3600.0)
"""What an operation may take: minutes without a byte in either direction, an hour in all."""
PIECE = 256 * 1024
MAX_PAGES = 50


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The operation is done. Terminal, as `Failed` is."""

    call_key: Hashable
    report: Report


ExchangeEvent = Exchanged | Failed


class Exchange:
    """The state of one operation, in the shape that the engine knows from `call.Call`."""

    def __init__(
        self, key: Hashable, operation: Operation, timeouts: Timeouts, on_event: Callable[[ExchangeEvent], object]
    ) -> None:
        self.key = key
        self.operation = operation
        self.timeouts = timeouts
        self.task: asyncio.Task[None] | None = None
        self.why_cancelled = "the operation was aborted"
        self.keep = False  # the engine's word for a call that is to be resumed; an operation never is
        self._over = False
        self._on_event = on_event

    def end(self, outcome: Report | CallError, limits: LimitSnapshot | None) -> None:
        """Send the terminal event, once; later calls do nothing."""
        if self._over:
            return
        self._over = True
        event = Failed(self.key, outcome, limits) if isinstance(outcome, CallError) else Exchanged(self.key, outcome)
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - a listener's bug must not cost the calls their loop
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("the listener of operation %r failed with %s:\n%s", self.key, type(error).__name__, where)  # noqa: TRY400 - its text may quote the event

    def cancel(self) -> None:
        """Cancel the task, if it runs."""
        if self.task is not None:
            self.task.cancel()


async def perform(exchange: Exchange, provider: Provider) -> None:
    """Perform the operation and end it. Returns normally in every case, cancellation included."""
    work = _Work(exchange, provider)
    try:
        outcome = await work.run()
    except asyncio.CancelledError:
        outcome = work.cut_short()
    except BaseException as error:  # noqa: BLE001 - the promise of exactly one terminal event outlasts our own bugs
        outcome = work.bug(error)
    work.conclude(outcome)


class _Work:
    """One operation: one request, or one for each page of a list."""

    def __init__(self, exchange: Exchange, provider: Provider) -> None:
        self._exchange = exchange
        self._operation = exchange.operation
        self._provider = provider
        self._deadlines = Deadlines(exchange.timeouts, exchange.cancel)
        self._sending = Sending()
        self._secrets: tuple[Secret, ...] = ()
        self._reply: Reply | None = None

    async def run(self) -> Report | CallError:
        """Return the outcome. Raises CancelledError (deadline, abort, end of the engine); anything else it raises is a bug."""
        import httpx

        settings = self._provider.settings
        batches = batch_format_for(settings.wire)
        if batches is None:
            return refused("operation", f"provider {settings.name!r} ({settings.wire}) has no batch API")
        try:
            key = await key_for(settings, self._provider.environ)
        except KeyUnavailableError as error:
            return CallError(kind=ErrorClass.AUTH, message=clean(str(error)), scope=Scope.CREDENTIAL, sent=False)
        self._secrets = () if key is None else (key,)
        try:
            if isinstance(self._operation, FindBatch):
                return await self._find(batches, self._operation, key)
            built = batches.encode(self._operation, key=key, settings=settings)
            if isinstance(built, CallError):
                return built
            if isinstance(self._operation, FetchResults):
                assert isinstance(built, HttpRequest)
                return await self._fetch(batches, self._operation, built)
            return await self._ask(batches, built)
        except UnsafeURLError as error:
            return CallError(kind=ErrorClass.INVALID, message=clean(str(error)), scope=Scope.PROVIDER, sent=False)
        except OSError as error:
            return CallError(
                kind=ErrorClass.INVALID,
                message=clean(f"the file of the batch cannot be used: {error.strerror or error}"),
                code="file",
                billed=self._billed(),
                sent=self._sending.started,
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            return self._lost(error)

    def cut_short(self) -> CallError:
        """Return the outcome of an operation that was cancelled."""
        sent = self._sending.started
        if self._deadlines.expired is not None:
            return timed_out(
                self._deadlines.expired, self._exchange.timeouts, billed=self._billed(), sent=sent, partial=""
            )
        return CallError(
            kind=ErrorClass.CANCELLED, message=self._exchange.why_cancelled, billed=self._billed(), sent=sent
        )

    def bug(self, error: BaseException) -> CallError:
        """Log a bug of ours, without any key, and return the outcome."""
        trace = redact("".join(traceback.format_exception(error)), self._secrets)
        logger.error("operation %r failed inside the engine; this is a bug:\n%s", self._exchange.key, trace)
        return CallError(
            kind=ErrorClass.MALFORMED,
            message=f"internal error {type(error).__name__}; the log has the traceback",
            code="internal",
            billed=self._billed(),
            sent=self._sending.started,
        )

    def conclude(self, outcome: Report | CallError) -> None:
        """End it, with its key scrubbed from whatever the server echoed."""
        self._deadlines.stop()
        if isinstance(outcome, CallError):
            name, message = self._provider.settings.name, redact(outcome.message, self._secrets)
            code = None if outcome.code is None else redact(outcome.code, self._secrets)
            message = message if message.startswith("provider ") else f"provider {name!r}: {message}"
            # Only the making of a batch costs anything.
            outcome = replace(
                unechoed(outcome, self._secrets),
                message=message,
                code=code,
                billed=outcome.billed if self._makes() else Billed.NO,
            )
        self._exchange.end(outcome, None)

    async def _find(self, batches: BatchFormat, operation: FindBatch, key: Secret | None) -> Report | CallError:
        pages: list[bytes] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            built = batches.encode(operation, key=key, settings=self._provider.settings, cursor=cursor)
            if isinstance(built, CallError):
                return built
            assert isinstance(built, HttpRequest)
            async with _Open(self, built) as reply:
                body = await self._body(reply, batches.reader(operation))
            if isinstance(body, CallError):
                return body
            if not 200 <= reply.status < 300:
                return self._decoded(batches, reply, body)
            pages.append(body)
            cursor = batches.more(operation, body)
            if cursor is None:
                break
        return batches.found(operation, pages, complete=cursor is None)

    async def _ask(self, batches: BatchFormat, built: HttpRequest | Upload) -> Report | CallError:
        if isinstance(built, Upload):
            size = await asyncio.to_thread(_size, built)
            if size > batches.max_bytes:
                return refused(
                    "path", f"the file of the batch has {size} bytes, over the {batches.max_bytes} of this API"
                )
        async with _Open(self, built) as reply:
            body = await self._body(reply, batches.reader(self._operation))
        return body if isinstance(body, CallError) else self._decoded(batches, reply, body)

    def _decoded(self, batches: BatchFormat, reply: "Reply", body: bytes) -> Report | CallError:
        return batches.decode(self._operation, reply.status, reply.headers, body, at_ms=self._provider.now_ms())

    async def _fetch(self, batches: BatchFormat, operation: FetchResults, built: HttpRequest) -> Report | CallError:
        async with _Open(self, built) as reply:
            if not 200 <= reply.status < 300:
                body = await self._body(reply, None)
                found = body if isinstance(body, CallError) else self._decoded(batches, reply, body)
                return (
                    found if isinstance(found, CallError) else malformed(f"HTTP {reply.status} for a file of results")
                )
            part = Path(f"{operation.path}.part")
            file = await asyncio.to_thread(_create, part)
            try:
                problem = await self._write(reply, file, batches.reader(operation), operation.max_bytes)
                size = file.tell()
                if problem is None:
                    await asyncio.to_thread(_keep, file, part, Path(operation.path))
                    return ResultsFetched(size)
                return problem
            finally:
                await asyncio.to_thread(_drop, file, part)

    async def _write(
        self, reply: "Reply", file: BinaryIO, reader: LineReader | None, max_bytes: int
    ) -> CallError | None:
        """Write the results; return what is wrong with them, if anything is."""
        received = line_start = 0
        async for piece in _pieces(self._touched(reply)):
            if b"\n" in piece:
                line_start = received + piece.rindex(b"\n") + 1
            received += len(piece)
            if received > max_bytes or ((received - line_start if reader is None else reader.held) > MAX_LINE_BYTES):
                return malformed(f"the results are over {max_bytes} bytes, or one of them over {MAX_LINE_BYTES}")
            await asyncio.to_thread(_write_piece, file, reader, piece)
        if reader is None:
            return await asyncio.to_thread(_broken_end, file, line_start)
        try:
            json.loads(reader.rest())
        except (ValueError, RecursionError):
            return _truncated("is not whole JSON")
        return None

    async def _body(self, reply: "Reply", reader: LineReader | None) -> bytes | CallError:
        """Return a reply's body, without the results that it may hold."""
        good = 200 <= reply.status < 300
        cap = MAX_BODY_BYTES if good else MAX_ERROR_BODY_BYTES
        body = bytearray()
        async for piece in _pieces(self._touched(reply)):
            if reader is not None and good:
                await asyncio.to_thread(reader.feed, piece)
                held = reader.held
            else:
                body += piece
                held = len(body)
            if held > cap:
                if not good:
                    break
                return malformed(f"the reply is over {cap} bytes")
        return reader.rest() if reader is not None and good else bytes(body)

    async def _touched(self, reply: "Reply") -> AsyncIterator[bytes]:
        async for chunk in reply.chunks():
            self._deadlines.touch()
            yield chunk

    async def send(self, built: HttpRequest | Upload) -> "Reply":
        """Send a request, its body from disk if it is an upload."""
        client, self._reply = self._provider.client, None
        if isinstance(built, HttpRequest):
            self._reply = await client.send(built, self._sending)
            return self._reply
        size = await asyncio.to_thread(_size, built)
        self._reply = await client.send(built.request, self._sending, body=self._upload(built), length=size)
        return self._reply

    async def _upload(self, upload: Upload) -> AsyncIterator[bytes]:
        yield upload.head
        file = await asyncio.to_thread(Path(upload.path).open, "rb")
        try:
            held = b""
            while piece := await asyncio.to_thread(file.read, PIECE):
                self._deadlines.touch()
                if upload.array:
                    # The last byte waits: an end of line that nothing follows is not sent.
                    piece, held = held + piece[:-1], piece[-1:]
                    piece = piece.replace(b"\n", b",")
                yield piece
            if held != b"\n":
                yield held
        finally:
            await asyncio.to_thread(file.close)
        yield upload.tail

    def _makes(self) -> bool:
        return isinstance(self._operation, CreateBatch)

    def _billed(self) -> Billed:
        return Billed.MAYBE if self._sending.started and self._makes() else Billed.NO

    def _lost(self, error: Exception) -> CallError:
        """Return the outcome of a connection that failed."""
        import httpx

        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
            return CallError(kind=ErrorClass.CONNECT, message=clean(detail), scope=Scope.PROVIDER, sent=False)
        if isinstance(error, httpx.LocalProtocolError):
            # It quotes the header that it refused. An upload's file that changed under our hands ends here too.
            return CallError(
                kind=ErrorClass.INVALID,
                message="the request is not valid HTTP, or its file changed while it was sent",
                billed=self._billed(),
                sent=self._sending.started,
            )
        if self._reply is None:
            return CallError(
                kind=ErrorClass.CONNECT,
                message=clean(f"{detail} (before any reply; it may have been done)"),
                scope=Scope.PROVIDER,
                billed=self._billed(),
                sent=self._sending.started,
            )
        return replace(_truncated(f"broke off ({detail})"), http=self._reply.status, billed=self._billed())


class _Open:
    """A reply as a context: sent on entry, closed on leaving."""

    def __init__(self, work: _Work, built: HttpRequest | Upload) -> None:
        self._work = work
        self._built = built
        self._reply: Reply | None = None

    async def __aenter__(self) -> "Reply":
        self._reply = await self._work.send(self._built)
        return self._reply

    async def __aexit__(self, *_: object) -> None:
        assert self._reply is not None
        await self._reply.close()


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather what comes into pieces worth a change of thread."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= PIECE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _size(upload: Upload) -> int:
    """How many bytes the body of an upload has. The last line's end is not sent in an array."""
    size = len(upload.head) + Path(upload.path).stat().st_size + len(upload.tail)
    if upload.array:
        with Path(upload.path).open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            size -= file.read(1) == b"\n"
    return size


def _create(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


def _write_piece(file: BinaryIO, reader: LineReader | None, piece: bytes) -> None:
    file.write(piece if reader is None else b"".join(line + b"\n" for line in reader.feed(piece)))


def _keep(file: BinaryIO, part: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    part.replace(path)


def _drop(file: BinaryIO, part: Path) -> None:
    file.close()
    part.unlink(missing_ok=True)


def _broken_end(file: BinaryIO, line_start: int) -> CallError | None:
    """Return what is wrong with a file of lines: that it is none (a page), or that its last line was cut."""
    end = file.tell()
    file.seek(0)
    first = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(line_start)
    last = file.read()
    assert file.tell() == end
    if first and not first.startswith(b"{"):
        return malformed("the results are not lines of JSON; is base_url right?")
    try:
        if last.strip():
            json.loads(last)
    except (ValueError, RecursionError):
        return _truncated("ends in the middle of a line")
    return None


def _truncated(how: str) -> CallError:
    return CallError(kind=ErrorClass.TRUNCATED, message=clean(f"the reply {how}: it is not complete"))
