"""A call that its provider goes on with when the connection is lost: taken up again where it broke off, never asked for twice.

Within a call a lost connection is followed up at once, a few times; the deadlines of the call go on counting meanwhile. A call that still
cannot be followed fails as `resumable`: its handle is in the ledger, and the next attempt takes it up from its beginning, so that what readers
see of it is whole. Only what the provider has ended, or has forgotten (`handle_gone`), is asked for again.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from .adapter import HttpRequest, StreamDecoder
from .call import Conversation, Provider
from .key_sources import key_for
from .keys import Secret
from .model import Answer, Billed, CallError, Completion, ErrorClass, Scope
from .resume import HANDLE_GONE, Handle, Resumable, ResumableDecoder
from .sse import SSEEvent
from .transport import Sending

if TYPE_CHECKING:
    from .http_client import Reply

logger = logging.getLogger(__name__)

FOLLOWS = 5
"""How often a lost connection is followed up in one call, without a further event in between."""
FIRST_WAIT = 0.1
"""Seconds before the second try of these; each further one waits twice as long."""
CANCEL_SECONDS = 5.0

_LOST = frozenset(
    {
        ErrorClass.CONNECT,
        ErrorClass.TRUNCATED,
        ErrorClass.SERVER,
        ErrorClass.OVERLOADED,
        ErrorClass.RATE,
        ErrorClass.TIMEOUT,
    }
)
"""How a follow-up may fail that is worth another."""


class BackgroundConversation(Conversation):
    """One call, over as many connections as it takes."""

    _handle: Handle | None = None
    _key: Secret | None = None
    _looks = False
    _broke = False

    async def _ask(self, key: Secret | None) -> Answer | CallError:
        self._key, self._handle = key, self.call.handle
        if not isinstance(self._provider.adapter, Resumable) or not self._streams:
            return await super()._ask(key)
        if self._handle is None:
            outcome = await super()._ask(key)
        else:
            outcome = await self._follow(self._handle)
        position, tries = self._position, 0
        while self._lost_sight(outcome) and tries < FOLLOWS and self._handle is not None and self._goes_on_from_here:
            if tries:
                await asyncio.sleep(FIRST_WAIT * 2 ** (tries - 1))
            tries += 1
            outcome = await self._follow(self._handle)
            if self._position != position:
                position, tries = self._position, 0
            elif not self._broke and isinstance(outcome, CallError) and outcome.kind is ErrorClass.TRUNCATED:
                break  # a stream that ends at once and in good order has nothing more to tell
        if self._lost_sight(outcome) and self._handle is not None:
            outcome = await self._look(self._handle)
        if isinstance(outcome, CallError) and self._handle is not None:
            outcome = self._judged(outcome)
        return outcome

    def cut_short(self) -> Answer | CallError:
        """Return the outcome of a call that was cancelled; what the provider goes on with is ended there, or left for another attempt."""
        outcome = super().cut_short()
        if not isinstance(outcome, CallError) or self._handle is None or self._ended:
            return outcome
        aborted = self.deadlines.expired is None and not self.call.keep
        if aborted:
            self.unfinished = self._cancel
        return replace(
            outcome,
            sent=True,
            billed=Billed.MAYBE,
            resumable=not aborted,
            code=HANDLE_GONE if aborted else outcome.code,
        )

    @property
    def _ended(self) -> bool:
        return self._decoder is not None and self._decoder.terminal

    @property
    def _position(self) -> int | None:
        return None if self._decoder is None else cast("_Watched", self._decoder).position

    @property
    def _goes_on_from_here(self) -> bool:
        """Whether following says only what is new: events without numbers would all be told, and read, again."""
        return self._position is not None or self._decoder is None or not self._decoder.progress

    def _read_whole(self, outcome: Answer | CallError) -> None:
        if self._looks and isinstance(outcome, Completion):
            # Readers have had the beginning of it, unless the two differ, which no provider should do.
            sofar = "" if self._decoder is None else self._decoder.text
            self.call.add_text([outcome.text.removeprefix(sofar)])
        # What broke off is followed up before anybody is told.
        if not isinstance(outcome, CallError) or self._handle is None:
            self.conclude(outcome)

    def _open_decoder(self, reply: "Reply") -> StreamDecoder:
        if self._decoder is None:
            decoder = cast("ResumableDecoder", super()._open_decoder(reply))
            return _Watched(decoder, self._found)
        return self._decoder

    def _found(self, handle: Handle) -> None:
        if self._handle is None:
            self._handle = handle
            self.call.hold(handle)

    async def _follow(self, handle: Handle) -> Answer | CallError:
        adapter = cast("Resumable", self._provider.adapter)
        return await self._another(
            adapter.follow(handle, after=self._position, key=self._key, settings=self._provider.settings)
        )

    async def _look(self, handle: Handle) -> Answer | CallError:
        """Ask how the call stands, where following it does not say: it may have ended without anybody's having heard."""
        adapter = cast("Resumable", self._provider.adapter)
        self._looks = True
        return await self._another(adapter.look(handle, key=self._key, settings=self._provider.settings))

    async def _another(self, built: HttpRequest) -> Answer | CallError:
        """Send a further request about the call."""
        limits, self._reply, self._broke = self._limits, None, False
        self._body.clear()
        self._sending = Sending()
        outcome = await self._exchange(built)
        self._limits = self._limits or limits
        return outcome

    def _lost(self, error: Exception) -> Completion | CallError:
        self._broke = True
        return super()._lost(error)

    def _lost_sight(self, outcome: Answer | CallError) -> bool:
        """Whether the call goes on at the provider and only our view of it is lost."""
        if not isinstance(outcome, CallError) or self._ended or outcome.code == HANDLE_GONE:
            return False
        return outcome.kind in _LOST

    def _judged(self, error: CallError) -> CallError:
        """Say of a failure whether the call may be taken up again."""
        partial = "" if self._decoder is None else self._decoder.text
        gone = error.http == 404 or error.code == HANDLE_GONE
        if gone:
            return replace(
                error,
                kind=ErrorClass.TRUNCATED,
                message=f"the provider does not go on with the call: {error.message}",
                code=HANDLE_GONE,
                scope=Scope.REQUEST,
                billed=Billed.MAYBE,
                partial=partial,
                sent=True,
                retryable=None,
            )
        told = self._looks and self._reply is not None and error.http is None
        if self._ended or (told and error.kind not in (ErrorClass.TRUNCATED, ErrorClass.MALFORMED)):
            return error
        return replace(error, billed=Billed.MAYBE, partial=partial, sent=True, resumable=True)

    async def _cancel(self) -> None:
        assert self._handle is not None
        await end_at_provider(self._provider, self._handle)


async def end_at_provider(provider: Provider, handle: Handle) -> None:
    """End a call that goes on. What it has made by then is paid for; the rest is not. A failure is logged."""
    settings, adapter = provider.settings, provider.adapter
    if not isinstance(adapter, Resumable):
        return
    try:
        key = await key_for(settings, provider.environ)
        async with asyncio.timeout(CANCEL_SECONDS):
            reply = await provider.client.send(adapter.cancel(handle, key=key, settings=settings), Sending())
            await reply.close()
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - that it runs on costs money, but nothing else
        logger.warning(
            "could not end a call at provider %r (%s); it may run on there and be billed",
            settings.name,
            type(error).__name__,
        )


class _Watched:
    """A reader of which the handle is told as soon as it is known."""

    def __init__(self, decoder: ResumableDecoder, found: Callable[[Handle], None]) -> None:
        self._decoder = decoder
        self._found = found
        self._told = False
        self.framing = decoder.framing

    @property
    def terminal(self) -> bool:
        return self._decoder.terminal

    @property
    def progress(self) -> int:
        return self._decoder.progress

    @property
    def text(self) -> str:
        return self._decoder.text

    @property
    def position(self) -> int | None:
        return self._decoder.position

    def feed(self, event: SSEEvent) -> list[str]:
        pieces = self._decoder.feed(event)
        if not self._told and self._decoder.handle is not None:
            self._told = True
            self._found(self._decoder.handle)
        return pieces

    def finish(self, *, eof: bool) -> Completion | CallError:
        return self._decoder.finish(eof=eof)
