"""A host's own provider: a class of a few lines that gets limits, retries, streaming, the ledger, costs and budgets like any other.

    class Echo:
        async def complete(self, request):
            for word in request.messages[-1].text.split():
                yield word + " "
            yield Completion(text="", finish=Finish.STOP, usage=Usage(input_uncached=3, output_visible=3))

It is named in the configuration (`wire = "own"`, `factory = "package.module:Echo"`), or given to `Supervisor(providers={"mine": Echo()})`.
What it promises is what the conformance suite (`tests/conformance/test_own_provider.py`) asks of every provider.
"""

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Protocol

from .call import Call
from .deadlines import Deadlines, timed_out
from .engine import CallEngine, wall_ms
from .errors import clean, malformed, refused
from .model import (
    Answer,
    Billed,
    CallError,
    Completion,
    EmbeddingRequest,
    Embeddings,
    ErrorClass,
    Request,
    Scope,
)
from .settings import ProviderLoadError, ProviderSettings

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 64 * 1024 * 1024


class OwnProvider(Protocol):
    """What a host's provider does. Its methods run on an event loop of the provider's own, and must not block it.

    Optional: `async def embed(self, request: EmbeddingRequest) -> Embeddings`, for jobs of type `embed`; `async def close(self)`, called when
    the company ends or the provider's actor is restarted.
    """

    def complete(self, request: Request) -> AsyncIterator[str | Completion]:
        """Answer a request: pieces of text as they come (an empty one says only that there is progress), and last a `Completion`.

        The Completion's `finish`, `usage`, `model` and `tool_calls` are taken as they are; its `text`, if it is empty, is the pieces joined.
        An answer without it is TRUNCATED. Raise `ProviderFailed` to say how a call failed; what else is raised is a SERVER failure that may
        have been billed. When the call is aborted or out of time, `asyncio.CancelledError` is raised inside.
        """


_SCOPES = {
    ErrorClass.AUTH: Scope.CREDENTIAL,
    ErrorClass.QUOTA: Scope.CREDENTIAL,
    ErrorClass.RATE: Scope.MODEL,
    ErrorClass.OVERLOADED: Scope.MODEL,
}


class ProviderFailed(Exception):  # noqa: N818 - what happened, in the words of CallFailed
    """How a call of a host's own provider failed: the class decides what is done about it, as for any other provider.

    `retry_after` in seconds. `scope` is how far it reaches: by default the key for what concerns money and keys, the model for limits.
    `billed`: whether it may appear on a bill.
    """

    def __init__(
        self,
        kind: ErrorClass | str,
        message: str,
        *,
        retry_after: float | None = None,
        scope: Scope | str | None = None,
        billed: Billed | str = Billed.NO,
        code: str | None = None,
    ) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = ErrorClass(kind)
        self.scope = Scope(scope) if scope is not None else _SCOPES.get(self.kind, Scope.REQUEST)
        self.message = message
        self.retry_after = retry_after
        self.billed = Billed(billed)
        self.code = code


def load_own(settings: ProviderSettings) -> OwnProvider:
    """Make the provider that `factory` names: a class or function called without arguments, or an object. Raises ProviderLoadError."""
    where, path = f"providers.{settings.name}.factory", settings.factory or ""
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        own = found if not isinstance(found, type) and hasattr(found, "complete") else found()
    except Exception as error:
        raise ProviderLoadError(f"{where}: {path!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(getattr(own, "complete", None)):
        raise ProviderLoadError(
            f"{where}: {path!r} has no method complete(request); see callboard.actors.providers.own"
        )
    return own  # type: ignore[no-any-return]  # looked at above


class OwnEngine(CallEngine):
    """The call engine of a host's own provider: the same deadlines, aborts and single end for every call; no connection of ours."""

    def __init__(
        self,
        settings: ProviderSettings,
        own: OwnProvider,
        *,
        environ: Mapping[str, str] = os.environ,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        super().__init__(settings, environ=environ, now_ms=now_ms)
        self._own = own

    def _open(self) -> None:
        """Nothing: the provider opens what it needs when it is first called."""

    async def _close(self) -> None:
        close = getattr(self._own, "close", None)
        if close is not None:
            try:
                await close()
            except Exception:  # the host's code; its bug must not keep the company from ending
                logger.exception("provider %r failed to close", self.settings.name)

    async def _tend(self) -> None:
        """Nothing to be done."""

    def _performance(self, call: Call) -> Coroutine[Any, Any, None]:
        return _Exchange(call, self._own, self.settings).perform()


class _Exchange:
    """One call of a host's provider. Loop thread only."""

    def __init__(self, call: Call, own: OwnProvider, settings: ProviderSettings) -> None:
        self._call = call
        self._own = own
        self._settings = settings
        self._pieces: list[str] = []

    async def perform(self) -> None:
        """Make the call and end it, whatever the host's code does."""
        self._deadlines = Deadlines(self._call.timeouts, self._call.cancel)
        try:
            outcome = await self._run()
        except asyncio.CancelledError:
            outcome = self._cut_short()
        except ProviderFailed as failure:
            outcome = self._failed(failure)
        except BaseException as error:
            logger.exception("provider %r failed with an exception that is no ProviderFailed", self._settings.name)
            outcome = CallError(
                kind=ErrorClass.SERVER,
                message=clean(f"provider {self._settings.name!r} raised {type(error).__name__}: {error}"),
                billed=Billed.MAYBE,
                partial=self._text,
            )
        self._deadlines.stop()
        if isinstance(outcome, Completion):
            first = self._deadlines.first_progress_at
            outcome = replace(
                outcome,
                total_ms=self._deadlines.elapsed_ms(),
                first_token_ms=None if first is None else self._deadlines.elapsed_ms(first),
            )
        elif isinstance(outcome, Embeddings):
            outcome = replace(outcome, total_ms=self._deadlines.elapsed_ms())
        self._call.end(outcome, None)

    @property
    def _text(self) -> str:
        return "".join(self._pieces)

    async def _run(self) -> Answer | CallError:
        request = self._call.request
        if isinstance(request, EmbeddingRequest):
            return await self._embed(request)
        size = 0
        answers = self._own.complete(request)
        try:
            async for piece in answers:
                self._deadlines.touch()
                if isinstance(piece, Completion):
                    return piece if piece.text else replace(piece, text=self._text)
                if not isinstance(piece, str):
                    return malformed(  # type: ignore[unreachable]  # for hosts that check no types
                        f"provider {self._settings.name!r} gave {type(piece).__name__}, not text or a Completion",
                        partial=self._text,
                    )
                size += len(piece)
                if size > MAX_ANSWER_CHARS:
                    return malformed(f"the answer is over {MAX_ANSWER_CHARS} characters", partial=self._text)
                if piece:
                    self._pieces.append(piece)
                    self._call.add_text([piece])
        finally:
            close = getattr(answers, "aclose", None)
            if close is not None:
                await close()
        return CallError(
            kind=ErrorClass.TRUNCATED,
            message=f"provider {self._settings.name!r} ended without a Completion: the answer may not be whole",
            billed=Billed.YES if self._pieces else Billed.MAYBE,
            partial=self._text,
        )

    async def _embed(self, request: EmbeddingRequest) -> Embeddings | CallError:
        embed = getattr(self._own, "embed", None)
        if embed is None:
            return refused("type", f"provider {self._settings.name!r} has no embeddings: its class has no method embed")
        found = await embed(request)
        if not isinstance(found, Embeddings) or len(found.vectors) != len(request.inputs):
            return malformed(
                f"provider {self._settings.name!r} gave no vector for each of {len(request.inputs)} inputs"
            )
        return found

    def _failed(self, failure: ProviderFailed) -> CallError:
        return CallError(
            kind=failure.kind,
            message=clean(f"provider {self._settings.name!r}: {failure.message}"),
            code=None if failure.code is None else clean(failure.code)[:200],
            retry_after=failure.retry_after,
            scope=failure.scope,
            billed=failure.billed,
            partial=self._text,
        )

    def _cut_short(self) -> CallError:
        billed = Billed.YES if self._pieces else Billed.MAYBE
        expired = self._deadlines.expired
        if expired is None:
            why = self._call.why_cancelled
            return CallError(kind=ErrorClass.CANCELLED, message=why, billed=Billed.MAYBE, partial=self._text)
        return timed_out(expired, self._call.timeouts, billed=billed, sent=True, partial=self._text)
