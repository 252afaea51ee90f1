"""The SQLite triggers that make the transitions log unforgeable and keep what is counted.

Every change of `llm_jobs.state` appends a row to `llm_job_transitions` by trigger, in the same statement, whoever makes it and in whatever
language; a move that `lifecycle` does not allow, or a lease epoch that falls, aborts its transaction. A job that leaves `active` with a call
still open leaves that call's outcome unknown, until someone who knows it says so; but for calls that a batch makes, which is another job: theirs
is unknown when that one is cancelled or fails.
"""

from .lifecycle import FIRST_STATES, TERMINAL_STATES, TRANSITIONS
from .model import USAGE_COLUMNS
from .schema import TURNS, any_of


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
    return any_of(state, sorted(TERMINAL_STATES))


def _queue_up(pending: str) -> str:
    """Put the turn NEW behind the last live turn of its conversation: the one that no other turn waits on.

    A turn that is sent back while others have not yet been told of its end keeps its place before them.
    """
    return f"""DELETE FROM llm_job_edges WHERE job_id = NEW.id AND step = '{TURN_STEP}';
        INSERT INTO llm_job_edges (job_id, depends_on, step, policy)
        SELECT NEW.id, tail.id, '{TURN_STEP}', CASE json_extract(settings, '$.on_failed') WHEN 'block' THEN 'fail' ELSE 'ignore' END
        FROM llm_conversations AS c JOIN llm_jobs AS tail ON tail.id = (
            SELECT id FROM llm_jobs WHERE conversation_id = NEW.conversation_id AND {TURNS} AND id <> NEW.id AND NOT EXISTS (
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
    return f"""INSERT INTO llm_usage_deleted (day, tag, provider, model, calls, {names}, cost, unpriced)
        SELECT sent_at / 86400000, coalesce(OLD.tag, ''), provider, model, count(*), {sums}, sum(cost), sum(cost IS NULL AND state IN ('completed', 'superseded'))
        FROM llm_calls WHERE job_id = OLD.id GROUP BY 1, provider, model
        ON CONFLICT DO UPDATE SET {more}, cost = coalesce(cost + excluded.cost, cost, excluded.cost)"""


def _of_budget(row: str) -> str:
    return f"budget = {row}.budget AND period = {row}.period"


def budget_triggers() -> list[str]:
    """What is reserved of budgets is always the sum of their reservations. One that is deleted, with its job or settled, counts as spent."""
    return [
        """CREATE TRIGGER llm_budget_reserved AFTER INSERT ON llm_budget_reservations BEGIN
        INSERT INTO llm_budget_usage (budget, period, reserved, tokens_reserved, updated_at)
        VALUES (NEW.budget, NEW.period, NEW.amount, NEW.tokens, coalesce((SELECT sent_at FROM llm_calls WHERE id = NEW.call_id), 0))
        ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved, tokens_reserved = tokens_reserved + excluded.tokens_reserved; END""",
        f"""CREATE TRIGGER llm_budget_settled AFTER UPDATE OF amount, tokens ON llm_budget_reservations BEGIN
        UPDATE llm_budget_usage SET reserved = reserved + NEW.amount - OLD.amount, tokens_reserved = tokens_reserved + NEW.tokens - OLD.tokens
        WHERE {_of_budget("NEW")}; END""",
        f"""CREATE TRIGGER llm_budget_spent AFTER DELETE ON llm_budget_reservations BEGIN
        UPDATE llm_budget_usage SET reserved = reserved - OLD.amount, spent = spent + OLD.amount,
            tokens_reserved = tokens_reserved - OLD.tokens, tokens_spent = tokens_spent + OLD.tokens
        WHERE {_of_budget("OLD")}; END""",
        """CREATE TRIGGER llm_budget_forgotten AFTER DELETE ON llm_jobs
        BEGIN DELETE FROM llm_budget_usage WHERE budget = 'job:' || OLD.id; END""",
    ]


def batch_triggers() -> list[str]:
    """Whoever drove a batch and will not hear its end leaves the outcome of its members' calls unknown; a job sent back may still learn it."""
    return [
        """CREATE TRIGGER llm_batches_left AFTER UPDATE OF state ON llm_jobs
        WHEN NEW.type = '@batch' AND (NEW.state = 'cancelled' OR NEW.state = 'failed')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at WHERE state = 'open' AND id IN (
            SELECT call_id FROM llm_batches AS batch CROSS JOIN llm_batch_requests AS request ON request.batch_id = batch.id
            WHERE batch.job_id = NEW.id AND call_id IS NOT NULL); END""",
    ]


def trigger_statements() -> list[str]:
    """The SQLite triggers over `llm_jobs`, generated from the lifecycle table; run after the tables exist.

    All of them are AFTER triggers, which abort a statement just as well and spare SQLite reading every row twice.

    A conversation has one turn that is not behind another (docs/semantics.md). Adding a turn, in whatever language, and sending one back put
    it behind the last. That is a second move in the same statement, and SQLite does not say in which order triggers run: so one trigger does
    all that is to be done for such a row, and the triggers of the other rows leave it out.
    """
    legal = " ".join(
        f"WHEN '{before}' THEN {any_of('NEW.state', sorted(after))}" for before, after in TRANSITIONS.items() if after
    )
    log = "INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES"
    log_added = f"""{log} (NEW.id, NULL, CASE WHEN {any_of("NEW.state", sorted(FIRST_STATES))} THEN NEW.state
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
        AND EXISTS (SELECT 1 FROM llm_calls WHERE job_id = NEW.id AND state = 'open' AND origin IS NOT 'batch')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at
        WHERE job_id = NEW.id AND state = 'open' AND origin IS NOT 'batch'; END""",
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
        *budget_triggers(),
        *batch_triggers(),
    ]
