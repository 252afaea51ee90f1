"""What the board's rows look like to those who read them: frozen records shared by the store, the actors and the host's client."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from .lifecycle import TERMINAL_STATES, JobState

USAGE_COLUMNS = ("input_uncached", "cache_read", "cache_write", "output_visible", "output_reasoning", "cache_write_1h")
"""The disjoint buckets of a call's usage, as columns of `llm_calls`. `cache_write` is what is kept for minutes, `cache_write_1h` for an hour."""

BATCH_STATES = ("open", "sealed", "uploaded", "creating", "submitted", "ended", "downloading", "applied", "failed")
"""The life of a batch (`llm_batches.state`); every arrow is committed before the next request leaves."""

BATCH_REQUEST_STATES = ("waiting", "sent", "done", "failed", "left", "again")


def lane_name(queue: str, kind: str, model: str | None, requires: tuple[str, ...] = ()) -> str:
    """What jobs of one queue, type, model and set of capabilities (sorted) have in common: what claims are planned by."""
    return f"{queue}|{kind}|{model or ''}|{','.join(requires)}"


class Lease(NamedTuple):
    """The right to work on a job, and the only way to write to it: void as soon as the job's epoch has moved on."""

    job_id: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Per-job settings. Durations in seconds; None means the worker's default.

    `on_unknown`: what to do with a call that may or may not have happened when its process died: "retry" or "park".
    `latency`: "now", or "batch" for the provider's batch API, at about half the price and within a day; `deadline` (epoch milliseconds): when
    the answers must be there, so that what a batch would bring too late is asked for online. `budget`: dollars that this job and all that
    it creates may cost. `cache`: how many seconds old an answer to exactly the same request may be to be given again; 0: never.
    """

    first_token_timeout: float | None = None
    no_progress_timeout: float | None = None
    total_timeout: float | None = None
    job_timeout: float | None = None
    on_unknown: str = "retry"
    latency: str = "now"
    deadline: int | None = None
    budget: float | None = None
    cache: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """What a job waited on, as it is given to it. `name` is what the flow calls it, `step` the step that created it ('' for a need).

    `counted` is False where it failed under the policy `fail`, or the quorum was reached without it (a late result is left out then, so that
    every attempt sees the same). `result` is None unless it completed; `error` is what is stored of its failure.
    """

    job_id: int
    name: str | None
    step: str
    policy: str
    counted: bool
    state: JobState
    result: Any = None
    error: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether it completed and counts, so that `result` is its result."""
        return self.counted and self.state == JobState.COMPLETED


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job as its runner gets it, with everything it needs to start."""

    lease: Lease
    type: str
    queue: str
    model: str | None
    priority: int
    attempt: int
    failures: int
    losses: int
    max_attempts: int
    alone: bool
    data: Any
    options: JobOptions
    requires: tuple[str, ...] = ()
    group: str | None = None
    memo: "Memo | None" = None
    waited_on: tuple[JobInput, ...] = ()
    history: "History | None" = None

    @property
    def inputs(self) -> tuple[JobInput, ...]:
        """What it was added to wait on, in the order of its needs."""
        return tuple(given for given in self.waited_on if not given.step)

    def outcomes(self, step: str) -> list[JobInput]:
        """What became of the children that this step created, in their order."""
        return [given for given in self.waited_on if given.step == step]

    @property
    def id(self) -> int:
        """The job's id."""
        return self.lease.job_id

    @property
    def lane(self) -> str:
        """The lane it was claimed from, as in `LaneDepth`."""
        return lane_name(self.queue, self.type, self.model, self.requires)


class Batched(NamedTuple):
    """What became of a step that was in batches and has no answer: in how many, whether it left one (for its deadline, or a budget), and why it was refused."""

    rounds: int
    late: bool
    refused: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memo:
    """What earlier attempts of a job have already paid for or done, by step name. Completions are in their JSON form.

    `unknown` names the steps that have a call whose outcome nobody knows; `kept` has those of them that the provider goes on with.
    """

    completions: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    batched: dict[str, Batched] = field(default_factory=dict)
    kept: dict[str, "KeptCall"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCall:
    """A call of an earlier attempt that the provider goes on with. `handle`, as the provider's adapter knows it, is what it is taken up by."""

    call_id: int
    fingerprint: str
    provider: str
    model: str
    handle: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallIntent:
    """What the ledger knows of a call before it leaves. Costs in nano-dollars, None when the price is unknown."""

    step: str
    fingerprint: str
    provider: str
    model: str
    limit_key: str
    reserved_tokens: int
    reserved_cost: int | None
    reserved_input: int = 0
    reserved_output: int = 0
    requests: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOutcome:
    """How a call ended: `state` is completed (with `completion`), failed (with `error`) or unknown (may have been billed).

    `usage` holds the disjoint buckets by column name, or None when the provider did not say. `cost` in nano-dollars, None if unknown, by the price
    with `price_id`.
    """

    state: str
    completion: dict[str, Any] | None = None
    usage: dict[str, int] | None = None
    cost: int | None = None
    price_id: str | None = None
    finish: str | None = None
    request_id: str | None = None
    first_token_ms: int | None = None
    error_class: str | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of an answer as it was streamed. `epoch` rises when the job's attempt restarted: what came before it is void.

    `restarted`: what a reader showed so far is void. A stream sets it on the first chunk of a newer epoch than the reader has seen; within an
    attempt it comes with an empty chunk, when another model is asked for the step instead.
    """

    epoch: int
    seq: int
    step: str
    text: str
    at: int
    restarted: bool = False

    def as_restart(self) -> "Chunk":
        """The same chunk, marked as the first of an answer begun anew."""
        return replace(self, restarted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One row of the log. `at` in epoch milliseconds."""

    id: int
    job_id: int
    from_state: JobState | None
    to_state: JobState
    at: int
    epoch: int
    attempt: int
    actor: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as a reader sees it. Times in epoch milliseconds, cost in nano-dollars (None: no call yet, or a price is unknown)."""

    id: int
    key: str | None
    type: str
    queue: str
    model: str | None
    tag: str | None
    state: JobState
    parent_id: int | None
    pending: int
    quorum: int | None
    priority: int
    boost: int
    requires: str | None
    group_key: str | None
    group_limit: int | None
    run_at: int | None
    start_by: int | None
    lease_epoch: int
    attempt: int
    max_attempts: int
    failures: int
    losses: int
    deferrals: int
    held_by: str | None
    held_until: int | None
    progress: int
    progress_message: str | None
    created_at: int
    updated_at: int
    started_at: int | None
    finished_at: int | None
    reason: str | None

    @property
    def finished(self) -> bool:
        """Whether the job is in a terminal state."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """A call as a reader of the ledger sees it. `state`: open, completed, superseded, failed or unknown. Cost in nano-dollars, None: unknown.

    `origin`: where its answer came from if not from a call of its own (cache, group, batch, resumed). `price_id`: by which price it was priced.
    """

    id: int
    job_id: int
    epoch: int
    attempt: int
    step: str
    fingerprint: str
    provider: str
    model: str
    limit_key: str
    state: str
    reserved_tokens: int
    reserved_cost: int | None
    sent_at: int
    finished_at: int | None
    first_token_ms: int | None
    input_uncached: int | None
    cache_read: int | None
    cache_write: int | None
    output_visible: int | None
    output_reasoning: int | None
    cost: int | None
    finish: str | None
    request_id: str | None
    error_class: str | None
    error: dict[str, Any] | None
    cache_write_1h: int | None = None
    origin: str | None = None
    price_id: str | None = None


class UsageTotals(NamedTuple):
    """Sums over calls. `cost` in nano-dollars over those with a known price, None if there is none; `unpriced`: answered calls without one."""

    calls: int
    input_uncached: int
    cache_read: int
    cache_write: int
    output_visible: int
    output_reasoning: int
    cache_write_1h: int
    cost: int | None
    unpriced: int


class LaneDepth(NamedTuple):
    """Waiting jobs that are alike to the dispatcher: same queue, type, model (None: they name none) and capabilities.

    `waiting` counts them up to the cap of the look (`claims.lanes`), the held ones included. `noted`: the first of them carries a note that
    nobody could run it.
    """

    lane: str
    queue: str
    type: str
    model: str | None
    waiting: int
    requires: tuple[str, ...] = ()
    paused: bool = False
    noted: bool = False


class QueueStatus(NamedTuple):
    """A queue: how many of its jobs are in each state, and since when it is paused (epoch milliseconds, None: it is not)."""

    name: str
    paused_at: int | None
    jobs: dict[JobState, int]


class LimitHold(NamedTuple):
    """A limit key, or all keys of a provider, that admit nothing before `until` (epoch milliseconds).

    `kind`: rate, quota or auth, as the provider refused; breaker, after failures in a row. `at`: since when, epoch milliseconds.
    """

    key: str
    until: int
    reason: str
    kind: str = "rate"
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSettings:
    """How a conversation is kept and sent.

    `system`: the system text of every turn. `context_window`: tokens the model takes, prompt and answer together. Over `trim_at` of what is
    left for the prompt, the oldest turns are left out down to `trim_to` of it. `on_failed`: a turn that fails is passed over ("skip"), or
    what was waiting behind it fails with it ("block"). `summarise`: what is left out is summarised by a job of its own.
    """

    system: str | None = None
    context_window: int = 32_000
    trim_at: float = 0.85
    trim_to: float = 0.6
    on_failed: str = "skip"
    summarise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMessage:
    """One entry of a conversation's log, which is never changed. `content` is text, or JSON of a richer message. `at` in epoch milliseconds.

    `tokens`: what it takes in a prompt, measured by the provider's own count; None: unknown. Roles besides a provider's: "trim" notes what is
    left out of prompts from here on, "summary" what was left out, in short; the content of both says what they cover.
    """

    id: int
    parent_id: int | None
    turn: int
    role: str
    content: Any
    tokens: int | None
    job_id: int | None
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a turn is given of its conversation: the log's newest part, oldest first, at least as much as fits in the context window.

    `summary` is the newest summary of what came before, None if there is none.
    """

    conversation_id: int
    name: str
    settings: ConversationSettings
    messages: tuple[LogMessage, ...] = ()
    summary: LogMessage | None = None


class NewMessage(NamedTuple):
    """What a turn adds to the log of its conversation."""

    role: str
    content: Any
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the transaction that completes a turn appends to its conversation's log.

    `summarise`: the data of the `chat` job that is to summarise what a trim left out, under a key that is never used twice.
    """

    conversation_id: int
    messages: tuple[NewMessage, ...]
    summarise: dict[str, Any] | None = None
    summary_key: str | None = None
