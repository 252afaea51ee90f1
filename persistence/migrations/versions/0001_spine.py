"""The first tables of the board."""

from alembic import op

revision = "0001"
down_revision = None

# Written out, not taken from `schema`: what this revision made stays what it made.
STATEMENTS = (
    """
CREATE TABLE llm_jobs (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "key" TEXT CONSTRAINT key_length CHECK (length(key) BETWEEN 1 AND 200),
    type TEXT NOT NULL,
    queue TEXT DEFAULT 'default' NOT NULL,
    model TEXT,
    lane TEXT GENERATED ALWAYS AS (queue || '|' || type || '|' || coalesce(model, '')) VIRTUAL,
    tag TEXT,
    state TEXT DEFAULT 'waiting' NOT NULL,
    priority INTEGER DEFAULT '0' NOT NULL,
    run_at INTEGER,
    start_by INTEGER,
    lease_epoch INTEGER DEFAULT '0' NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER,
    alone INTEGER DEFAULT '0' NOT NULL,
    attempt INTEGER DEFAULT '0' NOT NULL,
    max_attempts INTEGER DEFAULT '3' NOT NULL,
    failures INTEGER DEFAULT '0' NOT NULL,
    losses INTEGER DEFAULT '0' NOT NULL,
    deferrals INTEGER DEFAULT '0' NOT NULL,
    held_by TEXT,
    held_until INTEGER,
    progress INTEGER DEFAULT '0' NOT NULL,
    progress_message TEXT,
    created_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
    updated_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    changed_by TEXT DEFAULT 'host' NOT NULL,
    reason TEXT,
    CONSTRAINT state_known CHECK ((state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active' OR state = 'completed' OR state = 'failed' OR state = 'cancelled')),
    CONSTRAINT type_name CHECK (length(type) BETWEEN 1 AND 100 AND instr(type, '|') = 0),
    CONSTRAINT queue_name CHECK (length(queue) BETWEEN 1 AND 100 AND instr(queue, '|') = 0),
    CONSTRAINT priority_range CHECK (priority BETWEEN -1000000000 AND 1000000000),
    CONSTRAINT progress_range CHECK (progress BETWEEN 0 AND 100),
    CONSTRAINT max_attempts_range CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT counters_positive CHECK (failures >= 0 AND losses >= 0 AND deferrals >= 0 AND attempt >= 0),
    CONSTRAINT run_at_when_delayed CHECK ((state = 'delayed') = (run_at IS NOT NULL)),
    CONSTRAINT lease_when_active CHECK ((state = 'active') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL))
)
    """,
    """
CREATE TABLE llm_limit_holds (
    "key" TEXT NOT NULL,
    until INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY ("key")
)
    """,
    """
CREATE TABLE llm_calls (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    step TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    limit_key TEXT NOT NULL,
    state TEXT NOT NULL CONSTRAINT call_state CHECK ((state = 'open' OR state = 'completed' OR state = 'superseded' OR state = 'failed' OR state = 'unknown')),
    reserved_tokens INTEGER NOT NULL,
    reserved_cost INTEGER,
    sent_at INTEGER NOT NULL,
    finished_at INTEGER,
    first_token_ms INTEGER,
    input_uncached INTEGER,
    cache_read INTEGER,
    cache_write INTEGER,
    output_visible INTEGER,
    output_reasoning INTEGER,
    cost INTEGER,
    finish TEXT,
    request_id TEXT,
    error_class TEXT,
    error TEXT,
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
    """,
    """
CREATE TABLE llm_job_chunks (
    job_id INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    step TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (job_id, epoch, seq),
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_job_data (
    job_id INTEGER NOT NULL,
    description TEXT,
    data TEXT DEFAULT '{}' NOT NULL CONSTRAINT data_json CHECK (json_valid(data)),
    options TEXT DEFAULT '{}' NOT NULL CONSTRAINT options_known CHECK (options = '{}' OR json_valid(options) AND json_type(options) = 'object' AND coalesce(json_extract(options, '$.on_unknown'), 'retry') IN ('retry', 'park') AND coalesce(json_type(options, '$.first_token_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.no_progress_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.total_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.job_timeout'), 'null') IN ('null', 'integer', 'real')),
    PRIMARY KEY (job_id),
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
    """,
    """
CREATE TABLE llm_job_results (
    job_id INTEGER NOT NULL,
    result TEXT CONSTRAINT result_json CHECK (result IS NULL OR json_valid(result)),
    error TEXT CONSTRAINT error_json CHECK (error IS NULL OR json_valid(error)),
    PRIMARY KEY (job_id),
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
    """,
    """
CREATE TABLE llm_job_transitions (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT,
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
    """,
    """
CREATE TABLE llm_steps (
    job_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL CONSTRAINT value_json CHECK (json_valid(value)),
    at INTEGER NOT NULL,
    PRIMARY KEY (job_id, name),
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_call_completions (
    call_id INTEGER NOT NULL,
    completion TEXT NOT NULL CONSTRAINT completion_json CHECK (json_valid(completion)),
    PRIMARY KEY (call_id),
    FOREIGN KEY(call_id) REFERENCES llm_calls (id) ON DELETE CASCADE
)
    """,
    """
CREATE INDEX llm_jobs_active ON llm_jobs (lease_owner, lease_until) WHERE state = 'active'
    """,
    """
CREATE INDEX llm_jobs_delayed ON llm_jobs (run_at) WHERE state = 'delayed'
    """,
    """
CREATE INDEX llm_jobs_failed ON llm_jobs (id) WHERE state = 'failed'
    """,
    """
CREATE INDEX llm_jobs_held ON llm_jobs (held_until) WHERE state = 'waiting' AND held_until IS NOT NULL
    """,
    """
CREATE UNIQUE INDEX llm_jobs_key ON llm_jobs ("key") WHERE key IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_start_by ON llm_jobs (start_by) WHERE state = 'waiting' AND start_by IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_suspect ON llm_jobs (losses) WHERE state = 'waiting' AND losses > 0
    """,
    """
CREATE INDEX llm_jobs_tag ON llm_jobs (tag, state) WHERE tag IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_waiting ON llm_jobs (lane, priority DESC, id) WHERE state = 'waiting'
    """,
    """
CREATE INDEX llm_calls_job ON llm_calls (job_id, step)
    """,
    """
CREATE INDEX llm_calls_limit ON llm_calls (limit_key, sent_at)
    """,
    """
CREATE UNIQUE INDEX llm_calls_once ON llm_calls (job_id, step) WHERE state = 'completed'
    """,
    """
CREATE INDEX llm_calls_open ON llm_calls (job_id) WHERE state = 'open'
    """,
    """
CREATE INDEX llm_job_transitions_job ON llm_job_transitions (job_id, id)
    """,
    """
CREATE TRIGGER llm_jobs_added AFTER INSERT ON llm_jobs
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, NULL, CASE WHEN (NEW.state = 'delayed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: a job is added as waiting, delayed or waiting_children') END,
        NEW.created_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); END
    """,
    """
CREATE TRIGGER llm_jobs_moved AFTER UPDATE OF state ON llm_jobs WHEN OLD.state <> NEW.state
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, OLD.state, CASE WHEN CASE OLD.state WHEN 'waiting' THEN (NEW.state = 'active' OR NEW.state = 'cancelled' OR NEW.state = 'delayed' OR NEW.state = 'failed') WHEN 'delayed' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting') WHEN 'waiting_children' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting') WHEN 'active' THEN (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'failed' THEN (NEW.state = 'waiting') WHEN 'cancelled' THEN (NEW.state = 'waiting') ELSE 0 END THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: illegal transition') END,
        NEW.updated_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); END
    """,
    """
CREATE TRIGGER llm_jobs_left AFTER UPDATE OF state ON llm_jobs WHEN OLD.state = 'active' AND NEW.state <> 'active'
        AND EXISTS (SELECT 1 FROM llm_calls WHERE job_id = NEW.id AND state = 'open')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at WHERE job_id = NEW.id AND state = 'open'; END
    """,
    """
CREATE TRIGGER llm_jobs_epoch AFTER UPDATE OF lease_epoch ON llm_jobs WHEN NEW.lease_epoch < OLD.lease_epoch
        BEGIN SELECT RAISE(ABORT, 'llm_jobs.lease_epoch never falls'); END
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement.strip())
