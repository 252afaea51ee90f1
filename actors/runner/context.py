"""What a host's handler is given: the job, and calls that are really messages to its runner.

    def summarise(ctx):
        text = ctx.step("fetch", fetch_text, ctx.job.data["url"])
        return ctx.complete(f"Summarise: {text}").text

A handler may be run more than once (a crash, a retry, a wait for a limit), so whatever must not happen twice goes in a step: its value is
committed and returned at once the next time. Model calls are steps by nature; they are named by their order unless given a name.
"""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

from ...persistence.model import ClaimedJob, History, JobInput
from ...persistence.new_job import NewJob
from ..providers.model import Completion, Embeddings, Message
from ..providers.parts import Image, Text, content_from_json
from .chat_data import MAX_REASKS, InvalidDataError, message_of, options_of
from .effects import CallModel, Effect, Embed, JobInterrupted, KeepValue, ShowProgress, SpawnChildren
from .embed import vectors_of
from .structured import answer_to
from .tools import MAX_ROUNDS, CallFunction, Tools, failure_of, outcome_of, rounds

T = TypeVar("T")
Turn = Message | Mapping[str, Any]
Prompt = str | Iterable[Turn | Text | Image]
"""What is asked: text; the text and images of one message; or turns, as `Message` or `{"role", "content"}`."""
Asked = Generator[Effect | CallFunction, Any, T]
MAX_CACHE_AGE = 1e9
"""Seconds."""


def as_messages(prompt: Prompt, system: str | None) -> tuple[Message, ...]:
    """A prompt as messages, the system's first. Raises InvalidDataError for what is none."""
    first = (Message("system", system),) if system is not None else ()
    if isinstance(prompt, str):
        return (*first, Message("user", prompt))
    given = list(prompt)
    parts = tuple(part for part in given if isinstance(part, Text | Image))
    if parts and len(parts) == len(given):
        return (*first, Message("user", parts))
    turns = (turn if isinstance(turn, Message) else message_of(turn, f"prompt[{n}]") for n, turn in enumerate(given))
    return (*first, *turns)


def call_effect(
    number: int, prompt: Prompt, system: str | None, step: str | None, options: dict[str, Any]
) -> CallModel:
    """The effect of a `complete`; `options` are the remaining fields of `CallModel`. Raises InvalidDataError, naming the option."""
    schema = options.get("schema")
    if schema is not None and hasattr(
        schema, "model_json_schema"
    ):  # a pydantic model, which need not be imported to be asked
        options = {
            "schema_name": getattr(schema, "__name__", "answer"),
            **options,
            "schema": schema.model_json_schema(),
        }
    cache = options.get("cache")
    if cache is not None and (
        isinstance(cache, bool) or not isinstance(cache, int | float) or not 0 <= cache <= MAX_CACHE_AGE
    ):
        raise InvalidDataError(f"cache: expected seconds from 0 to {MAX_CACHE_AGE:g}, got {cache!r:.60}")
    if isinstance(options.get("stop"), tuple | set):
        options["stop"] = list(options["stop"])
    if isinstance(options.get("tools"), tuple):
        options["tools"] = list(options["tools"])
    options = {name: value for name, value in {**options, **options_of(options)}.items() if value is not None}
    return CallModel(step=step or f"call-{number}", messages=as_messages(prompt, system), **options)


def as_json_value(name: str, value: T) -> T:
    """The value as it will come back from the database. Raises TypeError, naming the step, if it has no JSON form."""
    try:
        kept: T = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"step {name!r}: its value must have a JSON form: {error}") from error
    return kept


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
        self._told = [Message(message.role, as_content(message.content)) for message in history.messages]

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said, oldest first, with what this handler asked and was answered; without what prompts leave out by now."""
        return tuple(self._told)

    def _hear(self, prompt: Prompt, completion: Completion) -> Completion:
        self._told += [*as_messages(prompt, None), completion.message()]
        return completion


def as_content(content: Any) -> Any:
    """A logged message's content: text, or parts. What another program wrote there and is neither, as JSON text."""
    try:
        return content_from_json(content)
    except ValueError:
        return json.dumps(content, ensure_ascii=False)


class ConversationTurn(_Talk):
    """`ctx.conversation` of a synchronous handler."""

    def __init__(self, history: History, context: "JobContext") -> None:
        super().__init__(history)
        self._context = context

    def ask(self, prompt: Prompt, *, system: str | None = None, step: str | None = None, **options: Any) -> Completion:
        """Ask the next thing: the model is sent what was said before as well. Otherwise as `JobContext.complete`.

        Question and answer become part of the conversation when the job completes; if it fails, nothing does. One ask at a time.
        `system` stands in for the conversation's own. The results of tools are told as a message of the role tool.
        """
        asked = _kept(prompt)
        answer = self._context.complete(asked, system=system, step=step, in_conversation=True, **options)
        return self._hear(asked, answer)

    def ask_with_tools(self, prompt: Prompt, tools: Tools, **options: Any) -> Completion:
        """See `JobContext.complete_with_tools`. The calls and their results become part of the conversation too."""
        asked = _kept(prompt)
        answer = self._context.complete_with_tools(asked, tools, in_conversation=True, **options)
        return self._hear(asked, answer)


class AsyncConversationTurn(_Talk):
    """`ctx.conversation` of an `async def` handler."""

    def __init__(self, history: History, context: "AsyncJobContext") -> None:
        super().__init__(history)
        self._context = context

    async def ask(
        self, prompt: Prompt, *, system: str | None = None, step: str | None = None, **options: Any
    ) -> Completion:
        """See `ConversationTurn.ask`."""
        asked = _kept(prompt)
        answer = await self._context.complete(asked, system=system, step=step, in_conversation=True, **options)
        return self._hear(asked, answer)

    async def ask_with_tools(self, prompt: Prompt, tools: Tools, **options: Any) -> Completion:
        """See `ConversationTurn.ask_with_tools`."""
        asked = _kept(prompt)
        answer = await self._context.complete_with_tools(asked, tools, in_conversation=True, **options)
        return self._hear(asked, answer)


def _kept(prompt: Prompt) -> Prompt:
    """The prompt in a form that can be read more than once."""
    return prompt if isinstance(prompt, str) else list(prompt)


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

    def _asked(
        self, prompt: Prompt, system: str | None, step: str | None, reasks: int, options: dict[str, Any]
    ) -> Asked[Completion]:
        self._calls += 1
        return answer_to(call_effect(self._calls, prompt, system, step, options), reasks=reasks)

    def _rounds(
        self, prompt: Prompt, tools: Tools, most: int, step: str | None, options: dict[str, Any]
    ) -> Asked[Completion]:
        self._calls += 1
        reasks = options.pop("reasks", MAX_REASKS)
        call = call_effect(self._calls, prompt, options.pop("system", None), step, options)
        return rounds(call, tools, max_rounds=most, reasks=reasks)

    def _vectors(
        self, texts: str | Iterable[str], model: str | None, dimensions: int | None, step: str | None
    ) -> Asked[Embeddings]:
        self._calls += 1
        inputs = (texts,) if isinstance(texts, str) else tuple(texts)
        return vectors_of(Embed(step=step or f"embed-{self._calls}", inputs=inputs, model=model, dimensions=dimensions))

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
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        step: str | None = None,
        reasks: int = MAX_REASKS,
        **options: Any,
    ) -> Completion:
        """Call a model and wait for its answer. Streams to the job's readers meanwhile.

        `options`: model, max_output (tokens), temperature, top_p, stop, seed, tools (`Tool`, or mappings of its fields), tool_choice,
        parallel_tools, schema (a JSON Schema, or a pydantic model's class), schema_name, effort, cache_key, cache_ttl, extra, cache (seconds old that
        an answer to exactly the same request may be to be given again; 0: none; else as the job says). With a schema
        the completion's `data` is the answer as a value that follows it; one that does not is asked for again, up to `reasks` times.
        Rate limits, retries of passing failures and cost are taken care of. Raises CallFailedError for a failure that trying again would not
        heal, `malformed` where the last answer does not follow the schema; InvalidDataError for an option that is none.
        """
        return self._drive(self._asked(prompt, system, step, reasks, options))

    def complete_with_tools(
        self, prompt: Prompt, tools: Tools, *, max_rounds: int = MAX_ROUNDS, step: str | None = None, **options: Any
    ) -> Completion:
        """Let the model call functions until it answers. Returns that answer.

        `tools`: name → function, which is described by its docstring and its parameters' types; or name → (`Tool`, function). Each call of the
        model and each of a function is a step: what was done before a crash is not done again. What a function raises is told to the model.
        Raises CallFailedError when the model has been called `max_rounds` times and still asks. `options` as in `complete`.
        """
        return self._drive(self._rounds(prompt, tools, max_rounds, step, options))

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        step: str | None = None,
    ) -> Embeddings:
        """Turn texts into vectors: as many in the answer's `vectors`, in their order. By as many calls as it takes, each a step."""
        return self._drive(self._vectors(texts, model, dimensions, step))

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

    def _drive(self, asked: Asked[T]) -> T:
        """Do what is asked for, one after the other, and return what it comes to."""
        advance: Callable[[], Effect | CallFunction] = partial(next, asked)
        while True:
            try:
                wanted = advance()
            except StopIteration as end:
                found: T = end.value
                return found
            try:
                value = self._do(wanted)
            except BaseException as error:  # noqa: BLE001 - what is asked for may be refused: it is told to who asked
                advance = partial(asked.throw, error)
            else:
                advance = partial(asked.send, value)

    def _do(self, wanted: Effect | CallFunction) -> Any:
        if not isinstance(wanted, CallFunction):
            return self._wait(wanted)

        def call() -> dict[str, Any]:
            try:
                return as_json_value(wanted.step, outcome_of(wanted.function(**wanted.arguments)))
            except Exception as error:  # noqa: BLE001 - the model is told, and may do better
                return failure_of(error)

        return self.step(wanted.step, call)


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
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        step: str | None = None,
        reasks: int = MAX_REASKS,
        **options: Any,
    ) -> Completion:
        """See `JobContext.complete`."""
        return await self._drive(self._asked(prompt, system, step, reasks, options))

    async def complete_with_tools(
        self, prompt: Prompt, tools: Tools, *, max_rounds: int = MAX_ROUNDS, step: str | None = None, **options: Any
    ) -> Completion:
        """See `JobContext.complete_with_tools`; functions may be `async def`."""
        return await self._drive(self._rounds(prompt, tools, max_rounds, step, options))

    async def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        step: str | None = None,
    ) -> Embeddings:
        """See `JobContext.embed`."""
        return await self._drive(self._vectors(texts, model, dimensions, step))

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

    async def _drive(self, asked: Asked[T]) -> T:
        """See `JobContext._drive`."""
        advance: Callable[[], Effect | CallFunction] = partial(next, asked)
        while True:
            try:
                wanted = advance()
            except StopIteration as end:
                found: T = end.value
                return found
            try:
                value = await self._do(wanted)
            except BaseException as error:  # noqa: BLE001 - as in JobContext
                advance = partial(asked.throw, error)
            else:
                advance = partial(asked.send, value)

    async def _do(self, wanted: Effect | CallFunction) -> Any:
        if not isinstance(wanted, CallFunction):
            return await asyncio.wrap_future(self._runner.ask(wanted))

        async def call() -> dict[str, Any]:
            try:
                value = wanted.function(**wanted.arguments)
                return as_json_value(wanted.step, outcome_of(await value if inspect.isawaitable(value) else value))
            except Exception as error:  # noqa: BLE001 - as in JobContext
                return failure_of(error)

        return await self.step(wanted.step, call)
