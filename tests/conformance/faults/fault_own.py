"""A host's own provider, and the ways in which its class may go wrong."""

import asyncio
from array import array
from collections.abc import Callable
from typing import Any

import fault_bodies as wires

from callboard import Completion
from callboard.actors.providers.model import Embeddings, Finish, Usage
from callboard.actors.providers.own import ProviderFailed

DONE = Completion(text="", finish=Finish.STOP, usage=Usage(input_uncached=12, output_visible=5))
VECTORS = (array("f", [0.5, -0.25]), array("f", [0.125, 1.0]))
TEXTS = {"inputs": ["one text", "and another"]}


class Misbehaving:
    """Plays one fault in `complete`, or in `embed`, and counts how often it was asked."""

    def __init__(self, fault, good) -> None:
        self.calls = 0
        self._fault, self._good = fault, good
        if fault.job == "embed" and fault.act is not None:
            self.embed = self._act

    def complete(self, request: Any) -> Any:
        return self._act(request)

    def _act(self, request: Any) -> Any:
        self.calls += 1
        return (self._good if self._fault.once and self.calls > 1 else self._fault.act)(request)


async def answers(request):
    yield wires.TEXT[:9]
    yield wires.TEXT[9:]
    yield DONE


def whole(result: Any, says: Any) -> bool:
    if "embeddings" in result:
        return bool(result["embeddings"] == [list(vector) for vector in VECTORS])
    return bool(result["text"] == says)


def yields(*pieces: Any) -> Callable[[Any], Any]:
    """Give these, one after the other, and end."""

    async def act(request):
        for piece in pieces:
            yield piece

    return act


def ends(**fields: Any) -> Callable[[Any], Any]:
    """Text, and a Completion that is not as it should be. A dataclass checks no types."""
    return yields(wires.TEXT, Completion(**{"text": "", "finish": Finish.STOP, "usage": DONE.usage, **fields}))


def raises(make: Callable[[], BaseException], *pieces: Any) -> Callable[[Any], Any]:
    """Give these pieces, and raise."""

    async def act(request):
        for piece in pieces:
            yield piece
        raise make()

    return act


def fails(kind: str, *pieces: Any, **more: Any) -> Callable[[Any], Any]:
    return raises(lambda: ProviderFailed(kind, "as I said", **more), *pieces)


def gives(value: Any) -> Callable[[Any], Any]:
    """A `complete` that returns something else than an async iterator, or an `embed` that is no coroutine."""
    return lambda request: value


def embeds(vectors: Any, **fields: Any) -> Callable[[Any], Any]:
    async def act(request):
        return (
            Embeddings(vectors=vectors, usage=Usage(input_uncached=7))
            if not fields
            else Embeddings(vectors=vectors, **fields)
        )

    return act


async def never(request):
    await asyncio.Event().wait()
    yield DONE


async def stands_still(request):
    yield "S"
    await asyncio.Event().wait()


async def trickles(request):
    while True:
        yield "S"
        await asyncio.sleep(0.02)  # the pace of an answer that never ends


async def empty_for_ever(request):
    while True:
        yield ""


async def will_not_be_cancelled(request):
    yield "S"
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        yield "and on"
        yield DONE


async def hangs_when_cancelled(request):
    yield "S"
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def raises_when_cancelled(request):
    yield "S"
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("while it was tidying up")


async def hangs_after_its_answer(request):
    try:
        yield wires.TEXT
        yield DONE
    finally:
        await asyncio.Event().wait()


async def raises_after_its_answer(request):
    try:
        yield wires.TEXT
        yield DONE
    finally:
        raise ValueError("while it was tidying up")


async def cancelled_within(request):
    """A task of its own was cancelled, by nobody of ours."""
    yield "S"
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


class Unspeakable(Exception):  # noqa: N818 - its name is what matters here
    """One whose words cannot be had."""

    def __str__(self) -> str:
        raise ValueError("nothing to be said")


class OfItsOwn(BaseException):
    """One that no `except Exception` sees."""


class Iterator:
    """An async iterator that is no generator: it has no `aclose`."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = list(pieces)

    def __aiter__(self) -> "Iterator":
        return self

    async def __anext__(self) -> Any:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)
