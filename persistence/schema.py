"""Every table of the board, as SQLAlchemy Core. The triggers over them are in `triggers`.

Rules (docs/architecture.md): INTEGER epoch milliseconds everywhere; values bounded by CHECK; hot rows narrow, with payloads, results and
chunks beside them; one partial index per hot state. Money is in nano-dollars (1e-9 $), NULL where unknown.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from .lifecycle import TERMINAL_STATES, JobState
from .model import USAGE_COLUMNS
from .schema_parts import any_of, job_id_column, metadata
from .schema_shared import (
    batch_bodies,
    batch_requests,
    batches,
    budget_reservations,
    budget_usage,
    budgets,
    cache,
    cache_flights,
    limit_days,
    limit_holds,
    limit_keys,
    limit_usage,
    routes,
)

# Others find everything here.
__all__ = [
    "TURNS",
    "any_of",
    "batch_bodies",
    "batch_requests",
    "batches",
    "budget_reservations",
    "budget_usage",
    "budgets",
    "cache",
    "cache_flights",
    "call_completions",
    "calls",
    "chunks",
    "conversations",
    "edges",
    "job_counts",
    "job_data",
    "job_results",
    "jobs",
    "limit_days",
    "limit_holds",
    "limit_keys",
    "limit_usage",
    "messages",
    "metadata",
    "queues",
    "routes",
    "schedules",
    "steps",
    "transitions",
    "usage_deleted",
]

_NOW = text("(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))")


# Checked here, not only by the client, so that a claim never meets options it cannot read, whoever wrote them.
_NUMBERS = ("first_token_timeout", "no_progress_timeout", "total_timeout", "job_timeout", "deadline", "budget", "cache")
_OPTIONS = "options = '{}' OR " + " AND ".join(
    [
        "json_valid(options)",
        "json_type(options) = 'object'",
        "coalesce(json_extract(options, '$.on_unknown'), 'retry') IN ('retry', 'park')",
        "coalesce(json_extract(options, '$.latency'), 'now') IN ('now', 'batch')",
        *(f"coalesce(json_type(options, '$.{name}'), 'null') IN ('null', 'integer', 'real')" for name in _NUMBERS),
    ]
)


jobs = Table(
    "llm_jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, CheckConstraint("length(key) BETWEEN 1 AND 200", name="key_length")),
    Column("type", Text, nullable=False),
    Column("queue", Text, nullable=False, server_default="default"),
    Column("model", Text),
    # The capabilities a runner needs, sorted and separated by commas; and the key that jobs share a concurrency limit and fair turns by.
    Column("requires", Text),
    Column("group_key", Text),
    Column("group_limit", Integer),
    # What claims are planned by: all jobs of one lane are alike to the dispatcher. '|' is refused in all parts but the last.
    Column(
        "lane",
        Text,
        Computed(
            "queue || '|' || type || '|' || coalesce(model, '') || '|' || coalesce(requires, '') || '|' || coalesce(group_key, '')",
            persisted=False,
        ),
    ),
    Column("tag", Text),
    # One live job at a time; see also `key`, which is for ever.
    Column("unique_key", Text),
    # Who created it while running, and what it waits on: how many edges are still open, and how many must be met (NULL: all).
    Column("parent_id", Integer, ForeignKey("llm_jobs.id", ondelete="SET NULL")),
    Column("pending", Integer, nullable=False, server_default="0"),
    Column("quorum", Integer),
    Column("conversation_id", Integer, ForeignKey("llm_conversations.id", ondelete="SET NULL")),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("priority", Integer, nullable=False, server_default="0"),
    # What ageing has added so far; claims go by the sum.
    Column("boost", Integer, nullable=False, server_default="0"),
    Column("rank", Integer, Computed("priority + boost", persisted=False)),
    Column("run_at", Integer),
    Column("start_by", Integer),
    Column("lease_epoch", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    Column("lease_until", Integer),
    Column("alone", Integer, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False, server_default="3"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("deferrals", Integer, nullable=False, server_default="0"),
    Column("held_by", Text),
    Column("held_until", Integer),
    Column("progress", Integer, nullable=False, server_default="0"),
    Column("progress_message", Text),
    Column("created_at", Integer, nullable=False, server_default=_NOW),
    Column("updated_at", Integer, nullable=False, server_default=_NOW),
    Column("started_at", Integer),
    Column("finished_at", Integer),
    Column("changed_by", Text, nullable=False, server_default="host"),
    Column("reason", Text),
    # The first of those who created it: what budgets and costs of a whole tree go by. NULL: it was created by no job.
    Column("root_id", Integer),
    CheckConstraint(any_of("state", JobState), name="state_known"),
    CheckConstraint("length(type) BETWEEN 1 AND 100 AND instr(type, '|') = 0", name="type_name"),
    CheckConstraint("length(queue) BETWEEN 1 AND 100 AND instr(queue, '|') = 0", name="queue_name"),
    CheckConstraint("model IS NULL OR instr(model, '|') = 0", name="model_name"),
    CheckConstraint(
        "requires IS NULL OR (length(requires) BETWEEN 1 AND 200 AND instr(requires, '|') = 0)", name="requires_names"
    ),
    CheckConstraint("group_key IS NULL OR length(group_key) BETWEEN 1 AND 200", name="group_key_length"),
    CheckConstraint("group_limit IS NULL OR (group_key IS NOT NULL AND group_limit >= 1)", name="group_limit_positive"),
    CheckConstraint("unique_key IS NULL OR length(unique_key) BETWEEN 1 AND 200", name="unique_key_length"),
    CheckConstraint("pending >= 0 AND (quorum IS NULL OR quorum >= 1)", name="pending_positive"),
    CheckConstraint("boost BETWEEN 0 AND 1000000000", name="boost_range"),
    CheckConstraint("priority BETWEEN -1000000000 AND 1000000000", name="priority_range"),
    CheckConstraint("progress BETWEEN 0 AND 100", name="progress_range"),
    CheckConstraint("max_attempts BETWEEN 1 AND 1000", name="max_attempts_range"),
    CheckConstraint("failures >= 0 AND losses >= 0 AND deferrals >= 0 AND attempt >= 0", name="counters_positive"),
    CheckConstraint("(state = 'delayed') = (run_at IS NOT NULL)", name="run_at_when_delayed"),
    CheckConstraint(
        "(state = 'active') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL)", name="lease_when_active"
    ),
    sqlite_autoincrement=True,
)

Index("llm_jobs_key", jobs.c.key, unique=True, sqlite_where=text("key IS NOT NULL"))
Index("llm_jobs_waiting", jobs.c.lane, jobs.c.rank.desc(), jobs.c.id, sqlite_where=text("state = 'waiting'"))
Index("llm_jobs_ageing", jobs.c.boost, jobs.c.updated_at, sqlite_where=text("state = 'waiting'"))
Index("llm_jobs_delayed", jobs.c.run_at, sqlite_where=text("state = 'delayed'"))
Index("llm_jobs_active", jobs.c.lease_owner, jobs.c.lease_until, sqlite_where=text("state = 'active'"))
Index("llm_jobs_start_by", jobs.c.start_by, sqlite_where=text("state = 'waiting' AND start_by IS NOT NULL"))
Index("llm_jobs_held", jobs.c.held_until, sqlite_where=text("state = 'waiting' AND held_until IS NOT NULL"))
# The few that were in flight when a process died: they are claimed one at a time, so they are looked up apart.
Index("llm_jobs_suspect", jobs.c.losses, sqlite_where=text("state = 'waiting' AND losses > 0"))
Index("llm_jobs_tag", jobs.c.tag, jobs.c.state, sqlite_where=text("tag IS NOT NULL"))
_LIVE = any_of("state", (state for state in JobState if state not in TERMINAL_STATES))
Index("llm_jobs_unique", jobs.c.unique_key, unique=True, sqlite_where=text(f"unique_key IS NOT NULL AND {_LIVE}"))
Index("llm_jobs_throttle", jobs.c.unique_key, jobs.c.id, sqlite_where=text("unique_key IS NOT NULL"))
Index("llm_jobs_group", jobs.c.group_key, sqlite_where=text("state = 'active' AND group_key IS NOT NULL"))
Index("llm_jobs_root", jobs.c.root_id, sqlite_where=text("root_id IS NOT NULL"))
Index("llm_jobs_parent", jobs.c.parent_id, sqlite_where=text("parent_id IS NOT NULL"))
Index("llm_jobs_conversation", jobs.c.conversation_id, jobs.c.id, sqlite_where=text("conversation_id IS NOT NULL"))
TURNS = f"conversation_id IS NOT NULL AND {_LIVE}"
# What a new turn of a conversation queues behind is found among these, not among all it ever had.
Index("llm_jobs_turns", jobs.c.conversation_id, jobs.c.id, sqlite_where=text(TURNS))
Index("llm_jobs_ended", jobs.c.finished_at, sqlite_where=text("finished_at IS NOT NULL"))
Index("llm_jobs_parked", jobs.c.id, sqlite_where=text("state = 'waiting_children'"))
Index("llm_jobs_failed", jobs.c.id, sqlite_where=text("state = 'failed'"))

job_data = Table(
    "llm_job_data",
    metadata,
    job_id_column(primary_key=True),
    Column("description", Text),
    Column("data", Text, CheckConstraint("json_valid(data)", name="data_json"), nullable=False, server_default="{}"),
    Column("options", Text, CheckConstraint(_OPTIONS, name="options_known"), nullable=False, server_default="{}"),
)
_BUDGET = "options <> '{}' AND json_extract(options, '$.budget') IS NOT NULL"
Index("llm_job_data_budget", job_data.c.job_id, sqlite_where=text(_BUDGET))

job_results = Table(
    "llm_job_results",
    metadata,
    job_id_column(primary_key=True),
    Column("result", Text, CheckConstraint("result IS NULL OR json_valid(result)", name="result_json")),
    Column("error", Text, CheckConstraint("error IS NULL OR json_valid(error)", name="error_json")),
)

transitions = Table(
    "llm_job_transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    job_id_column(),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    sqlite_autoincrement=True,
)
Index("llm_job_transitions_job", transitions.c.job_id, transitions.c.id)

chunks = Table(
    "llm_job_chunks",
    metadata,
    job_id_column(),
    Column("epoch", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("at", Integer, nullable=False),
    PrimaryKeyConstraint("job_id", "epoch", "seq"),
    sqlite_with_rowid=False,
)

# superseded: it completed and was paid for, but another completion of its step was stored first.
_CALL_STATES = any_of("state", ("open", "completed", "superseded", "failed", "unknown"))

calls = Table(
    "llm_calls",
    metadata,
    Column("id", Integer, primary_key=True),
    job_id_column(),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("limit_key", Text, nullable=False),
    Column("state", Text, CheckConstraint(_CALL_STATES, name="call_state"), nullable=False),
    Column("reserved_tokens", Integer, nullable=False),
    Column("reserved_cost", Integer),
    Column("sent_at", Integer, nullable=False),
    Column("finished_at", Integer),
    Column("first_token_ms", Integer),
    Column("input_uncached", Integer),
    Column("cache_read", Integer),
    Column("cache_write", Integer),
    Column("output_visible", Integer),
    Column("output_reasoning", Integer),
    Column("cost", Integer),
    Column("finish", Text),
    Column("request_id", Text),
    Column("error_class", Text),
    Column("error", Text),
    Column("cache_write_1h", Integer),
    # Requests it stands for on the wire: 0 for one of a group or a batch, and for an answer from the cache.
    Column("requests", Integer, nullable=False, server_default="1"),
    Column("reserved_input", Integer, nullable=False, server_default="0"),
    Column("reserved_output", Integer, nullable=False, server_default="0"),
    # Where its answer came from if not from a call of its own: cache, group, batch, resumed. NULL: from the provider.
    Column("origin", Text),
    # What the provider keeps of it, by which it can be taken up again after a crash (JSON).
    Column("handle", Text, CheckConstraint("handle IS NULL OR json_valid(handle)", name="handle_json")),
    # The price its cost was computed with, as `prices.price_id`.
    Column("price_id", Text),
    # Of an answer from the cache: what the call cost that it first came from.
    Column("saved", Integer),
    sqlite_autoincrement=True,
)
Index("llm_calls_job", calls.c.job_id, calls.c.step)
# The rule that money rests on: a step of a job has at most one completion, for ever.
Index("llm_calls_once", calls.c.job_id, calls.c.step, unique=True, sqlite_where=text("state = 'completed'"))
Index("llm_calls_open", calls.c.job_id, sqlite_where=text("state = 'open'"))
Index("llm_calls_in_flight", calls.c.limit_key, sqlite_where=text("state = 'open'"))
Index("llm_calls_sent", calls.c.sent_at)

call_completions = Table(
    "llm_call_completions",
    metadata,
    Column("call_id", Integer, ForeignKey("llm_calls.id", ondelete="CASCADE"), primary_key=True),
    Column("completion", Text, CheckConstraint("json_valid(completion)", name="completion_json"), nullable=False),
)

steps = Table(
    "llm_steps",
    metadata,
    job_id_column(),
    Column("name", Text, nullable=False),
    Column("value", Text, CheckConstraint("json_valid(value)", name="value_json"), nullable=False),
    Column("at", Integer, nullable=False),
    PrimaryKeyConstraint("job_id", "name"),
    sqlite_with_rowid=False,
)

# `job_id` waits on `depends_on`. `step` names the handler's step that created the edge (children), '' for one made when the job was added.
# open: undecided. met: it counts as done (completed, or its failure is ignored or taken as an answer). failed: its failure counts. moot: the
# quorum was reached, or became out of reach, without it. `name` is what the flow calls the job waited on, `place` its place among the needs.
edges = Table(
    "llm_job_edges",
    metadata,
    job_id_column(),
    Column("depends_on", Integer, ForeignKey("llm_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("name", Text),
    Column("place", Integer, nullable=False, server_default="0"),
    Column(
        "policy",
        Text,
        CheckConstraint(any_of("policy", ("fail", "ignore", "continue")), name="edge_policy"),
        nullable=False,
        server_default="fail",
    ),
    Column(
        "state",
        Text,
        CheckConstraint(any_of("state", ("open", "met", "failed", "moot")), name="edge_state"),
        nullable=False,
        server_default="open",
    ),
    # With the step: a turn may wait on the turn before it for its place, and for its result as well.
    PrimaryKeyConstraint("job_id", "depends_on", "step"),
    CheckConstraint("job_id <> depends_on", name="edge_not_to_itself"),
    sqlite_with_rowid=False,
)
# Not partial: the foreign key needs it as well, or deleting a job would read every edge.
Index("llm_job_edges_on", edges.c.depends_on, edges.c.state)

queues = Table(
    "llm_queues",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused_at", Integer),
)

# Kept by triggers, so that counting a million jobs is reading a handful of rows.
job_counts = Table(
    "llm_job_counts",
    metadata,
    Column("queue", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("jobs", Integer, CheckConstraint("jobs >= 0", name="jobs_positive"), nullable=False),
    PrimaryKeyConstraint("queue", "type", "state"),
    sqlite_with_rowid=False,
)

# What was used by the calls of jobs that are deleted: totals never shrink. `day` in days since the epoch, the names '' where there was none.
usage_deleted = Table(
    "llm_usage_deleted",
    metadata,
    Column("day", Integer, nullable=False),
    Column("tag", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("calls", Integer, nullable=False),
    *(Column(name, Integer, nullable=False) for name in USAGE_COLUMNS),
    Column("cost", Integer),
    Column("unpriced", Integer, nullable=False),
    PrimaryKeyConstraint("tag", "day", "provider", "model"),
    sqlite_with_rowid=False,
)

# What a schedule adds is a job with the key `schedule:NAME:FIRE_AT`, so that one occurrence is one job whatever the clock does.
schedules = Table(
    "llm_schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("cron", Text),
    Column(
        "every_ms", Integer, CheckConstraint("every_ms IS NULL OR every_ms >= 1000", name="every_at_least_a_second")
    ),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    # Of the occurrences that were missed while no worker ran: the latest one is made up for, or all of them.
    Column(
        "catch_up",
        Text,
        CheckConstraint(any_of("catch_up", ("latest", "all")), name="catch_up_known"),
        nullable=False,
        server_default="latest",
    ),
    Column("job", Text, CheckConstraint("json_valid(job)", name="job_json"), nullable=False),
    Column("next_at", Integer, nullable=False),
    Column("last_at", Integer),
    Column("paused_at", Integer),
    # Why a worker paused it: it could not be read.
    Column("problem", Text),
    Column("created_at", Integer, nullable=False, server_default=_NOW),
    CheckConstraint("(cron IS NULL) <> (every_ms IS NULL)", name="cron_or_every"),
)
Index("llm_schedules_due", schedules.c.next_at, sqlite_where=text("paused_at IS NULL"))

conversations = Table(
    "llm_conversations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    # The newest message of its log; a fork begins with somebody else's.
    Column("head_id", Integer),
    Column(
        "settings",
        Text,
        CheckConstraint("json_valid(settings)", name="settings_json"),
        nullable=False,
        server_default="{}",
    ),
    Column("created_at", Integer, nullable=False, server_default=_NOW),
    sqlite_autoincrement=True,
)

# Append-only and linked to the message before: a fork shares its past. Written only by the transaction that completes the turn's job.
messages = Table(
    "llm_messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("conversation_id", Integer, ForeignKey("llm_conversations.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", Integer),
    Column("turn", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("content", Text, CheckConstraint("json_valid(content)", name="content_json"), nullable=False),
    Column("tokens", Integer),
    Column("job_id", Integer),
    Column("at", Integer, nullable=False),
    sqlite_autoincrement=True,
)
Index("llm_messages_conversation", messages.c.conversation_id, messages.c.id)
