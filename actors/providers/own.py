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
import contextlib
import importlib
import json
import logging
import math
import os
from array import array
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
    Finish,
    Request,
    Scope,
    Usage,
)
from .parts import Opaque, ToolCall
from .settings import ProviderLoadError, ProviderSettings
from .vectors import all_finite

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 64 * 1024 * 1024
MAX_TOKENS = 10**12
MAX_WAIT = 86_400.0
"""Seconds: the longest wait that any provider is granted."""
TIDY_SECONDS = 1.0
"""How long a provider's code may take to end once its call is cancelled."""
PIECES_AT_ONCE = 64


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
        self._ended = False  # by us: aborted, or out of time

    async def perform(self) -> None:
        """Make the call and end it, whatever the host's code does, also if that code will not end."""
        self._deadlines = Deadlines(self._call.timeouts, self._call.cancel)
        work = asyncio.create_task(self._outcome())
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            self._ended = True
            work.cancel()
            await self._leave(work)
            outcome: Answer | CallError = self._cut_short()
        else:
            outcome = work.result()
        self._conclude(outcome)

    def _conclude(self, outcome: Answer | CallError) -> None:
        """End the call; only the first time counts."""
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

    async def _leave(self, work: "asyncio.Task[Answer | CallError]") -> None:
        """Give the host's code a moment to tidy up; what does not end is left behind, and the call ends without it."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work}, timeout=TIDY_SECONDS)
        if not work.done():
            logger.error(
                "provider %r goes on with a call that was cancelled: its code must let asyncio.CancelledError pass",
                self._settings.name,
            )

    async def _outcome(self) -> Answer | CallError:
        """Run the host's code. Raises nothing: in a task, SystemExit and KeyboardInterrupt would end the loop and with it every call."""
        try:
            return await self._run()
        except ProviderFailed as failure:
            return self._failed(failure)
        except BaseException as error:
            if self._ended:
                return self._cut_short()
            # CancelledError too: of a task of its own, and not by us. Were it taken for an abort, the job would go back to the board uncounted.
            logger.exception("provider %r failed with an exception that is no ProviderFailed", self._settings.name)
            return self._server_failure(f"raised {type(error).__name__}: {_text_of(error)}")

    @property
    def _text(self) -> str:
        return "".join(self._pieces)

    async def _run(self) -> Answer | CallError:
        request = self._call.request
        if isinstance(request, EmbeddingRequest):
            return await self._embed(request)
        size = count = 0
        answers: Any = self._own.complete(request)
        if not hasattr(answers, "__aiter__"):
            if asyncio.iscoroutine(answers):
                answers.close()
            raise TypeError("complete(request) must be an async generator: `async def` with `yield`")
        try:
            async for piece in answers:
                if self._ended:
                    raise asyncio.CancelledError
                self._deadlines.touch()
                if isinstance(piece, Completion):
                    whole = self._whole(piece)
                    self._conclude(
                        whole
                    )  # now: what goes wrong while the host's code tidies up must not cost an answer that is here
                    return whole
                if not isinstance(piece, str):
                    return malformed(
                        f"provider {self._settings.name!r} gave {type(piece).__name__}, not text or a Completion",
                        partial=self._text,
                    )
                size += len(piece)
                if size > MAX_ANSWER_CHARS:
                    return malformed(f"the answer is over {MAX_ANSWER_CHARS} characters", partial=self._text)
                if piece:
                    self._pieces.append(piece)
                    self._call.add_text([piece])
                count += 1
                if count % PIECES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # it may have all of them at hand, and deadlines and aborts need a turn
        finally:
            close = getattr(answers, "aclose", None)
            if close is not None:
                async with asyncio.timeout(TIDY_SECONDS):
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
        wrong = wrong_vectors(found, len(request.inputs))
        return found if wrong is None else malformed(f"provider {self._settings.name!r} gave {wrong}")

    def _whole(self, found: Completion) -> Completion | CallError:
        """The answer, with the pieces as its text if it has none; or what is wrong with it."""
        wrong = wrong_completion(found)
        if wrong is not None:
            return malformed(
                f"provider {self._settings.name!r} gave a Completion that is none: {wrong}", partial=self._text
            )
        return replace(found, text=found.text or self._text, finish=Finish(found.finish))

    def _server_failure(self, what: str) -> CallError:
        return CallError(
            kind=ErrorClass.SERVER,
            message=clean(f"provider {self._settings.name!r} {what}"),
            billed=Billed.MAYBE,
            partial=self._text,
        )

    def _failed(self, failure: ProviderFailed) -> CallError:
        if failure.kind is ErrorClass.CANCELLED:
            # That is for us to say: its job would go back to the board, again and again.
            return self._server_failure(f"said by itself that the call was cancelled: {failure.message}")
        return CallError(
            kind=failure.kind,
            message=clean(f"provider {self._settings.name!r}: {failure.message}"),
            code=None if failure.code is None else clean(failure.code)[:200],
            retry_after=_seconds(failure.retry_after),
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


def wrong_completion(found: Any) -> str | None:
    """Return what is wrong with a host's answer, in the words of its author, None if it can be stored and counted. Pure.

    A dataclass checks no types, and what is wrong would else be found where the answer is booked, at the cost of the actor that does it.
    """
    if not isinstance(found.text, str):
        return f"text is {type(found.text).__name__}"
    if len(found.text) > MAX_ANSWER_CHARS:
        return f"text is over {MAX_ANSWER_CHARS} characters"
    for name in ("raw_finish", "model", "response_id", "request_id"):
        value = getattr(found, name)
        if value is not None and not isinstance(value, str):
            return f"{name} is {type(value).__name__}, not text"
    if found.finish not in tuple(Finish):
        return f"finish is {found.finish!r:.60}; it is one of {', '.join(Finish)}"
    for name, kind in (("tool_calls", ToolCall), ("opaque", Opaque)):
        parts = getattr(found, name)
        if not isinstance(parts, tuple) or not all(isinstance(part, kind) for part in parts):
            return f"{name} is not a tuple of {kind.__name__}"
    if not all(isinstance(call.id, str) and isinstance(call.name, str) for call in found.tool_calls):
        return "a tool call's id or name is not text"
    if not all(isinstance(call.arguments, dict) for call in found.tool_calls):
        return "a tool call's arguments are no dictionary"
    wrong = _wrong_usage(found.usage)
    if wrong is not None:
        return wrong
    try:
        json.dumps(replace(found, text="").to_json(), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"it has no JSON form: {error}"
    return None


def wrong_vectors(found: Any, inputs: int) -> str | None:
    """Return what is wrong with a host's vectors, None if there is nothing. Pure."""
    if not isinstance(found, Embeddings):
        return f"{type(found).__name__}, not Embeddings"
    if not isinstance(found.vectors, tuple) or len(found.vectors) != inputs:
        return f"no vector for each of {inputs} inputs"
    for vector in found.vectors:
        if not isinstance(vector, array) or vector.typecode != "f" or not vector:
            return "a vector that is not an array('f') of at least one number"
        if not all_finite(vector):
            return "a vector with what is no finite number"
    if len({len(vector) for vector in found.vectors}) > 1:
        return "vectors of different lengths"
    for name in ("model", "request_id"):
        value = getattr(found, name)
        if value is not None and not isinstance(value, str):
            return f"Embeddings whose {name} is {type(value).__name__}, not text"
    wrong = _wrong_usage(found.usage)
    return None if wrong is None else f"Embeddings that are none: {wrong}"


def _wrong_usage(usage: Any) -> str | None:
    if usage is None:
        return None
    if not isinstance(usage, Usage):
        return f"usage is {type(usage).__name__}, not Usage"
    for name in Usage.__slots__:
        count = getattr(usage, name)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_TOKENS:
            return f"usage.{name} is {count!r:.60}, not a whole number of tokens"
    return None


def _seconds(wait: Any) -> float | None:
    """A wait that a host named, clamped to a day; None for what is none."""
    if not isinstance(wait, int | float) or isinstance(wait, bool) or math.isnan(wait) or wait < 0:
        return None
    return min(float(wait), MAX_WAIT)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the host's code again
        return "it cannot say what (its __str__ failed)"
