"""Every table of the board, as SQLAlchemy Core, and the triggers that make the transitions log unforgeable.

Rules (docs/architecture.md): INTEGER epoch milliseconds everywhere; values bounded by CHECK; hot rows narrow, with payloads, results and
chunks beside them; one partial index per hot state. Money is in nano-dollars (1e-9 $), NULL where unknown.

Every change of `llm_jobs.state` appends a row to `llm_job_transitions` by trigger, in the same statement, whoever makes it and in whatever
language; a move that `lifecycle` does not allow, or a lease epoch that falls, aborts its transaction. A job that leaves `active` with a call
still open leaves that call's outcome unknown, until someone who knows it says so.
"""

from collections.abc import Iterable

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from .lifecycle import FIRST_STATES, TERMINAL_STATES, TRANSITIONS, JobState
from .model import USAGE_COLUMNS

metadata = MetaData()

_NOW = text("(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))")


def _any(column: str, values: Iterable[str]) -> str:
    """`column` is one of `values`, as comparisons: SQLite builds a table for every run of an IN list, which costs more than the row."""
    return "(" + " OR ".join(f"{column} = '{value}'" for value in values) + ")"


# Checked here, not only by the client, so that a claim never meets options it cannot read, whoever wrote them.
_DURATIONS = ("first_token_timeout", "no_progress_timeout", "total_timeout", "job_timeout")
_OPTIONS = "options = '{}' OR " + " AND ".join(
    [
        "json_valid(options)",
        "json_type(options) = 'object'",
        "coalesce(json_extract(options, '$.on_unknown'), 'retry') IN ('retry', 'park')",
        *(f"coalesce(json_type(options, '$.{name}'), 'null') IN ('null', 'integer', 'real')" for name in _DURATIONS),
    ]
)


def _job_id(*, primary_key: bool = False) -> Column[int]:
    return Column(
        "job_id", Integer, ForeignKey("llm_jobs.id", ondelete="CASCADE"), nullable=False, primary_key=primary_key
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
    CheckConstraint(_any("state", JobState), name="state_known"),
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
_LIVE = _any("state", (state for state in JobState if state not in TERMINAL_STATES))
Index("llm_jobs_unique", jobs.c.unique_key, unique=True, sqlite_where=text(f"unique_key IS NOT NULL AND {_LIVE}"))
Index("llm_jobs_throttle", jobs.c.unique_key, jobs.c.id, sqlite_where=text("unique_key IS NOT NULL"))
Index("llm_jobs_group", jobs.c.group_key, sqlite_where=text("state = 'active' AND group_key IS NOT NULL"))
Index("llm_jobs_parent", jobs.c.parent_id, sqlite_where=text("parent_id IS NOT NULL"))
Index("llm_jobs_conversation", jobs.c.conversation_id, jobs.c.id, sqlite_where=text("conversation_id IS NOT NULL"))
_TURNS = f"conversation_id IS NOT NULL AND {_LIVE}"
# What a new turn of a conversation queues behind is found among these, not among all it ever had.
Index("llm_jobs_turns", jobs.c.conversation_id, jobs.c.id, sqlite_where=text(_TURNS))
Index("llm_jobs_ended", jobs.c.finished_at, sqlite_where=text("finished_at IS NOT NULL"))
Index("llm_jobs_parked", jobs.c.id, sqlite_where=text("state = 'waiting_children'"))
Index("llm_jobs_failed", jobs.c.id, sqlite_where=text("state = 'failed'"))

job_data = Table(
    "llm_job_data",
    metadata,
    _job_id(primary_key=True),
    Column("description", Text),
    Column("data", Text, CheckConstraint("json_valid(data)", name="data_json"), nullable=False, server_default="{}"),
    Column("options", Text, CheckConstraint(_OPTIONS, name="options_known"), nullable=False, server_default="{}"),
)

job_results = Table(
    "llm_job_results",
    metadata,
    _job_id(primary_key=True),
    Column("result", Text, CheckConstraint("result IS NULL OR json_valid(result)", name="result_json")),
    Column("error", Text, CheckConstraint("error IS NULL OR json_valid(error)", name="error_json")),
)

transitions = Table(
    "llm_job_transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    _job_id(),
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
    _job_id(),
    Column("epoch", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("at", Integer, nullable=False),
    PrimaryKeyConstraint("job_id", "epoch", "seq"),
    sqlite_with_rowid=False,
)

# superseded: it completed and was paid for, but another completion of its step was stored first.
_CALL_STATES = _any("state", ("open", "completed", "superseded", "failed", "unknown"))

calls = Table(
    "llm_calls",
    metadata,
    Column("id", Integer, primary_key=True),
    _job_id(),
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
    sqlite_autoincrement=True,
)
Index("llm_calls_job", calls.c.job_id, calls.c.step)
Index("llm_calls_limit", calls.c.limit_key, calls.c.sent_at)
# The rule that money rests on: a step of a job has at most one completion, for ever.
Index("llm_calls_once", calls.c.job_id, calls.c.step, unique=True, sqlite_where=text("state = 'completed'"))
Index("llm_calls_open", calls.c.job_id, sqlite_where=text("state = 'open'"))

call_completions = Table(
    "llm_call_completions",
    metadata,
    Column("call_id", Integer, ForeignKey("llm_calls.id", ondelete="CASCADE"), primary_key=True),
    Column("completion", Text, CheckConstraint("json_valid(completion)", name="completion_json"), nullable=False),
)

steps = Table(
    "llm_steps",
    metadata,
    _job_id(),
    Column("name", Text, nullable=False),
    Column("value", Text, CheckConstraint("json_valid(value)", name="value_json"), nullable=False),
    Column("at", Integer, nullable=False),
    PrimaryKeyConstraint("job_id", "name"),
    sqlite_with_rowid=False,
)

limit_holds = Table(
    "llm_limit_holds",
    metadata,
    Column("key", Text, primary_key=True),
    Column("until", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Integer, nullable=False),
)


# `job_id` waits on `depends_on`. `step` names the handler's step that created the edge (children), '' for one made when the job was added.
# open: undecided. met: it counts as done (completed, or its failure is ignored or taken as an answer). failed: its failure counts. moot: the
# quorum was reached, or became out of reach, without it. `name` is what the flow calls the job waited on, `place` its place among the needs.
edges = Table(
    "llm_job_edges",
    metadata,
    _job_id(),
    Column("depends_on", Integer, ForeignKey("llm_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("name", Text),
    Column("place", Integer, nullable=False, server_default="0"),
    Column(
        "policy",
        Text,
        CheckConstraint(_any("policy", ("fail", "ignore", "continue")), name="edge_policy"),
        nullable=False,
        server_default="fail",
    ),
    Column(
        "state",
        Text,
        CheckConstraint(_any("state", ("open", "met", "failed", "moot")), name="edge_state"),
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

# What was used by the calls of jobs that are deleted: totals never shrink. `day` in days since the epoch, `tag` '' where there was none.
usage_deleted = Table(
    "llm_usage_deleted",
    metadata,
    Column("day", Integer, nullable=False),
    Column("tag", Text, nullable=False),
    Column("calls", Integer, nullable=False),
    *(Column(name, Integer, nullable=False) for name in USAGE_COLUMNS),
    Column("cost", Integer),
    Column("unpriced", Integer, nullable=False),
    PrimaryKeyConstraint("tag", "day"),
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
        CheckConstraint(_any("catch_up", ("latest", "all")), name="catch_up_known"),
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


def _count(row: str, by: int) -> str:
    return (
        f"INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES ({row}.queue, {row}.type, {row}.state, {by}) "
        f"ON CONFLICT DO UPDATE SET jobs = jobs + {by}"
        if by > 0
        else f"UPDATE llm_job_counts SET jobs = jobs - 1 WHERE queue = {row}.queue AND type = {row}.type AND state = {row}.state"
    )


# The edge by which a turn of a conversation waits on the turn before it, whatever else it waits on.
TURN_STEP = "@turn"


def _terminal(state: str) -> str:
    return _any(state, sorted(TERMINAL_STATES))


def _queue_up(pending: str) -> str:
    """Put the turn NEW behind the last live turn of its conversation: the one that no other turn waits on.

    A turn that is sent back while others have not yet been told of its end keeps its place before them.
    """
    return f"""DELETE FROM llm_job_edges WHERE job_id = NEW.id AND step = '{TURN_STEP}';
        INSERT INTO llm_job_edges (job_id, depends_on, step, policy)
        SELECT NEW.id, tail.id, '{TURN_STEP}', CASE json_extract(settings, '$.on_failed') WHEN 'block' THEN 'fail' ELSE 'ignore' END
        FROM llm_conversations AS c JOIN llm_jobs AS tail ON tail.id = (
            SELECT id FROM llm_jobs WHERE conversation_id = NEW.conversation_id AND {_TURNS} AND id <> NEW.id AND NOT EXISTS (
                SELECT 1 FROM llm_job_edges WHERE depends_on = llm_jobs.id AND state = 'open' AND step = '{TURN_STEP}')
            ORDER BY id DESC LIMIT 1)
        WHERE c.id = NEW.conversation_id AND NOT EXISTS (
            SELECT 1 FROM llm_job_edges WHERE depends_on = NEW.id AND state = 'open' AND step = '{TURN_STEP}');
        UPDATE llm_jobs SET pending = {pending}, state = CASE state WHEN 'waiting' THEN 'waiting_children' ELSE state END,
        reason = 'an earlier turn of its conversation comes first' WHERE id = NEW.id AND EXISTS (
            SELECT 1 FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '{TURN_STEP}')"""


def _pass_on(row: str) -> str:
    """Who waits on a turn that ends before its own came waits on what that one waited on, whatever its end: it has said nothing."""
    before = f"SELECT depends_on FROM llm_job_edges WHERE job_id = {row}.id AND state = 'open' AND step = '{TURN_STEP}'"
    return f"""UPDATE OR IGNORE llm_job_edges SET depends_on = ({before})
        WHERE depends_on = {row}.id AND state = 'open' AND step = '{TURN_STEP}' AND EXISTS ({before})"""


def _keep_usage() -> str:
    """Add what the calls of the job OLD used to the totals of deleted jobs."""
    names = ", ".join(USAGE_COLUMNS)
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in USAGE_COLUMNS)
    more = ", ".join(f"{name} = {name} + excluded.{name}" for name in ("calls", *USAGE_COLUMNS, "unpriced"))
    return f"""INSERT INTO llm_usage_deleted (day, tag, calls, {names}, cost, unpriced)
        SELECT sent_at / 86400000, coalesce(OLD.tag, ''), count(*), {sums}, sum(cost), sum(cost IS NULL AND state IN ('completed', 'superseded'))
        FROM llm_calls WHERE job_id = OLD.id GROUP BY 1
        ON CONFLICT DO UPDATE SET {more}, cost = coalesce(cost + excluded.cost, cost, excluded.cost)"""


def trigger_statements() -> list[str]:
    """The SQLite triggers over `llm_jobs`, generated from the lifecycle table; run after the tables exist.

    All of them are AFTER triggers, which abort a statement just as well and spare SQLite reading every row twice.

    A conversation has one turn that is not behind another (docs/semantics.md). Adding a turn, in whatever language, and sending one back put
    it behind the last. That is a second move in the same statement, and SQLite does not say in which order triggers run: so one trigger does
    all that is to be done for such a row, and the triggers of the other rows leave it out.
    """
    legal = " ".join(
        f"WHEN '{before}' THEN {_any('NEW.state', sorted(after))}" for before, after in TRANSITIONS.items() if after
    )
    log = "INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES"
    log_added = f"""{log} (NEW.id, NULL, CASE WHEN {_any("NEW.state", sorted(FIRST_STATES))} THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: a job is added as waiting, delayed or waiting_children') END,
        NEW.created_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason)"""
    log_moved = f"""{log} (NEW.id, OLD.state, CASE WHEN CASE OLD.state {legal} ELSE 0 END THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: illegal transition') END,
        NEW.updated_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason)"""
    recount = f"""{_count("OLD", -1)}; {_count("NEW", 1)}"""
    turn_back = f"NEW.conversation_id IS NOT NULL AND {_terminal('OLD.state')} AND NOT {_terminal('NEW.state')}"
    open_edges = "(SELECT count(*) FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open')"
    return [
        f"""CREATE TRIGGER llm_jobs_added AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NULL
        BEGIN {log_added}; END""",
        f"""CREATE TRIGGER llm_jobs_moved AFTER UPDATE OF state ON llm_jobs WHEN OLD.state <> NEW.state AND NOT ({turn_back})
        BEGIN {log_moved}; END""",
        """CREATE TRIGGER llm_jobs_left AFTER UPDATE OF state ON llm_jobs WHEN OLD.state = 'active' AND NEW.state <> 'active'
        AND EXISTS (SELECT 1 FROM llm_calls WHERE job_id = NEW.id AND state = 'open')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at WHERE job_id = NEW.id AND state = 'open'; END""",
        f"""CREATE TRIGGER llm_jobs_counted AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NULL
        BEGIN {_count("NEW", 1)}; END""",
        f"""CREATE TRIGGER llm_jobs_recounted AFTER UPDATE OF state, queue, type ON llm_jobs
        WHEN (OLD.state <> NEW.state OR OLD.queue <> NEW.queue OR OLD.type <> NEW.type) AND NOT ({turn_back})
        BEGIN {recount}; END""",
        f"""CREATE TRIGGER llm_jobs_uncounted AFTER DELETE ON llm_jobs BEGIN {_count("OLD", -1)}; END""",
        f"""CREATE TRIGGER llm_jobs_deleted BEFORE DELETE ON llm_jobs BEGIN {_keep_usage()}; END""",
        """CREATE TRIGGER llm_jobs_epoch AFTER UPDATE OF lease_epoch ON llm_jobs WHEN NEW.lease_epoch < OLD.lease_epoch
        BEGIN SELECT RAISE(ABORT, 'llm_jobs.lease_epoch never falls'); END""",
        f"""CREATE TRIGGER llm_turns_added AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NOT NULL
        BEGIN {log_added}; {_count("NEW", 1)}; {_queue_up("pending + 1")}; END""",
        f"""CREATE TRIGGER llm_turns_sent_back AFTER UPDATE OF state ON llm_jobs WHEN {turn_back}
        BEGIN {log_moved}; {recount}; {_queue_up(open_edges)};
        UPDATE llm_jobs SET pending = {open_edges} WHERE id = NEW.id AND pending <> {open_edges}; END""",
        f"""CREATE TRIGGER llm_turns_left AFTER UPDATE OF state ON llm_jobs
        WHEN NEW.conversation_id IS NOT NULL AND {_terminal("NEW.state")} AND NOT {_terminal("OLD.state")} BEGIN {_pass_on("NEW")};
        UPDATE llm_job_edges SET state = 'moot' WHERE job_id = NEW.id AND state = 'open' AND step = '{TURN_STEP}'; END""",
        f"""CREATE TRIGGER llm_turns_deleted BEFORE DELETE ON llm_jobs WHEN OLD.conversation_id IS NOT NULL BEGIN {_pass_on("OLD")}; END""",
        """CREATE TRIGGER llm_turns_stay AFTER UPDATE OF conversation_id ON llm_jobs WHEN NEW.conversation_id IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'llm_jobs.conversation_id: a job is added to a conversation or never is in it'); END""",
    ]
