"""One call from its first byte to its one terminal event. Everything here runs in the engine's event-loop thread.

Whatever goes wrong ends as a value: transport errors, cancellations and deadlines are turned into `CallError` at the place where it is
known whether bytes had left and what had arrived, because that decides whether the call may have been paid for.
"""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .adapter import Adapter, HttpRequest, StreamDecoder, embedder_for, line_decoder
from .deadlines import Deadlines, timed_out
from .errors import clean, malformed, refused
from .key_sources import key_for, source_now
from .keys import KeyUnavailableError, Secret, redact, unechoed
from .model import (
    Answer,
    AnyRequest,
    Billed,
    CallError,
    Completion,
    EmbeddingRequest,
    Embeddings,
    ErrorClass,
    LimitSnapshot,
    Scope,
    Timeouts,
)
from .resume import Handle
from .settings import ProviderSettings
from .sse import EventTooLargeError
from .transport import Sending
from .urls import UnsafeURLError

if TYPE_CHECKING:
    from .http_client import HttpClient, Reply

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_ERROR_BODY_BYTES = 64 * 1024
TEXT_EVERY = 0.05
"""Seconds between two pieces of a streamed answer on their way to the runner, at least: each wakes a thread, and a fast stream has hundreds."""
DRAIN_SECONDS = 1.0
"""How long after the answer's end the reply may take to end too, so that its connection can be used again."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text arrived: all that has come since the last such event. The first goes out at once, the others `TEXT_EVERY` seconds apart."""

    call_key: Hashable
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete. Terminal. `rest`: the last of its text, which came with the end and in no `Text`."""

    call_key: Hashable
    completion: Answer
    limits: LimitSnapshot | None
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no complete answer, and why. Terminal."""

    call_key: Hashable
    error: CallError
    limits: LimitSnapshot | None


@dataclass(frozen=True, slots=True)
class Held:
    """The provider goes on with the call whatever becomes of us, and this is what it can be taken up by again."""

    call_key: Hashable
    handle: Handle


CallEvent = Text | Finished | Failed | Held


@dataclass(frozen=True, slots=True)
class Provider:
    """What the calls of one provider share."""

    settings: ProviderSettings
    adapter: Adapter
    client: "HttpClient"
    environ: Mapping[str, str] = field(repr=False)
    now_ms: Callable[[], int]


class Call:
    """The state of one submitted call.

    `handle`: take up what it names instead of asking anew. `keep`: if it is aborted, the provider may go on with it (see `background.py`).
    """

    def __init__(
        self,
        key: Hashable,
        request: AnyRequest,
        timeouts: Timeouts,
        on_event: Callable[[CallEvent], object],
        handle: Handle | None = None,
    ) -> None:
        self.key = key
        self.handle = handle
        self.keep = False
        self.request = request
        self.timeouts = timeouts
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self.why_cancelled = "the call was aborted"
        self._on_event = on_event
        self._pending: list[str] = []
        self._next_text_at = 0.0

    def add_text(self, pieces: list[str], *, last: bool = False) -> None:
        """Collect text; the first goes out as soon as the loop is free, that is when this network read is used up. The `last` waits for the end."""
        if pieces and not self._pending and not last:
            loop = asyncio.get_running_loop()
            loop.call_at(max(self._next_text_at, loop.time()), self._flush)
        self._pending += pieces

    def hold(self, handle: Handle) -> None:
        """Say what the call can be taken up by again."""
        if not self.over:
            self._emit(Held(self.key, handle))

    def end(self, outcome: Answer | CallError, limits: LimitSnapshot | None) -> None:
        """Send the terminal event, once; later calls do nothing."""
        if self.over:
            return
        if isinstance(outcome, CallError):
            self._flush()
            self.over = True
            self._emit(Failed(self.key, outcome, limits))
        else:
            self.over = True
            self._emit(Finished(self.key, outcome, limits, "".join(self._pending)))

    def cancel(self) -> None:
        """Cancel the task, if it runs."""
        if self.task is not None:
            self.task.cancel()

    def _flush(self) -> None:
        if self._pending and not self.over:
            text = "".join(self._pending)
            self._pending = []
            self._next_text_at = asyncio.get_running_loop().time() + TEXT_EVERY
            self._emit(Text(self.key, text))

    def _emit(self, event: CallEvent) -> None:
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - a listener's bug must not cost the other calls their loop
            # Where, but not what: a listener's exception may quote the event, and with it a prompt or an answer.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("the listener of call %r failed with %s:\n%s", self.key, type(error).__name__, where)  # noqa: TRY400 - see above


async def perform(call: Call, provider: Provider) -> None:
    """Make the call and end it. Returns normally in every case, cancellation included."""
    if provider.settings.background or call.handle is not None:
        from .background import BackgroundConversation

        work: Conversation = BackgroundConversation(call, provider, Deadlines(call.timeouts, call.cancel), Sending())
    else:
        work = Conversation(call, provider, Deadlines(call.timeouts, call.cancel), Sending())
    try:
        outcome = await work.run()
    except asyncio.CancelledError:
        outcome = work.cut_short()
    except BaseException as error:  # noqa: BLE001 - the promise of exactly one terminal event outlasts our own bugs
        outcome = work.bug(error)
    work.conclude(outcome)
    if work.unfinished is not None:
        await work.unfinished()


class Conversation:
    """One exchange with the provider: what was sent, what has come so far."""

    def __init__(self, call: Call, provider: Provider, deadlines: Deadlines, sending: "Sending") -> None:
        self.call = call
        self.deadlines = deadlines
        self._provider = provider
        # Loaded for those that ask: most workers never do.
        self._embedder = embedder_for(provider.settings.wire) if isinstance(call.request, EmbeddingRequest) else None
        self._sending = sending
        self._secrets: tuple[Secret, ...] = ()
        self._limits: LimitSnapshot | None = None
        self._reply: Reply | None = None
        self._at_ms = 0
        self._body = bytearray()
        self._decoder: StreamDecoder | None = None
        self.unfinished: Callable[[], Awaitable[None]] | None = None
        """What is to be done after the call has ended."""

    async def run(self) -> Answer | CallError:
        """Return the outcome. Raises CancelledError (deadline, abort, end of the engine); anything else it raises is a bug."""
        settings = self._provider.settings
        try:
            key = await key_for(settings, self._provider.environ)
        except KeyUnavailableError as error:
            return CallError(kind=ErrorClass.AUTH, message=clean(str(error)), scope=Scope.CREDENTIAL, sent=False)
        self._secrets = () if key is None else (key,)
        return await self._ask(key)

    async def _ask(self, key: Secret | None) -> Answer | CallError:
        built = self._encoded(key)
        return built if isinstance(built, CallError) else await self._exchange(built)

    async def _exchange(self, built: HttpRequest) -> Answer | CallError:
        """Send a request and read its reply."""
        import httpx

        try:
            self._reply = await self._provider.client.send(built, self._sending)
            try:
                outcome = await self._read(self._reply)
                # Now, not after closing: a cancellation that lands in there must not cost an answer that is here and paid for.
                self._read_whole(outcome)
                return outcome
            finally:
                await self._reply.close()
        except UnsafeURLError as error:
            return CallError(kind=ErrorClass.INVALID, message=clean(str(error)), scope=Scope.PROVIDER, sent=False)
        except (httpx.TransportError, httpx.DecodingError) as error:
            return self._lost(error)

    def _read_whole(self, outcome: Answer | CallError) -> None:
        self.conclude(outcome)

    def _encoded(self, key: Secret | None) -> HttpRequest | CallError:
        request, settings = self.call.request, self._provider.settings
        if not isinstance(request, EmbeddingRequest):
            return self._provider.adapter.encode(request, key=key, settings=settings)
        if self._embedder is None:
            return refused("type", f"provider {settings.name!r} ({settings.wire}) has no embeddings")
        return self._embedder.encode(request, key=key, settings=settings)

    def cut_short(self) -> Answer | CallError:
        """Return the outcome of a call that was cancelled, from what had come by then."""
        expired = self.deadlines.expired
        partial = ""
        if expired is not None:
            if self._refused():
                return self._refusal()
            if self._decoder is not None:
                # An answer whose finish reason has come is complete and paid for, even if the server never closes the stream.
                sofar = self._decoder.finish(eof=False)
                if isinstance(sofar, Completion):
                    return sofar
        if self._decoder is not None:
            partial = self._decoder.text
        sent = self._sending.started
        if expired is None:
            return CallError(
                kind=ErrorClass.CANCELLED,
                message=self.call.why_cancelled,
                billed=Billed.MAYBE if sent else Billed.NO,
                sent=sent,
                partial=partial,
            )
        billed = Billed.YES if partial else Billed.MAYBE if sent else Billed.NO
        return timed_out(expired, self.call.timeouts, billed=billed, sent=sent, partial=partial)

    def bug(self, error: BaseException) -> CallError:
        """Log a bug of ours, without any key, and return the outcome."""
        trace = redact("".join(traceback.format_exception(error)), self._secrets)
        logger.error("call %r failed inside the engine; this is a bug:\n%s", self.call.key, trace)
        kind = ErrorClass.SERVER if self._reply is None else ErrorClass.MALFORMED
        return CallError(
            kind=kind,
            message=f"internal error {type(error).__name__}; the log has the traceback",
            code="internal",
            billed=Billed.MAYBE if self._sending.started else Billed.NO,
            sent=self._sending.started,
            partial="" if self._decoder is None else self._decoder.text,
        )

    def conclude(self, outcome: Answer | CallError) -> None:
        """End the call with its timings, and with its key scrubbed from whatever the server echoed. Only the first time counts."""
        self.deadlines.stop()
        if self.call.over:
            return
        if isinstance(outcome, Completion):
            first = self.deadlines.first_progress_at
            outcome = replace(
                outcome,
                total_ms=self.deadlines.elapsed_ms(),
                first_token_ms=None if first is None else self.deadlines.elapsed_ms(first),
            )
        elif isinstance(outcome, Embeddings):
            outcome = replace(outcome, total_ms=self.deadlines.elapsed_ms())
        else:
            code = None if outcome.code is None else redact(outcome.code, self._secrets)
            outcome = replace(
                outcome, message=self._attributed(redact(outcome.message, self._secrets), outcome), code=code
            )
        self.call.end(unechoed(outcome, self._secrets), self._limits)

    def _attributed(self, message: str, error: CallError) -> str:
        """Say which provider failed, and where a key that it refused came from."""
        settings = self._provider.settings
        if error.kind is ErrorClass.AUTH and error.sent:
            source = source_now(settings, self._provider.environ)
            message += (
                f" (the key came from {source})" if source else " (no key was sent: name its variable in key_env)"
            )
        return message if message.startswith("provider ") else f"provider {settings.name!r}: {message}"

    async def _read(self, reply: "Reply") -> Answer | CallError:
        adapter, embedder, request = self._provider.adapter, self._embedder, self.call.request
        self._at_ms = self._provider.now_ms()
        self._limits = (embedder or adapter).limits(reply.headers, self._at_ms)
        media = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A server that does not stream answers a stream request with one JSON body, and a proxy with a page.
        if self._streams and 200 <= reply.status < 300 and media not in ("application/json", "text/html"):
            self._decoder = self._open_decoder(reply)
            return await self._read_stream(reply.chunks(), self._decoder)
        cap = MAX_BODY_BYTES if 200 <= reply.status < 300 else MAX_ERROR_BODY_BYTES
        async for chunk in reply.chunks():
            self._body += chunk
            if not chunk.isspace():  # some gateways send white space to keep the connection open
                self.deadlines.touch()
            if len(self._body) > cap:
                if self._refused():
                    break
                return malformed(f"the reply is over {cap} bytes")
        if isinstance(request, EmbeddingRequest) and embedder is not None:
            return embedder.decode_body(
                reply.status, reply.headers, bytes(self._body), at_ms=self._at_ms, inputs=len(request.inputs)
            )
        return adapter.decode_body(reply.status, reply.headers, bytes(self._body), at_ms=self._at_ms)

    def _open_decoder(self, reply: "Reply") -> StreamDecoder:
        return self._provider.adapter.stream_decoder(reply.headers, at_ms=self._at_ms)

    @property
    def _streams(self) -> bool:
        return not isinstance(self.call.request, EmbeddingRequest) and self.call.request.stream

    async def _read_stream(self, chunks: AsyncIterator[bytes], decoder: StreamDecoder) -> Completion | CallError:
        loop = asyncio.get_running_loop()
        lines = line_decoder(decoder.framing)
        outcome: Completion | CallError | None = None
        received, progress = 0, decoder.progress
        drain: asyncio.TimerHandle | None = None
        try:
            async for chunk in chunks:
                received += len(chunk)
                if received > MAX_BODY_BYTES:
                    return outcome or malformed(f"the stream is over {MAX_BODY_BYTES} bytes", partial=decoder.text)
                if outcome is not None:
                    continue
                pieces: list[str] = []
                for event in lines.feed(chunk):
                    pieces += decoder.feed(event)
                if decoder.progress != progress:
                    progress = decoder.progress
                    self.deadlines.touch()
                self.call.add_text(pieces, last=decoder.terminal)
                if decoder.terminal:
                    outcome = decoder.finish(eof=False)
                    self.conclude(outcome)
                    if isinstance(outcome, CallError):
                        return outcome
                    drain = loop.call_later(DRAIN_SECONDS, self.call.cancel)
        except EventTooLargeError as error:
            self.call.add_text([piece for event in error.before for piece in decoder.feed(event)])
            return malformed(str(error), partial=decoder.text)
        finally:
            if drain is not None:
                drain.cancel()
        if outcome is None:
            self.call.add_text([piece for event in lines.close() for piece in decoder.feed(event)])
            outcome = decoder.finish(eof=True)
        return outcome

    def _lost(self, error: Exception) -> Completion | CallError:
        """Return the outcome of a connection that failed."""
        import httpx

        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
            return CallError(kind=ErrorClass.CONNECT, message=clean(detail), scope=Scope.PROVIDER, sent=False)
        if self._reply is None:
            sent = self._sending.started
            own_fault = isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol)
            return CallError(
                kind=ErrorClass.INVALID if own_fault else ErrorClass.CONNECT,
                # A local protocol error quotes the header that it refused.
                message="the request is not valid HTTP"
                if own_fault
                else clean(f"{detail} (before any reply; the call may have been made)"),
                scope=Scope.PROVIDER,
                billed=Billed.MAYBE if sent else Billed.NO,
                sent=sent,
            )
        if self._refused():
            return self._refusal()
        if self._decoder is not None:
            outcome = self._decoder.finish(eof=False)
            return (
                outcome
                if isinstance(outcome, Completion)
                else replace(outcome, message=clean(f"{outcome.message} ({detail})"))
            )
        return CallError(
            kind=ErrorClass.TRUNCATED,
            message=clean(f"the reply broke off ({detail})"),
            http=self._reply.status,
            billed=Billed.MAYBE,
        )

    def _refused(self) -> bool:
        return self._reply is not None and not 200 <= self._reply.status < 300

    def _refusal(self) -> CallError:
        """Return what an error status means when its body did not come whole: the status alone says most of it."""
        assert self._reply is not None
        return self._provider.adapter.classify(
            self._reply.status, self._reply.headers, bytes(self._body), at_ms=self._at_ms
        )
