"""The table of faults of a host's own provider: what its class may do wrong."""

import asyncio
import threading
from array import array
from dataclasses import replace

import fault_bodies as wires
from fault_kinds import ANSWERED, FIRST_TOKEN, MAX_BODY, NO_PROGRESS, SOON, End, Fault, failed, held, refused
from fault_own import (
    DONE,
    TEXTS,
    VECTORS,
    Iterator,
    OfItsOwn,
    Unspeakable,
    answers,
    cancelled_within,
    embeds,
    empty_for_ever,
    ends,
    fails,
    gives,
    hangs_after_its_answer,
    hangs_when_cancelled,
    never,
    raises,
    raises_after_its_answer,
    raises_when_cancelled,
    stands_still,
    trickles,
    will_not_be_cancelled,
    yields,
)

from callboard import Completion
from callboard.actors.providers.model import Finish, Usage

ONLY = ("own",)
BUG = failed("server", 2, "maybe")
"""An exception that says nothing of what it means for the call."""
WRONG = failed("malformed", 2, "yes")
EMPTY_WRONG = failed("malformed", 2, "maybe")
EMBEDDED = End("completed", "", 1)


def row(name, group, does, end, act, **more):
    return Fault(name, group, does, end, act=act, **{"only": ONLY, **more})


async def _no_coroutine(request):
    return DONE


def _complete_raises(request):
    raise ValueError(f"before the first step, for {type(request).__name__}")


async def _blocks(request):
    threading.Event().wait(0.3)
    yield wires.TEXT
    yield DONE


async def _no_vectors(request):
    return None


async def _embed_raises(request):
    raise ValueError("a bug")


async def _embed_hangs(request):
    await asyncio.Event().wait()


SAYS = [
    row(
        "rate",
        "It says how it failed",
        '`ProviderFailed("rate", …, retry_after=30)`',
        held("rate", 30, "model"),
        fails("rate", retry_after=30),
    ),
    row(
        "rate-once",
        "It says how it failed",
        '`ProviderFailed("rate", …)`, once',
        replace(ANSWERED, requests=2),
        fails("rate"),
        once=True,
    ),
    row(
        "rate-absurd",
        "It says how it failed",
        "… with `retry_after=1e300`",
        held("rate", 86400, "model"),
        fails("rate", retry_after=1e300),
    ),
    row(
        "rate-nan",
        "It says how it failed",
        "… with a `retry_after` that is no number of seconds, once",
        replace(ANSWERED, requests=2),
        fails("rate", retry_after=float("nan")),
        once=True,
    ),
    row(
        "rate-text",
        "It says how it failed",
        '… with `retry_after="soon"`, once',
        replace(ANSWERED, requests=2),
        fails("rate", retry_after="soon"),
        once=True,
    ),
    row("quota", "It says how it failed", '`ProviderFailed("quota", …)`', held("quota", 15), fails("quota")),
    row("auth", "It says how it failed", '`ProviderFailed("auth", …)`', held("auth", 15), fails("auth")),
    *(
        row(kind, "It says how it failed", f'`ProviderFailed("{kind}", …)`', refused(kind), fails(kind))
        for kind in ("not_found", "invalid", "context", "too_large")
    ),
    *(
        row(
            kind,
            "It says how it failed",
            f'`ProviderFailed("{kind}", …)`',
            failed(kind, scope="model" if kind == "overloaded" else "request"),
            fails(kind),
        )
        for kind in ("overloaded", "server", "connect", "timeout", "truncated", "malformed", "conflict")
    ),
    row(
        "said-provider",
        "It says how it failed",
        '… with `scope="provider"`',
        failed("server", scope="provider"),
        fails("server", scope="provider"),
    ),
    row(
        "said-billed",
        "It says how it failed",
        '… with `billed="yes"`, after text',
        failed("server", 2, "yes"),
        fails("server", "S", billed="yes"),
    ),
    row(
        "said-maybe-park",
        "It says how it failed",
        '… with `billed="maybe"`, and the job says `on_unknown = "park"`',
        End("failed", "unknown_outcome", 1, 1, "maybe", "request"),
        fails("server", billed="maybe"),
        options={"on_unknown": "park"},
    ),
    row(
        "cancelled",
        "It says how it failed",
        '`ProviderFailed("cancelled", …)`, which is not for it to say',
        BUG,
        fails("cancelled"),
    ),
    row(
        "of-tomorrow",
        "It says how it failed",
        "`ProviderFailed` of a class that does not exist",
        BUG,
        fails("of_tomorrow"),
    ),
]
RAISES = [
    row("value-error", "It raises", "`ValueError` before any text", BUG, raises(lambda: ValueError("a bug"))),
    row("value-error-text", "It raises", "`ValueError` after text", BUG, raises(lambda: ValueError("a bug"), "S")),
    row("os-error", "It raises", "`ConnectionResetError`", BUG, raises(lambda: ConnectionResetError(104, "reset"))),
    row("timeout-error", "It raises", "`TimeoutError`", BUG, raises(TimeoutError)),
    row("stop", "It raises", "`StopIteration`", BUG, raises(StopIteration)),
    row("stop-async", "It raises", "`StopAsyncIteration`", BUG, raises(StopAsyncIteration)),
    row("recursion", "It raises", "`RecursionError`", BUG, raises(RecursionError)),
    row("memory", "It raises", "`MemoryError`", BUG, raises(MemoryError)),
    row(
        "group",
        "It raises",
        "`ExceptionGroup`",
        BUG,
        raises(lambda: ExceptionGroup("two", [ValueError("a"), KeyError("b")])),
    ),
    row("base", "It raises", "a `BaseException` of its own", BUG, raises(OfItsOwn)),
    row("exit", "It raises", "`SystemExit`", BUG, raises(lambda: SystemExit(3), "S")),
    row("interrupt", "It raises", "`KeyboardInterrupt`", BUG, raises(KeyboardInterrupt)),
    row("generator-exit", "It raises", "`GeneratorExit`", BUG, raises(GeneratorExit)),
    row(
        "cancelled-error",
        "It raises",
        "`asyncio.CancelledError`, though nobody cancelled it",
        BUG,
        raises(asyncio.CancelledError),
    ),
    row("cancelled-within", "It raises", "… because a task of its own was cancelled", BUG, cancelled_within),
    row("unspeakable", "It raises", "an exception whose `__str__` raises", BUG, raises(Unspeakable)),
    row(
        "long-message", "It raises", "an exception with 1 MB of text", BUG, raises(lambda: ValueError("x" * 1_000_000))
    ),
    row(
        "raise-once",
        "It raises",
        "`ValueError`, once",
        replace(ANSWERED, requests=2, attempts=1),
        raises(lambda: ValueError("a bug")),
        once=True,
    ),
    row(
        "raise-park",
        "It raises",
        '`ValueError`, and the job says `on_unknown = "park"`',
        End("failed", "unknown_outcome", 1, 1, "maybe", "request"),
        raises(lambda: ValueError("a bug")),
        options={"on_unknown": "park"},
    ),
    row("raise-at-once", "It raises", "`complete` raises before it gives an iterator", BUG, _complete_raises),
]
RETURNS = [
    row("good", "It gives", "none: text, and a Completion", ANSWERED, answers),
    row(
        "iterator", "It gives", "an async iterator that is no generator", ANSWERED, lambda _: Iterator(wires.TEXT, DONE)
    ),
    row("returns-none", "It gives", "`None` for an iterator", BUG, gives(None)),
    row("returns-list", "It gives", "a list for an async iterator", BUG, lambda _: [wires.TEXT, DONE]),
    row(
        "returns-generator",
        "It gives",
        "a generator that is not async",
        BUG,
        lambda _: (piece for piece in (wires.TEXT, DONE)),
    ),
    row("returns-coroutine", "It gives", "a coroutine: the `yield` was forgotten", BUG, _no_coroutine),
    row("nothing", "It gives", "nothing", failed("truncated", 2, "maybe"), yields()),
    row("no-completion", "It gives", "text, and no Completion", failed("truncated", 2, "yes"), yields(wires.TEXT)),
    row(
        "no-completion-once",
        "It gives",
        "… once",
        replace(ANSWERED, requests=2, attempts=1),
        yields(wires.TEXT),
        once=True,
    ),
    row("empty-pieces", "It gives", "empty pieces among others", ANSWERED, yields("", wires.TEXT, "", DONE)),
    row(
        "only-completion",
        "It gives",
        "the text in the Completion only",
        ANSWERED,
        yields(Completion(text=wires.TEXT, finish=Finish.STOP, usage=DONE.usage)),
    ),
    row(
        "other-text",
        "It gives",
        "another text in the Completion than in pieces: the Completion's counts",
        ANSWERED,
        yields("Other", Completion(text=wires.TEXT, finish=Finish.STOP, usage=DONE.usage)),
    ),
    row("text-after", "It gives", "text after the Completion", ANSWERED, yields(wires.TEXT, DONE, "more", DONE)),
    row("number", "It gives", "a number for text", WRONG, yields("S", 3)),
    row("none-piece", "It gives", "`None` for text", EMPTY_WRONG, yields(None)),
    row("bytes", "It gives", "bytes for text", EMPTY_WRONG, yields(b"S", DONE)),
    row("dictionary", "It gives", "a dictionary for a Completion", WRONG, yields("S", {"text": "", "finish": "stop"})),
    row("class", "It gives", "the class `Completion`", WRONG, yields("S", Completion)),
    row("nul", "It gives", "U+0000 in its text", ANSWERED, yields("a\0b", DONE), says="a\0b"),
    row("surrogate", "It gives", "half a surrogate in its text", ANSWERED, yields("a\ud800b", DONE), says="a\ud800b"),
    row("long-piece", "It gives", "a piece over 64 MB", EMPTY_WRONG, yields("x" * (MAX_BODY + 1), DONE)),
    row("long-text", "It gives", "more than 64 MB in all", WRONG, yields(*["x" * 1000] * (MAX_BODY // 1000 + 1), DONE)),
    row(
        "long-completion",
        "It gives",
        "a Completion with more than 64 MB",
        EMPTY_WRONG,
        yields(replace(DONE, text="x" * (MAX_BODY + 1))),
    ),
]
COMPLETIONS = [
    row("no-usage", "Its Completion", "no usage", replace(ANSWERED, usage=False), ends(usage=None)),
    row("text-none", "Its Completion", "`text=None`", WRONG, ends(text=None)),
    row("finish-text", "Its Completion", '`finish="stop"` instead of `Finish.STOP`', ANSWERED, ends(finish="stop")),
    row(
        "finish-length",
        "Its Completion",
        "`Finish.LENGTH`",
        replace(ANSWERED, what="length"),
        ends(finish=Finish.LENGTH),
    ),
    row(
        "finish-refusal",
        "Its Completion",
        "`Finish.REFUSAL`",
        replace(ANSWERED, what="refusal"),
        ends(finish=Finish.REFUSAL),
    ),
    row("finish-of-tomorrow", "Its Completion", "a finish that does not exist", WRONG, ends(finish="of_tomorrow")),
    row("finish-none", "Its Completion", "`finish=None`", WRONG, ends(finish=None)),
    row("usage-dictionary", "Its Completion", "a dictionary for `Usage`", WRONG, ends(usage={"input": 3})),
    row("usage-negative", "Its Completion", "negative tokens", WRONG, ends(usage=Usage(input_uncached=-1))),
    row("usage-nan", "Its Completion", "`NaN` tokens", WRONG, ends(usage=Usage(input_uncached=float("nan")))),
    row("usage-text", "Its Completion", "text for a number of tokens", WRONG, ends(usage=Usage(output_visible="5"))),
    row("usage-absurd", "Its Completion", "10^30 tokens", WRONG, ends(usage=Usage(output_visible=10**30))),
    row("model-number", "Its Completion", "a number for the model's name", WRONG, ends(model=7)),
    row("calls-list", "Its Completion", "dictionaries for tool calls", WRONG, ends(tool_calls=({"name": "f"},))),
    row("data-object", "Its Completion", "data that JSON cannot hold", WRONG, ends(data=object())),
]
TIME = [
    row(
        "never",
        "It takes its time",
        "it never gives anything (`first_token`)",
        failed("timeout", 2, "maybe", code="first_token"),
        never,
        options=FIRST_TOKEN,
    ),
    row(
        "still",
        "It takes its time",
        "it stands still after text (`no_progress`)",
        failed("timeout", 2, "yes", code="no_progress"),
        stands_still,
        options=NO_PROGRESS,
    ),
    row(
        "trickle",
        "It takes its time",
        "text for ever (`total`)",
        failed("timeout", 2, "yes", code="total"),
        trickles,
        options=SOON,
    ),
    row(
        "empty-for-ever",
        "It takes its time",
        "empty pieces for ever, without ever waiting (`total`)",
        failed("timeout", 2, "maybe", code="total"),
        empty_for_ever,
        options={"total_timeout": 0.1},
    ),
    row(
        "blocks",
        "It takes its time",
        "it blocks its event loop for longer than its deadline, and answers: the answer counts",
        ANSWERED,
        _blocks,
        options=FIRST_TOKEN,
    ),
    row(
        "uncancellable",
        "It takes its time",
        "it catches the cancellation and goes on",
        failed("timeout", 2, "yes", code="no_progress"),
        will_not_be_cancelled,
        options=NO_PROGRESS,
    ),
    row(
        "unending",
        "It takes its time",
        "it does not end though it is cancelled",
        failed("timeout", 2, "yes", code="no_progress"),
        hangs_when_cancelled,
        options=NO_PROGRESS,
    ),
    row(
        "raises-cancelled",
        "It takes its time",
        "it raises while it is cancelled",
        failed("timeout", 2, "yes", code="no_progress"),
        raises_when_cancelled,
        options=NO_PROGRESS,
    ),
    row(
        "hangs-after",
        "It takes its time",
        "it hangs after its Completion",
        ANSWERED,
        hangs_after_its_answer,
        options=NO_PROGRESS,
    ),
    row("raises-after", "It takes its time", "it raises after its Completion", ANSWERED, raises_after_its_answer),
    row(
        "never-park",
        "It takes its time",
        'it never gives anything, and the job says `on_unknown = "park"`',
        End("failed", "unknown_outcome", 1, 1, "maybe", "request"),
        never,
        options={**FIRST_TOKEN, "on_unknown": "park"},
    ),
]


def embed_row(name, does, end, act, **more):
    return row(f"embed-{name}", "Its embeddings", does, end, act, job="embed", data=TEXTS, **more)


EMBEDS = [
    embed_row("good", "none: the vectors as they should be", EMBEDDED, embeds(VECTORS)),
    embed_row("no-method", "it has no method `embed`", refused("invalid", requests=0), None),
    embed_row("none", "`None`", EMPTY_WRONG, _no_vectors),
    embed_row("one-less", "one vector less than texts", EMPTY_WRONG, embeds(VECTORS[:1])),
    embed_row("lists", "lists for vectors", EMPTY_WRONG, embeds(([0.5, 1.0], [0.0, 1.0]))),
    embed_row("doubles", "arrays of 64-bit numbers", EMPTY_WRONG, embeds((array("d", [0.5]), array("d", [0.5])))),
    embed_row("lengths", "vectors of two lengths", EMPTY_WRONG, embeds((array("f", [0.5]), array("f", [0.5, 1.0])))),
    embed_row("empty", "a vector without numbers", EMPTY_WRONG, embeds((array("f"), array("f")))),
    embed_row("nan", "`NaN` among its numbers", EMPTY_WRONG, embeds((array("f", [float("nan")]), array("f", [0.5])))),
    embed_row("no-usage", "no usage", replace(EMBEDDED, usage=False), embeds(VECTORS, usage=None)),
    embed_row("wrong-usage", "a dictionary for `Usage`", EMPTY_WRONG, embeds(VECTORS, usage={"input": 3})),
    embed_row("raises", "`ValueError`", BUG, _embed_raises),
    embed_row("plain", "it is no coroutine", BUG, gives(VECTORS)),
    embed_row(
        "never",
        "it never ends (`first_token`)",
        failed("timeout", 2, "maybe", code="first_token"),
        _embed_hangs,
        options=FIRST_TOKEN,
    ),
]

ROWS = (*SAYS, *RAISES, *RETURNS, *COMPLETIONS, *TIME, *EMBEDS)
"""Rows of a host's own class. A request is a call of `complete` or `embed`."""
