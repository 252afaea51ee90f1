"""What is old enough to go. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.retention`."""

from sqlalchemy import text

# In the order they ended, from a place on, so that the many that are passed over (another state, still waited on) are read once. `weight` is
# about how many rows go with the job.
ENDED = text("""
    SELECT id, finished_at,
        (SELECT count(*) FROM llm_job_chunks WHERE job_id = llm_jobs.id) + (SELECT count(*) FROM llm_calls WHERE job_id = llm_jobs.id) * 2 + 8
    FROM llm_jobs
    WHERE finished_at IS NOT NULL AND finished_at < :before AND (finished_at, id) > (:at, :job_id)
        AND state IN (SELECT value FROM json_each(:states))
        AND NOT EXISTS (
            SELECT 1 FROM llm_job_edges JOIN llm_jobs AS waiting ON waiting.id = llm_job_edges.job_id
            WHERE llm_job_edges.depends_on = llm_jobs.id AND waiting.state NOT IN ('completed', 'failed', 'cancelled')
        )
    ORDER BY finished_at, id LIMIT :limit + 0
    """)
