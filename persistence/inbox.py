"""The door for programs that speak only SQL: a view that one INSERT adds a whole job through (docs/sql-contract.md).

A job is two rows, one of them narrow because every claim reads it. `llm_inbox` hides that: its trigger writes both in the statement that
inserted into it, and gives a `key` or `unique_key` the meaning it has in `JobQueue.add`. Reading from it shows the jobs as they were posted.
"""

from .lifecycle import TERMINAL_STATES, JobState

_LIVE = " OR ".join(f"state = '{state}'" for state in JobState if state not in TERMINAL_STATES)
_NOW = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


def inbox_statements() -> list[str]:
    """The view and its trigger; run after the tables exist. Conditions of partial indexes are repeated literally, so that they serve."""
    return [
        """CREATE VIEW llm_inbox AS
        SELECT job.id, job.type, body.data, job.model, job.queue, job.priority, job."key", job.unique_key, job.tag, body.description, job.run_at,
            job.start_by, job.max_attempts, job.group_key, job.group_limit, job.requires, conversation.name AS conversation, body.options
        FROM llm_jobs AS job JOIN llm_job_data AS body ON body.job_id = job.id
        LEFT JOIN llm_conversations AS conversation ON conversation.id = job.conversation_id""",
        f"""CREATE TRIGGER llm_inbox_added INSTEAD OF INSERT ON llm_inbox
        WHEN NOT EXISTS (SELECT 1 FROM llm_jobs WHERE "key" = NEW."key" AND "key" IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM llm_jobs WHERE unique_key = NEW.unique_key AND unique_key IS NOT NULL AND ({_LIVE}))
        BEGIN
        INSERT INTO llm_conversations (name) SELECT NEW.conversation WHERE NEW.conversation IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM llm_conversations WHERE name = NEW.conversation);
        INSERT INTO llm_jobs (type, model, queue, priority, "key", unique_key, tag, state, run_at, start_by, max_attempts,
            group_key, group_limit, requires, conversation_id, created_at, updated_at, changed_by)
        SELECT NEW.type, NEW.model, coalesce(NEW.queue, 'default'), coalesce(NEW.priority, 0), NEW."key", NEW.unique_key, NEW.tag,
            CASE WHEN NEW.run_at > at THEN 'delayed' ELSE 'waiting' END, CASE WHEN NEW.run_at > at THEN NEW.run_at END, NEW.start_by,
            coalesce(NEW.max_attempts, 3), NEW.group_key, NEW.group_limit, NEW.requires,
            (SELECT id FROM llm_conversations WHERE name = NEW.conversation), at, at, 'sql'
        FROM (SELECT {_NOW} AS at);
        INSERT INTO llm_job_data (job_id, description, data, options)
        VALUES (last_insert_rowid(), NEW.description, coalesce(NEW.data, '{{}}'), coalesce(NEW.options, '{{}}'));
        END""",
    ]
