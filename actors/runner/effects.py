"""What a handler may ask of its runner, as values: the protocol that every kind of handler is written against.

A built-in job type is a generator that yields these and is sent their results. A host's handler, on its own thread or event loop, has a
context whose methods turn into the same effects. So the runner knows one protocol, and always reads its mailbox.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...persistence.model import Said
from ...persistence.new_job import NewJob
from ..providers.batch_api import Operation
from ..providers.model import CallError, Message, Tool


class CallFailedError(Exception):
    """A model call failed for good (bad request, unknown model, prompt too long). Passing failures never reach a handler.

    `error` is the `CallError`. A handler may catch this and go on, for instance with another model; uncaught, it fails the job.
    """

    def __init__(self, error: CallError) -> None:
        super().__init__(f"{error.kind}: {error.message}")
        self.error = error


class JobInterrupted(BaseException):  # control flow, like asyncio.CancelledError: not an error, and not to be swallowed
    """The job is leaving this runner: cancelled, out of time, waiting for a limit, or shut down. Clean up and let it pass.

    A BaseException, so that a handler's `except Exception` does not swallow it. Nothing the handler does afterwards is recorded.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CallModel:
    """Call a model. Results in a `Completion`; one that an earlier attempt received under the same step name comes back unpaid.

    `model` is an alias or `provider:model`; None is the job's own, or the default. `in_conversation`: the messages are the next of the job's
    conversation; its past is sent before them, and when the job completes, they and the answer are part of it. `corrects`: they are a word on
    the answer before, not kept, and the new answer takes its place. `cache`: how old, in seconds, an answer to exactly the same request may be to be given again (0: none);
    None is as the job says. The other fields are those of `Request`.
    """

    step: str
    messages: tuple[Message, ...]
    model: str | None = None
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    parallel_tools: bool | None = None
    schema: dict[str, Any] | None = None
    schema_name: str = "answer"
    effort: str | None = None
    cache_key: str | None = None
    cache_ttl: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    in_conversation: bool = False
    corrects: bool = False
    cache: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Turn texts into vectors. Results in `Embeddings`; one that an earlier attempt received under the same step name comes back unpaid."""

    step: str
    inputs: tuple[str, ...]
    model: str | None = None
    dimensions: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InputsPerCall:
    """Ask how many texts one `Embed` may hold, for this model (None: the job's own). Results at once in a number, or CallFailedError."""

    model: str | None = None


@dataclass(frozen=True, slots=True)
class KeepValue:
    """Commit the JSON-ready value of a step of the handler's own. Results in None once it is on disk."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnChildren:
    """Create jobs and wait for them. Results in their outcomes (`JobInput`), in the order given; never creates them twice.

    The job leaves its runner, and the handler runs again from its start when the children are done: this step then results at once.
    `jobs`: each a `NewJob` or a mapping of its fields; queue, model, priority and tag are the parent's unless given. A mapping may name a
    `policy` of its own. `quorum` and `policy` as in a flow.
    """

    jobs: tuple[NewJob | Mapping[str, Any], ...]
    step: str = "children"
    quorum: int | str = "all"
    policy: str = "fail"


@dataclass(frozen=True, slots=True)
class OrderOnBoard:
    """Of a job that drives a batch: one of `persistence.batch_orders`, committed. Results in what the order gives."""

    order: object


@dataclass(frozen=True, slots=True)
class Exchange:
    """Of a job that drives a batch: an operation of the provider's batch API. Results in its report, or CallFailedError."""

    provider: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Of a job that drives a batch: leave the runner, and begin again from the start at `at_ms`, with nothing counted. Never results."""

    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class KeepSummary:
    """Add a summary to the log of a conversation when the job completes. Results in None at once."""

    said: Said


@dataclass(frozen=True, slots=True)
class ShowProgress:
    """Show how far the job is, 0 to 100. Results in None at once; what is shown is written at most every 100 ms, and never falls."""

    percent: int
    message: str | None = None


Effect = (
    CallModel
    | Embed
    | InputsPerCall
    | KeepValue
    | ShowProgress
    | SpawnChildren
    | KeepSummary
    | OrderOnBoard
    | Exchange
    | ComeBack
)
