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

from ...persistence.model import ClaimedJob, History, JobInput
from ...persistence.new_job import NewJob
from ..providers.model import Completion, Message
from .effects import CallModel, Effect, JobInterrupted, KeepValue, ShowProgress, SpawnChildren

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


class _Talk:
    """What both kinds of `ctx.conversation` share: the conversation of the job, as far as this handler knows it."""

    def __init__(self, history: History) -> None:
        self.name = history.name
        self._told = [Message(message.role, as_text(message.content)) for message in history.messages]

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said, oldest first, with what this handler asked and was answered; without what prompts leave out by now."""
        return tuple(self._told)

    def _hear(self, text: str, completion: Completion) -> Completion:
        self._told += [Message("user", text), Message("assistant", completion.text)]
        return completion


def as_text(content: Any) -> str:
    """The text of a message's content."""
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return str(content["text"])
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


class ConversationTurn(_Talk):
    """`ctx.conversation` of a synchronous handler."""

    def __init__(self, history: History, context: "JobContext") -> None:
        super().__init__(history)
        self._context = context

    def ask(self, text: str, *, system: str | None = None, step: str | None = None, **options: Any) -> Completion:
        """Ask the next thing: the model is sent what was said before as well. Otherwise as `JobContext.complete`.

        Question and answer become part of the conversation when the job completes; if it fails, nothing does. One ask at a time.
        `system` stands in for the conversation's own.
        """
        return self._hear(text, self._context.complete(text, system=system, step=step, in_conversation=True, **options))


class AsyncConversationTurn(_Talk):
    """`ctx.conversation` of an `async def` handler."""

    def __init__(self, history: History, context: "AsyncJobContext") -> None:
        super().__init__(history)
        self._context = context

    async def ask(self, text: str, *, system: str | None = None, step: str | None = None, **options: Any) -> Completion:
        """See `ConversationTurn.ask`."""
        answer = await self._context.complete(text, system=system, step=step, in_conversation=True, **options)
        return self._hear(text, answer)


class NoConversationError(LookupError):
    """`ctx.conversation` of a job that was added without one."""


class _Context:
    """What both kinds of context share."""

    def __init__(self, job: ClaimedJob, runner: "Asks") -> None:
        self.job = job
        self._runner = runner
        self._calls = 0
        self._turn: Any = None
        self._values: dict[str, Any] = dict(job.memo.values) if job.memo else {}

    def _effect(
        self, prompt: str | Iterable[Turn], system: str | None, step: str | None, options: dict[str, Any]
    ) -> CallModel:
        self._calls += 1
        return call_effect(self._calls, prompt, system, step, options)

    def _history(self) -> History:
        if self.job.history is None:
            raise NoConversationError(f"job {self.job.id} is in no conversation: add it with conversation='a name'")
        return self.job.history

    @property
    def inputs(self) -> tuple[JobInput, ...]:
        """What the job was added to wait on, in the order of its needs: each with its `result`, or its `error`."""
        return self.job.inputs

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

    @property
    def conversation(self) -> ConversationTurn:
        """The conversation that the job is a turn of. Raises NoConversationError."""
        if self._turn is None:
            self._turn = ConversationTurn(self._history(), self)
        turn: ConversationTurn = self._turn
        return turn

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

    def children(
        self,
        jobs: Iterable[NewJob | Mapping[str, Any]],
        *,
        step: str = "children",
        quorum: int | str = "all",
        policy: str = "fail",
    ) -> list[JobInput]:
        """Create jobs and wait for them, without a thread or a runner; what became of them, in the order given.

        Each is a `NewJob` or a mapping of its fields; queue, model, priority and tag are this job's unless given. The handler ends here (with
        `JobInterrupted`) and runs again from its start when `quorum` of them ("all", "any" or a number) are done: then this step returns at
        once. It never creates them twice. If one fails, this job fails too, unless `policy` is "ignore" or "continue" (or the child's own
        `policy`, as a mapping may have). Raises InvalidJobError, naming the field.
        """
        found: list[JobInput] = self._wait(SpawnChildren(jobs=tuple(jobs), step=step, quorum=quorum, policy=policy))
        return found

    def _wait(self, effect: Effect) -> Any:
        return self._runner.ask(effect).result()


class AsyncJobContext(_Context):
    """The context of an `async def` handler: as `JobContext`, awaited. To be used on the handler's own event loop."""

    @property
    def conversation(self) -> AsyncConversationTurn:
        """See `JobContext.conversation`."""
        if self._turn is None:
            self._turn = AsyncConversationTurn(self._history(), self)
        turn: AsyncConversationTurn = self._turn
        return turn

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

    async def children(
        self,
        jobs: Iterable[NewJob | Mapping[str, Any]],
        *,
        step: str = "children",
        quorum: int | str = "all",
        policy: str = "fail",
    ) -> list[JobInput]:
        """See `JobContext.children`. Calls of this handler that are under way are let come to their end first."""
        effect = SpawnChildren(jobs=tuple(jobs), step=step, quorum=quorum, policy=policy)
        found: list[JobInput] = await asyncio.wrap_future(self._runner.ask(effect))
        return found
