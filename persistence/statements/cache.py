"""Answers that are kept, and calls whose answers others wait for. Plain text, compiled ahead of time into `sql_text`; see `persistence.cache`."""

from sqlalchemy import text

_STANDS = "job.id = {of}.job_id AND job.lease_epoch = {of}.epoch AND job.state = 'active'"

FIND = text('SELECT completion, cost FROM llm_cache WHERE "key" = :key AND at >= :oldest')
USED = text('UPDATE llm_cache SET hits = hits + 1, used_at = :now WHERE "key" = :key')
KEEP = text("""
    INSERT INTO llm_cache ("key", completion, cost, at, used_at, bytes) VALUES (:key, :completion, :cost, :now, :now, :bytes)
    ON CONFLICT DO UPDATE SET completion = excluded.completion, cost = excluded.cost, at = excluded.at, used_at = excluded.used_at,
        bytes = excluded.bytes
    """)
# A call that was none: no request, no tokens, no cost.
HIT = text("""
    INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at, finished_at,
        input_uncached, cache_read, cache_write, output_visible, output_reasoning, cache_write_1h, cost, finish, requests, origin, saved)
    SELECT id, lease_epoch, attempt, :step, :fingerprint, :provider, :model, :limit_key, 'completed', 0, :now, :now,
        0, 0, 0, 0, 0, 0, 0, :finish, 0, 'cache', :saved
    FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    RETURNING id
    """)

# Whose lease is void leads no more. A call that asks again still leads.
LEAD = text(f"""
    INSERT INTO llm_cache_flights ("key", job_id, epoch, number, at)
    SELECT :key, id, lease_epoch, :number, :now FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    ON CONFLICT DO UPDATE SET job_id = excluded.job_id, epoch = excluded.epoch, number = excluded.number, at = excluded.at
    WHERE (llm_cache_flights.job_id = excluded.job_id AND llm_cache_flights.epoch = excluded.epoch
            AND llm_cache_flights.number = excluded.number)
        OR NOT EXISTS (SELECT 1 FROM llm_jobs AS job WHERE {_STANDS.format(of="llm_cache_flights")})
    """)
LAND = text(
    'DELETE FROM llm_cache_flights WHERE "key" = :key AND job_id = :job_id AND epoch = :epoch AND number = :number'
)
FORGET_FLIGHTS = text(f"""
    DELETE FROM llm_cache_flights WHERE NOT EXISTS (SELECT 1 FROM llm_jobs AS job WHERE {_STANDS.format(of="llm_cache_flights")})
    """)

SIZE = text("SELECT count(*), coalesce(sum(bytes), 0) FROM llm_cache")
OVERVIEW = text("SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(hits), 0), min(at), max(at) FROM llm_cache")
SAVED = text("SELECT count(*), sum(saved) FROM llm_calls WHERE origin = 'cache'")
OLDEST = text('SELECT "key", bytes FROM llm_cache ORDER BY used_at LIMIT :limit + 0')
DROP = text('DELETE FROM llm_cache WHERE "key" = :key')
