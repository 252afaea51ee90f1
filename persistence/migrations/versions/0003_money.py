"""What money, limits and batches need: limits shared by all workers of a database, budgets, cached answers, requests that go out together.

Columns are added at the end of tables that are there. `llm_job_data` is rebuilt, because SQLite cannot add to a check.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

# Written out, not taken from `schema`: what this revision made stays what it made.
STATEMENTS = (
    "DROP INDEX llm_calls_limit",
    "ALTER TABLE llm_jobs ADD COLUMN root_id INTEGER",
    "ALTER TABLE llm_limit_holds ADD COLUMN kind TEXT DEFAULT 'rate' NOT NULL",
    "ALTER TABLE llm_calls ADD COLUMN cache_write_1h INTEGER",
    "ALTER TABLE llm_calls ADD COLUMN requests INTEGER DEFAULT '1' NOT NULL",
    "ALTER TABLE llm_calls ADD COLUMN reserved_input INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE llm_calls ADD COLUMN reserved_output INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE llm_calls ADD COLUMN origin TEXT",
    "ALTER TABLE llm_calls ADD COLUMN handle TEXT CONSTRAINT handle_json CHECK (handle IS NULL OR json_valid(handle))",
    "ALTER TABLE llm_calls ADD COLUMN price_id TEXT",
    "ALTER TABLE llm_calls ADD COLUMN saved INTEGER",
    "DROP TRIGGER llm_jobs_deleted",
    "DROP TRIGGER llm_jobs_left",
    """
CREATE TRIGGER llm_jobs_left AFTER UPDATE OF state ON llm_jobs WHEN OLD.state = 'active' AND NEW.state <> 'active'
        AND EXISTS (SELECT 1 FROM llm_calls WHERE job_id = NEW.id AND state = 'open' AND origin IS NOT 'batch')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at
        WHERE job_id = NEW.id AND state = 'open' AND origin IS NOT 'batch'; END
    """,
    """
CREATE TABLE llm_usage_deleted_next (
    day INTEGER NOT NULL,
    tag TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls INTEGER NOT NULL,
    input_uncached INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output_visible INTEGER NOT NULL,
    output_reasoning INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    cost INTEGER,
    unpriced INTEGER NOT NULL,
    PRIMARY KEY (tag, day, provider, model)
)
 WITHOUT ROWID
    """,
    """
INSERT INTO llm_usage_deleted_next (day, tag, provider, model, calls, input_uncached, cache_read, cache_write, output_visible, output_reasoning, cache_write_1h, cost, unpriced)
SELECT day, tag, '', '', calls, input_uncached, cache_read, cache_write, output_visible, output_reasoning, 0, cost, unpriced FROM llm_usage_deleted
    """,
    "DROP TABLE llm_usage_deleted",
    "ALTER TABLE llm_usage_deleted_next RENAME TO llm_usage_deleted",
    """
CREATE TRIGGER llm_jobs_deleted BEFORE DELETE ON llm_jobs BEGIN INSERT INTO llm_usage_deleted (day, tag, provider, model, calls, input_uncached, cache_read, cache_write, output_visible, output_reasoning, cache_write_1h, cost, unpriced)
        SELECT sent_at / 86400000, coalesce(OLD.tag, ''), provider, model, count(*), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(cost IS NULL AND state IN ('completed', 'superseded'))
        FROM llm_calls WHERE job_id = OLD.id GROUP BY 1, provider, model
        ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, input_uncached = input_uncached + excluded.input_uncached, cache_read = cache_read + excluded.cache_read, cache_write = cache_write + excluded.cache_write, output_visible = output_visible + excluded.output_visible, output_reasoning = output_reasoning + excluded.output_reasoning, cache_write_1h = cache_write_1h + excluded.cache_write_1h, unpriced = unpriced + excluded.unpriced, cost = coalesce(cost + excluded.cost, cost, excluded.cost); END
    """,
    "DROP VIEW llm_inbox",
    """
CREATE TABLE llm_job_data_next (
    job_id INTEGER NOT NULL,
    description TEXT,
    data TEXT DEFAULT '{}' NOT NULL CONSTRAINT data_json CHECK (json_valid(data)),
    options TEXT DEFAULT '{}' NOT NULL CONSTRAINT options_known CHECK (options = '{}' OR json_valid(options) AND json_type(options) = 'object' AND coalesce(json_extract(options, '$.on_unknown'), 'retry') IN ('retry', 'park') AND coalesce(json_extract(options, '$.latency'), 'now') IN ('now', 'batch') AND coalesce(json_type(options, '$.first_token_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.no_progress_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.total_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.job_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.deadline'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.budget'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.cache'), 'null') IN ('null', 'integer', 'real')),
    PRIMARY KEY (job_id),
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
    """,
    # What these keys hold was passed over so far, whatever it was: it is not to begin to mean something, nor to be refused.
    """
INSERT INTO llm_job_data_next (job_id, description, data, options) SELECT job_id, description, data,
    CASE WHEN options = '{}' THEN options ELSE json_remove(options, '$.latency', '$.deadline', '$.budget', '$.cache') END FROM llm_job_data
    """,
    "DROP TABLE llm_job_data",
    "ALTER TABLE llm_job_data_next RENAME TO llm_job_data",
    """
CREATE INDEX llm_job_data_budget ON llm_job_data (job_id) WHERE options <> '{}' AND json_extract(options, '$.budget') IS NOT NULL
    """,
    """
CREATE VIEW llm_inbox AS
        SELECT job.id, job.type, body.data, job.model, job.queue, job.priority, job."key", job.unique_key, job.tag, body.description, job.run_at,
            job.start_by, job.max_attempts, job.group_key, job.group_limit, job.requires, conversation.name AS conversation, body.options
        FROM llm_jobs AS job JOIN llm_job_data AS body ON body.job_id = job.id
        LEFT JOIN llm_conversations AS conversation ON conversation.id = job.conversation_id
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
    """
CREATE TABLE llm_limit_usage (
    "key" TEXT NOT NULL,
    slot INTEGER NOT NULL,
    owner TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY ("key", slot, owner)
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_limit_days (
    "key" TEXT NOT NULL,
    day INTEGER NOT NULL,
    owner TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY ("key", day, owner)
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_limit_keys (
    "key" TEXT NOT NULL,
    factor FLOAT DEFAULT '1' NOT NULL,
    factor_at INTEGER DEFAULT '0' NOT NULL,
    first_used_at INTEGER NOT NULL,
    description TEXT DEFAULT '{}' NOT NULL CONSTRAINT description_json CHECK (json_valid(description)),
    at INTEGER NOT NULL,
    PRIMARY KEY ("key")
)
    """,
    """
CREATE TABLE llm_routes (
    model TEXT NOT NULL,
    limit_keys TEXT NOT NULL CONSTRAINT limit_keys_json CHECK (json_valid(limit_keys)),
    goes_on TEXT NOT NULL CONSTRAINT goes_on_json CHECK (json_valid(goes_on)),
    at INTEGER NOT NULL,
    PRIMARY KEY (model)
)
    """,
    """
CREATE TABLE llm_budget_usage (
    budget TEXT NOT NULL,
    period TEXT NOT NULL,
    spent INTEGER DEFAULT '0' NOT NULL,
    reserved INTEGER DEFAULT '0' NOT NULL,
    tokens_spent INTEGER DEFAULT '0' NOT NULL,
    tokens_reserved INTEGER DEFAULT '0' NOT NULL,
    cap INTEGER,
    token_cap INTEGER,
    until INTEGER,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (budget, period)
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_budgets (
    name TEXT NOT NULL,
    settings TEXT NOT NULL CONSTRAINT settings_json CHECK (json_valid(settings)),
    at INTEGER NOT NULL,
    PRIMARY KEY (name)
)
    """,
    """
CREATE TABLE llm_budget_reservations (
    call_id INTEGER NOT NULL,
    budget TEXT NOT NULL,
    period TEXT NOT NULL,
    amount INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (call_id, budget),
    FOREIGN KEY(call_id) REFERENCES llm_calls (id) ON DELETE CASCADE
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_cache (
    "key" TEXT NOT NULL,
    completion TEXT NOT NULL CONSTRAINT completion_json CHECK (json_valid(completion)),
    cost INTEGER,
    at INTEGER NOT NULL,
    hits INTEGER DEFAULT '0' NOT NULL,
    used_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY ("key")
)
    """,
    """
CREATE TABLE llm_cache_flights (
    "key" TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY ("key")
)
 WITHOUT ROWID
    """,
    """
CREATE TABLE llm_batches (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL,
    kind TEXT NOT NULL CONSTRAINT batch_kind CHECK ((kind = 'batch' OR kind = 'group')),
    provider TEXT NOT NULL,
    group_key TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state TEXT DEFAULT 'open' NOT NULL CONSTRAINT batch_state CHECK ((state = 'open' OR state = 'sealed' OR state = 'uploaded' OR state = 'creating' OR state = 'submitted' OR state = 'ended' OR state = 'downloading' OR state = 'applied' OR state = 'failed')),
    requests INTEGER DEFAULT '0' NOT NULL,
    bytes INTEGER DEFAULT '0' NOT NULL,
    tokens INTEGER DEFAULT '0' NOT NULL,
    tag TEXT NOT NULL,
    sha256 TEXT,
    file_id TEXT,
    batch_id TEXT,
    results TEXT CONSTRAINT results_json CHECK (results IS NULL OR json_valid(results)),
    "offset" INTEGER DEFAULT '0' NOT NULL,
    polls INTEGER DEFAULT '0' NOT NULL,
    created_at INTEGER NOT NULL,
    sealed_at INTEGER,
    creating_at INTEGER,
    submitted_at INTEGER,
    ended_at INTEGER,
    updated_at INTEGER NOT NULL,
    error TEXT CONSTRAINT error_json CHECK (error IS NULL OR json_valid(error)),
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
    """,
    """
CREATE TABLE llm_batch_requests (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    batch_id INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    step TEXT NOT NULL,
    state TEXT DEFAULT 'waiting' NOT NULL CONSTRAINT batch_request_state CHECK ((state = 'waiting' OR state = 'sent' OR state = 'done' OR state = 'failed' OR state = 'left' OR state = 'again')),
    model TEXT NOT NULL,
    provider_model TEXT NOT NULL,
    inputs INTEGER DEFAULT '0' NOT NULL,
    fingerprint TEXT NOT NULL,
    limit_key TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    reserved_cost INTEGER,
    call_id INTEGER,
    error TEXT CONSTRAINT error_json CHECK (error IS NULL OR json_valid(error)),
    deadline INTEGER,
    at INTEGER NOT NULL,
    FOREIGN KEY(batch_id) REFERENCES llm_batches (id) ON DELETE CASCADE,
    FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE,
    FOREIGN KEY(call_id) REFERENCES llm_calls (id) ON DELETE SET NULL
)
    """,
    """
CREATE TABLE llm_batch_bodies (
    request_id INTEGER NOT NULL,
    request TEXT NOT NULL CONSTRAINT request_json CHECK (json_valid(request)),
    PRIMARY KEY (request_id),
    FOREIGN KEY(request_id) REFERENCES llm_batch_requests (id) ON DELETE CASCADE
)
    """,
    "CREATE INDEX llm_cache_used ON llm_cache (used_at, bytes)",
    "CREATE INDEX llm_jobs_root ON llm_jobs (root_id) WHERE root_id IS NOT NULL",
    "CREATE INDEX llm_batches_job ON llm_batches (job_id)",
    "CREATE INDEX llm_batches_open ON llm_batches (group_key) WHERE state = 'open'",
    "CREATE INDEX llm_calls_in_flight ON llm_calls (limit_key) WHERE state = 'open'",
    "CREATE INDEX llm_calls_sent ON llm_calls (sent_at)",
    "CREATE INDEX llm_batch_requests_batch ON llm_batch_requests (batch_id, state)",
    "CREATE INDEX llm_batch_requests_call ON llm_batch_requests (call_id) WHERE call_id IS NOT NULL",
    """
CREATE INDEX llm_batch_requests_due ON llm_batch_requests (deadline) WHERE state IN ('waiting', 'sent') AND deadline IS NOT NULL
    """,
    "CREATE INDEX llm_batch_requests_job ON llm_batch_requests (job_id, step)",
    """
CREATE TRIGGER llm_budget_reserved AFTER INSERT ON llm_budget_reservations BEGIN
        INSERT INTO llm_budget_usage (budget, period, reserved, tokens_reserved, updated_at)
        VALUES (NEW.budget, NEW.period, NEW.amount, NEW.tokens, coalesce((SELECT sent_at FROM llm_calls WHERE id = NEW.call_id), 0))
        ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved, tokens_reserved = tokens_reserved + excluded.tokens_reserved; END
    """,
    """
CREATE TRIGGER llm_budget_settled AFTER UPDATE OF amount, tokens ON llm_budget_reservations BEGIN
        UPDATE llm_budget_usage SET reserved = reserved + NEW.amount - OLD.amount, tokens_reserved = tokens_reserved + NEW.tokens - OLD.tokens
        WHERE budget = NEW.budget AND period = NEW.period; END
    """,
    """
CREATE TRIGGER llm_budget_spent AFTER DELETE ON llm_budget_reservations BEGIN
        UPDATE llm_budget_usage SET reserved = reserved - OLD.amount, spent = spent + OLD.amount,
            tokens_reserved = tokens_reserved - OLD.tokens, tokens_spent = tokens_spent + OLD.tokens
        WHERE budget = OLD.budget AND period = OLD.period; END
    """,
    """
CREATE TRIGGER llm_budget_forgotten AFTER DELETE ON llm_jobs
        BEGIN DELETE FROM llm_budget_usage WHERE budget = 'job:' || OLD.id; END
    """,
    """
CREATE TRIGGER llm_batches_left AFTER UPDATE OF state ON llm_jobs
        WHEN NEW.type = '@batch' AND (NEW.state = 'cancelled' OR NEW.state = 'failed')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at WHERE state = 'open' AND id IN (
            SELECT call_id FROM llm_batches AS batch CROSS JOIN llm_batch_requests AS request ON request.batch_id = batch.id
            WHERE batch.job_id = NEW.id AND call_id IS NOT NULL); END
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement.strip())
