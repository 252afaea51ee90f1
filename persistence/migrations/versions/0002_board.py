"""The board in full: what jobs wait on, queues, groups, schedules, conversations, and counts that are kept.

`llm_jobs` is rebuilt, because SQLite cannot change a generated column or add a check: created anew beside the old one, filled, and put in its
place. Its triggers go with the old table and are made again once the rows are over, so that the copying logs nothing.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

# Written out, not taken from `schema`: what this revision made stays what it made.
STATEMENTS = (
    """
CREATE TABLE llm_conversations (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    head_id INTEGER,
    settings TEXT DEFAULT '{}' NOT NULL CONSTRAINT settings_json CHECK (json_valid(settings)),
    created_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
    UNIQUE (name)
)
    """,
    """
CREATE TABLE llm_job_counts (
    queue TEXT NOT NULL,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs INTEGER NOT NULL CONSTRAINT jobs_positive CHECK (jobs >= 0),
    PRIMARY KEY (queue, type, state)
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_queues (
    name TEXT NOT NULL,
    paused_at INTEGER,
    PRIMARY KEY (name)
)
    """,
    """
CREATE TABLE llm_schedules (
    name TEXT NOT NULL,
    cron TEXT,
    every_ms INTEGER CONSTRAINT every_at_least_a_second CHECK (every_ms IS NULL OR every_ms >= 1000),
    timezone TEXT DEFAULT 'UTC' NOT NULL,
    catch_up TEXT DEFAULT 'latest' NOT NULL CONSTRAINT catch_up_known CHECK ((catch_up = 'latest' OR catch_up = 'all')),
    job TEXT NOT NULL CONSTRAINT job_json CHECK (json_valid(job)),
    next_at INTEGER NOT NULL,
    last_at INTEGER,
    paused_at INTEGER,
    problem TEXT,
    created_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
    PRIMARY KEY (name),
    CONSTRAINT cron_or_every CHECK ((cron IS NULL) <> (every_ms IS NULL))
)
    """,
    """
CREATE TABLE llm_usage_deleted (
    day INTEGER NOT NULL,
    tag TEXT NOT NULL,
    calls INTEGER NOT NULL,
    input_uncached INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output_visible INTEGER NOT NULL,
    output_reasoning INTEGER NOT NULL,
    cost INTEGER,
    unpriced INTEGER NOT NULL,
    PRIMARY KEY (tag, day)
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_messages (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    conversation_id INTEGER NOT NULL,
    parent_id INTEGER,
    turn INTEGER NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL CONSTRAINT content_json CHECK (json_valid(content)),
    tokens INTEGER,
    job_id INTEGER,
    at INTEGER NOT NULL,
    FOREIGN KEY(conversation_id) REFERENCES llm_conversations (id) ON DELETE CASCADE
)
    """,
    """
CREATE TABLE llm_job_edges (
    job_id INTEGER NOT NULL,
    depends_on INTEGER NOT NULL,
    step TEXT DEFAULT '' NOT NULL,
    name TEXT,
    place INTEGER DEFAULT '0' NOT NULL,
    policy TEXT DEFAULT 'fail' NOT NULL CONSTRAINT edge_policy CHECK ((policy = 'fail' OR policy = 'ignore' OR policy = 'continue')),
    state TEXT DEFAULT 'open' NOT NULL CONSTRAINT edge_state CHECK ((state = 'open' OR state = 'met' OR state = 'failed' OR state = 'moot')),
    PRIMARY KEY (job_id, depends_on, step),
    CONSTRAINT edge_not_to_itself CHECK (job_id <> depends_on),
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE,
    FOREIGN KEY(depends_on) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_jobs_new (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "key" TEXT CONSTRAINT key_length CHECK (length(key) BETWEEN 1 AND 200),
    type TEXT NOT NULL,
    queue TEXT DEFAULT 'default' NOT NULL,
    model TEXT,
    requires TEXT,
    group_key TEXT,
    group_limit INTEGER,
    lane TEXT GENERATED ALWAYS AS (queue || '|' || type || '|' || coalesce(model, '') || '|' || coalesce(requires, '') || '|' || coalesce(group_key, '')) VIRTUAL,
    tag TEXT,
    unique_key TEXT,
    parent_id INTEGER,
    pending INTEGER DEFAULT '0' NOT NULL,
    quorum INTEGER,
    conversation_id INTEGER,
    state TEXT DEFAULT 'waiting' NOT NULL,
    priority INTEGER DEFAULT '0' NOT NULL,
    boost INTEGER DEFAULT '0' NOT NULL,
    rank INTEGER GENERATED ALWAYS AS (priority + boost) VIRTUAL,
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
    CONSTRAINT model_name CHECK (model IS NULL OR instr(model, '|') = 0),
    CONSTRAINT requires_names CHECK (requires IS NULL OR (length(requires) BETWEEN 1 AND 200 AND instr(requires, '|') = 0)),
    CONSTRAINT group_key_length CHECK (group_key IS NULL OR length(group_key) BETWEEN 1 AND 200),
    CONSTRAINT group_limit_positive CHECK (group_limit IS NULL OR (group_key IS NOT NULL AND group_limit >= 1)),
    CONSTRAINT unique_key_length CHECK (unique_key IS NULL OR length(unique_key) BETWEEN 1 AND 200),
    CONSTRAINT pending_positive CHECK (pending >= 0 AND (quorum IS NULL OR quorum >= 1)),
    CONSTRAINT boost_range CHECK (boost BETWEEN 0 AND 1000000000),
    CONSTRAINT priority_range CHECK (priority BETWEEN -1000000000 AND 1000000000),
    CONSTRAINT progress_range CHECK (progress BETWEEN 0 AND 100),
    CONSTRAINT max_attempts_range CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT counters_positive CHECK (failures >= 0 AND losses >= 0 AND deferrals >= 0 AND attempt >= 0),
    CONSTRAINT run_at_when_delayed CHECK ((state = 'delayed') = (run_at IS NOT NULL)),
    CONSTRAINT lease_when_active CHECK ((state = 'active') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL)),
    FOREIGN KEY(parent_id) REFERENCES llm_jobs (id) ON DELETE SET NULL,
    FOREIGN KEY(conversation_id) REFERENCES llm_conversations (id) ON DELETE SET NULL
)
    """,
    # A model's name may no longer hold what separates the parts of a lane.
    """
INSERT INTO llm_jobs_new (id, "key", type, queue, model, tag, state, priority, run_at, start_by, lease_epoch, lease_owner, lease_until, alone, attempt, max_attempts, failures, losses, deferrals, held_by, held_until, progress, progress_message, created_at, updated_at, started_at, finished_at, changed_by, reason)
    SELECT id, "key", type, queue, replace(model, '|', '/'), tag, state, priority, run_at, start_by, lease_epoch, lease_owner, lease_until, alone, attempt, max_attempts, failures, losses, deferrals, held_by, held_until, progress, progress_message, created_at, updated_at, started_at, finished_at, changed_by, reason FROM llm_jobs
    """,
    # Ids are never given twice, also not those of jobs that were deleted.
    """
DELETE FROM sqlite_sequence WHERE name = 'llm_jobs_new'
    """,
    """
INSERT INTO sqlite_sequence (name, seq) SELECT 'llm_jobs_new', seq FROM sqlite_sequence WHERE name = 'llm_jobs'
    """,
    """
DROP TABLE llm_jobs
    """,
    """
ALTER TABLE llm_jobs_new RENAME TO llm_jobs
    """,
    """
INSERT INTO llm_job_counts (queue, type, state, jobs) SELECT queue, type, state, count(*) FROM llm_jobs GROUP BY queue, type, state
    """,
    """
CREATE INDEX llm_schedules_due ON llm_schedules (next_at) WHERE paused_at IS NULL
    """,
    """
CREATE INDEX llm_jobs_active ON llm_jobs (lease_owner, lease_until) WHERE state = 'active'
    """,
    """
CREATE INDEX llm_jobs_ageing ON llm_jobs (boost, updated_at) WHERE state = 'waiting'
    """,
    """
CREATE INDEX llm_jobs_conversation ON llm_jobs (conversation_id, id) WHERE conversation_id IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_delayed ON llm_jobs (run_at) WHERE state = 'delayed'
    """,
    """
CREATE INDEX llm_jobs_ended ON llm_jobs (finished_at) WHERE finished_at IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_failed ON llm_jobs (id) WHERE state = 'failed'
    """,
    """
CREATE INDEX llm_jobs_group ON llm_jobs (group_key) WHERE state = 'active' AND group_key IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_held ON llm_jobs (held_until) WHERE state = 'waiting' AND held_until IS NOT NULL
    """,
    """
CREATE UNIQUE INDEX llm_jobs_key ON llm_jobs ("key") WHERE key IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_parent ON llm_jobs (parent_id) WHERE parent_id IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_parked ON llm_jobs (id) WHERE state = 'waiting_children'
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
CREATE INDEX llm_jobs_throttle ON llm_jobs (unique_key, id) WHERE unique_key IS NOT NULL
    """,
    """
CREATE INDEX llm_jobs_turns ON llm_jobs (conversation_id, id) WHERE conversation_id IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active')
    """,
    """
CREATE UNIQUE INDEX llm_jobs_unique ON llm_jobs (unique_key) WHERE unique_key IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active')
    """,
    """
CREATE INDEX llm_jobs_waiting ON llm_jobs (lane, rank DESC, id) WHERE state = 'waiting'
    """,
    """
CREATE INDEX llm_messages_conversation ON llm_messages (conversation_id, id)
    """,
    """
CREATE INDEX llm_job_edges_on ON llm_job_edges (depends_on, state)
    """,
    """
CREATE VIEW llm_inbox AS
        SELECT job.id, job.type, body.data, job.model, job.queue, job.priority, job."key", job.unique_key, job.tag, body.description, job.run_at,
            job.start_by, job.max_attempts, job.group_key, job.group_limit, job.requires, conversation.name AS conversation, body.options
        FROM llm_jobs AS job JOIN llm_job_data AS body ON body.job_id = job.id
        LEFT JOIN llm_conversations AS conversation ON conversation.id = job.conversation_id
    """,
    """
CREATE TRIGGER llm_jobs_added AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NULL
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, NULL, CASE WHEN (NEW.state = 'delayed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: a job is added as waiting, delayed or waiting_children') END,
        NEW.created_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); END
    """,
    """
CREATE TRIGGER llm_jobs_moved AFTER UPDATE OF state ON llm_jobs WHEN OLD.state <> NEW.state AND NOT (NEW.conversation_id IS NOT NULL AND (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') AND NOT (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed'))
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, OLD.state, CASE WHEN CASE OLD.state WHEN 'waiting' THEN (NEW.state = 'active' OR NEW.state = 'cancelled' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting_children') WHEN 'delayed' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'waiting_children' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting') WHEN 'active' THEN (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'failed' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'cancelled' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') ELSE 0 END THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: illegal transition') END,
        NEW.updated_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); END
    """,
    """
CREATE TRIGGER llm_jobs_left AFTER UPDATE OF state ON llm_jobs WHEN OLD.state = 'active' AND NEW.state <> 'active'
        AND EXISTS (SELECT 1 FROM llm_calls WHERE job_id = NEW.id AND state = 'open')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at WHERE job_id = NEW.id AND state = 'open'; END
    """,
    """
CREATE TRIGGER llm_jobs_counted AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NULL
        BEGIN INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; END
    """,
    """
CREATE TRIGGER llm_jobs_recounted AFTER UPDATE OF state, queue, type ON llm_jobs
        WHEN (OLD.state <> NEW.state OR OLD.queue <> NEW.queue OR OLD.type <> NEW.type) AND NOT (NEW.conversation_id IS NOT NULL AND (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') AND NOT (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed'))
        BEGIN UPDATE llm_job_counts SET jobs = jobs - 1 WHERE queue = OLD.queue AND type = OLD.type AND state = OLD.state; INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; END
    """,
    """
CREATE TRIGGER llm_jobs_uncounted AFTER DELETE ON llm_jobs BEGIN UPDATE llm_job_counts SET jobs = jobs - 1 WHERE queue = OLD.queue AND type = OLD.type AND state = OLD.state; END
    """,
    """
CREATE TRIGGER llm_jobs_deleted BEFORE DELETE ON llm_jobs BEGIN INSERT INTO llm_usage_deleted (day, tag, calls, input_uncached, cache_read, cache_write, output_visible, output_reasoning, cost, unpriced)
        SELECT sent_at / 86400000, coalesce(OLD.tag, ''), count(*), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), sum(cost), sum(cost IS NULL AND state IN ('completed', 'superseded'))
        FROM llm_calls WHERE job_id = OLD.id GROUP BY 1
        ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, input_uncached = input_uncached + excluded.input_uncached, cache_read = cache_read + excluded.cache_read, cache_write = cache_write + excluded.cache_write, output_visible = output_visible + excluded.output_visible, output_reasoning = output_reasoning + excluded.output_reasoning, unpriced = unpriced + excluded.unpriced, cost = coalesce(cost + excluded.cost, cost, excluded.cost); END
    """,
    """
CREATE TRIGGER llm_jobs_epoch AFTER UPDATE OF lease_epoch ON llm_jobs WHEN NEW.lease_epoch < OLD.lease_epoch
        BEGIN SELECT RAISE(ABORT, 'llm_jobs.lease_epoch never falls'); END
    """,
    """
CREATE TRIGGER llm_turns_added AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NOT NULL
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, NULL, CASE WHEN (NEW.state = 'delayed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: a job is added as waiting, delayed or waiting_children') END,
        NEW.created_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; DELETE FROM llm_job_edges WHERE job_id = NEW.id AND step = '@turn';
        INSERT INTO llm_job_edges (job_id, depends_on, step, policy)
        SELECT NEW.id, tail.id, '@turn', CASE json_extract(settings, '$.on_failed') WHEN 'block' THEN 'fail' ELSE 'ignore' END
        FROM llm_conversations AS c JOIN llm_jobs AS tail ON tail.id = (
            SELECT id FROM llm_jobs WHERE conversation_id = NEW.conversation_id AND conversation_id IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active') AND id <> NEW.id AND NOT EXISTS (
                SELECT 1 FROM llm_job_edges WHERE depends_on = llm_jobs.id AND state = 'open' AND step = '@turn')
            ORDER BY id DESC LIMIT 1)
        WHERE c.id = NEW.conversation_id AND NOT EXISTS (
            SELECT 1 FROM llm_job_edges WHERE depends_on = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_jobs SET pending = pending + 1, state = CASE state WHEN 'waiting' THEN 'waiting_children' ELSE state END,
        reason = 'an earlier turn of its conversation comes first' WHERE id = NEW.id AND EXISTS (
            SELECT 1 FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn'); END
    """,
    """
CREATE TRIGGER llm_turns_sent_back AFTER UPDATE OF state ON llm_jobs WHEN NEW.conversation_id IS NOT NULL AND (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') AND NOT (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed')
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, OLD.state, CASE WHEN CASE OLD.state WHEN 'waiting' THEN (NEW.state = 'active' OR NEW.state = 'cancelled' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting_children') WHEN 'delayed' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'waiting_children' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting') WHEN 'active' THEN (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'failed' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'cancelled' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') ELSE 0 END THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: illegal transition') END,
        NEW.updated_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); UPDATE llm_job_counts SET jobs = jobs - 1 WHERE queue = OLD.queue AND type = OLD.type AND state = OLD.state; INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; DELETE FROM llm_job_edges WHERE job_id = NEW.id AND step = '@turn';
        INSERT INTO llm_job_edges (job_id, depends_on, step, policy)
        SELECT NEW.id, tail.id, '@turn', CASE json_extract(settings, '$.on_failed') WHEN 'block' THEN 'fail' ELSE 'ignore' END
        FROM llm_conversations AS c JOIN llm_jobs AS tail ON tail.id = (
            SELECT id FROM llm_jobs WHERE conversation_id = NEW.conversation_id AND conversation_id IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active') AND id <> NEW.id AND NOT EXISTS (
                SELECT 1 FROM llm_job_edges WHERE depends_on = llm_jobs.id AND state = 'open' AND step = '@turn')
            ORDER BY id DESC LIMIT 1)
        WHERE c.id = NEW.conversation_id AND NOT EXISTS (
            SELECT 1 FROM llm_job_edges WHERE depends_on = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_jobs SET pending = (SELECT count(*) FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open'), state = CASE state WHEN 'waiting' THEN 'waiting_children' ELSE state END,
        reason = 'an earlier turn of its conversation comes first' WHERE id = NEW.id AND EXISTS (
            SELECT 1 FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_jobs SET pending = (SELECT count(*) FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open') WHERE id = NEW.id AND pending <> (SELECT count(*) FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open'); END
    """,
    """
CREATE TRIGGER llm_turns_left AFTER UPDATE OF state ON llm_jobs
        WHEN NEW.conversation_id IS NOT NULL AND (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed') AND NOT (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') BEGIN UPDATE OR IGNORE llm_job_edges SET depends_on = (SELECT depends_on FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn')
        WHERE depends_on = NEW.id AND state = 'open' AND step = '@turn' AND EXISTS (SELECT depends_on FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_job_edges SET state = 'moot' WHERE job_id = NEW.id AND state = 'open' AND step = '@turn'; END
    """,
    """
CREATE TRIGGER llm_turns_deleted BEFORE DELETE ON llm_jobs WHEN OLD.conversation_id IS NOT NULL BEGIN UPDATE OR IGNORE llm_job_edges SET depends_on = (SELECT depends_on FROM llm_job_edges WHERE job_id = OLD.id AND state = 'open' AND step = '@turn')
        WHERE depends_on = OLD.id AND state = 'open' AND step = '@turn' AND EXISTS (SELECT depends_on FROM llm_job_edges WHERE job_id = OLD.id AND state = 'open' AND step = '@turn'); END
    """,
    """
CREATE TRIGGER llm_turns_stay AFTER UPDATE OF conversation_id ON llm_jobs WHEN NEW.conversation_id IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'llm_jobs.conversation_id: a job is added to a conversation or never is in it'); END
    """,
    """
CREATE TRIGGER llm_inbox_added INSTEAD OF INSERT ON llm_inbox
        WHEN NOT EXISTS (SELECT 1 FROM llm_jobs WHERE "key" = NEW."key" AND "key" IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM llm_jobs WHERE unique_key = NEW.unique_key AND unique_key IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active'))
        BEGIN
        INSERT INTO llm_conversations (name) SELECT NEW.conversation WHERE NEW.conversation IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM llm_conversations WHERE name = NEW.conversation);
        INSERT INTO llm_jobs (type, model, queue, priority, "key", unique_key, tag, state, run_at, start_by, max_attempts,
            group_key, group_limit, requires, conversation_id, created_at, updated_at, changed_by)
        SELECT NEW.type, NEW.model, coalesce(NEW.queue, 'default'), coalesce(NEW.priority, 0), NEW."key", NEW.unique_key, NEW.tag,
            CASE WHEN NEW.run_at > at THEN 'delayed' ELSE 'waiting' END, CASE WHEN NEW.run_at > at THEN NEW.run_at END, NEW.start_by,
            coalesce(NEW.max_attempts, 3), NEW.group_key, NEW.group_limit, NEW.requires,
            (SELECT id FROM llm_conversations WHERE name = NEW.conversation), at, at, 'sql'
        FROM (SELECT CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) AS at);
        INSERT INTO llm_job_data (job_id, description, data, options)
        VALUES (last_insert_rowid(), NEW.description, coalesce(NEW.data, '{}'), coalesce(NEW.options, '{}'));
        END
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement.strip())
