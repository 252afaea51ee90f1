"""What a host's handler is given: the job, and calls that are really messages to its runner.

    def summarise(ctx):
        text = ctx.step("fetch", fetch_text, ctx.job.data["url"])
        return ctx.complete(f"Summarise: {text}").text

A handler may be run more than once (a crash, a retry, a wait for a limit), so whatever must not happen twice goes in a step: its value is
committed and returned at once the next time. Model calls are steps by nature; they are named by their order unless given a name.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from ...persistence.model import ClaimedJob
from ..providers.model import Completion, Message
from .effects import CallModel, Effect, JobInterrupted, KeepValue, ShowProgress

T = TypeVar("T")
Turn = Message | Mapping[str, str]


def as_messages(prompt: str | Iterable[Turn], system: str | None) -> tuple[Message, ...]:
    """A prompt (text, or turns as `Message` or `{"role", "content"}`) as messages, the system's first."""
    turns: Iterable[Turn] = [Message("user", prompt)] if isinstance(prompt, str) else prompt
    given = tuple(t if isinstance(t, Message) else Message(t["role"], t["content"]) for t in turns)
    return (Message("system", system), *given) if system is not None else given


def call_effect(
    number: int, prompt: str | Iterable[Turn], system: str | None, step: str | None, options: dict[str, Any]
) -> CallModel:
    """The effect of a `complete`; `options` are the remaining fields of `CallModel`."""
    if "stop" in options:
        options["stop"] = tuple(options["stop"])
    return CallModel(step=step or f"call-{number}", messages=as_messages(prompt, system), **options)


def as_json_value(name: str, value: Any) -> Any:
    """The value as it will come back from the database. Raises TypeError, naming the step, if it has no JSON form."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"step {name!r}: its value must have a JSON form: {error}") from error


class Asks(Protocol):
    """The handler's side of its runner. Any thread."""

    @property
    def interrupted(self) -> bool:
        """Whether the job has left the runner."""

    def ask(self, effect: Effect) -> Future[Any]:
        """Ask for an effect; the future is its answer, or JobInterrupted."""


class _Context:
    """What both kinds of context share."""

    def __init__(self, job: ClaimedJob, runner: "Asks") -> None:
        self.job = job
        self._runner = runner
        self._calls = 0
        self._values: dict[str, Any] = dict(job.memo.values) if job.memo else {}

    def _effect(
        self, prompt: str | Iterable[Turn], system: str | None, step: str | None, options: dict[str, Any]
    ) -> CallModel:
        self._calls += 1
        return call_effect(self._calls, prompt, system, step, options)

    @property
    def interrupted(self) -> bool:
        """True once the job has left this runner. A long loop that asks for nothing should look at it. Any thread."""
        return self._runner.interrupted

    def progress(self, percent: float, message: str | None = None) -> None:
        """Show how far the job is: 0 to 100, and a word on what it is doing. Never waits. Any thread."""
        if not self.interrupted:
            self._runner.ask(ShowProgress(max(0, min(100, int(percent))), message))


class JobContext(_Context):
    """The context of a synchronous handler. To be used on the handler's own thread.

    `job`: id, type, data, attempt, priority … Every method that waits raises `JobInterrupted` when the job leaves.
    """

    def complete(
        self, prompt: str | Iterable[Turn], *, system: str | None = None, step: str | None = None, **options: Any
    ) -> Completion:
        """Call a model and wait for its answer. Streams to the job's readers meanwhile.

        `options`: model, max_output (tokens), temperature, top_p, stop, seed, extra. Rate limits, retries of passing failures and cost are
        taken care of. Raises CallFailedError for a failure that trying again would not heal.
        """
        completion: Completion = self._wait(self._effect(prompt, system, step, options))
        return completion

    def step(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `function` once in the life of the job: its JSON-ready value is committed, and returned at once if the job runs again."""
        if name not in self._values:
            if self.interrupted:
                raise JobInterrupted
            value = as_json_value(name, function(*args, **kwargs))
            self._wait(KeepValue(name, value))
            self._values[name] = value
        kept: T = self._values[name]
        return kept

    def _wait(self, effect: Effect) -> Any:
        return self._runner.ask(effect).result()


class AsyncJobContext(_Context):
    """The context of an `async def` handler: as `JobContext`, awaited. To be used on the handler's own event loop."""

    async def complete(
        self, prompt: str | Iterable[Turn], *, system: str | None = None, step: str | None = None, **options: Any
    ) -> Completion:
        """See `JobContext.complete`."""
        completion: Completion = await asyncio.wrap_future(
            self._runner.ask(self._effect(prompt, system, step, options))
        )
        return completion

    async def step(self, name: str, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """See `JobContext.step`; `function` is awaited."""
        if name not in self._values:
            if self.interrupted:
                raise JobInterrupted
            value = as_json_value(name, await function(*args, **kwargs))
            await asyncio.wrap_future(self._runner.ask(KeepValue(name, value)))
            self._values[name] = value
        kept: T = self._values[name]
        return kept
