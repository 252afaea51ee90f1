"""Limits that all workers of a database share. Plain text, compiled ahead of time into `sql_text`; the functions are in `persistence.limits`."""

from sqlalchemy import text

from ..limit_rules import SUM_SLOT

_SUMS = "sum(requests), sum(input), sum(output), sum(total)"

# What the slots of a key add up to is kept beside them, under a slot that never comes: an intent is judged by a few seeks, however many
# slots there are.
_TOTAL = f"{SUM_SLOT}"
_LIVE = f'"key" = :key AND slot > :now AND slot < {_TOTAL}'

STANDING = text(f"""
    SELECT sums.requests, sums.input, sums.output, sums.total,
        (SELECT min(slot) FROM llm_limit_usage WHERE "key" = :key),
        (SELECT max(slot) FROM llm_limit_usage WHERE "key" = :key AND slot < {_TOTAL}),
        lowering.factor, lowering.factor_at
    FROM (SELECT 1) LEFT JOIN llm_limit_usage AS sums ON sums."key" = :key AND sums.slot = {_TOTAL}
    LEFT JOIN llm_limit_keys AS lowering ON lowering."key" = :key
    """)
HELD = text("""SELECT max(until) FROM llm_limit_holds WHERE ("key" = :key OR "key" = :account) AND until > :now""")
IN_FLIGHT = text("SELECT count(*) FROM llm_calls WHERE limit_key = :key AND state = 'open'")
LAPSED = text(f"""SELECT {_SUMS} FROM llm_limit_usage WHERE "key" = :key AND slot <= :now""")
ADD_UP = text(f"""
    INSERT INTO llm_limit_usage ("key", slot, owner, requests, input, output, total)
    SELECT :key, {_TOTAL}, '', coalesce(sum(requests), 0), coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(total), 0)
    FROM llm_limit_usage WHERE "key" = :key AND slot < {_TOTAL}
    ON CONFLICT DO UPDATE SET requests = excluded.requests, input = excluded.input, output = excluded.output, total = excluded.total
    """)
SLOTS = text(f"""
    SELECT slot, {_SUMS} FROM llm_limit_usage WHERE {_LIVE} AND owner = :owner GROUP BY slot ORDER BY slot
    """)
OTHERS_SLOTS = text(f"""
    SELECT slot, {_SUMS} FROM llm_limit_usage WHERE {_LIVE} AND owner <> :owner GROUP BY slot ORDER BY slot
    """)
ALL_SLOTS = text(f"""
    SELECT slot, {_SUMS} FROM llm_limit_usage WHERE {_LIVE} GROUP BY slot ORDER BY slot
    """)
CHARGE = text("""
    INSERT INTO llm_limit_usage ("key", slot, owner, requests, input, output, total)
    VALUES (:key, :slot, :owner, :requests, :input, :output, :total)
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
        total = total + excluded.total
    """)
CHARGE_DAY = text("""
    INSERT INTO llm_limit_days ("key", day, owner, requests, input, output, total)
    VALUES (:key, :day, :owner, :requests, :input, :output, :total)
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
        total = total + excluded.total
    """)
# What was pruned meanwhile has lapsed, and stays so.
TAKE_OFF = text("""
    UPDATE llm_limit_usage SET requests = max(0, requests - :requests), input = max(0, input - :input),
        output = max(0, output - :output), total = max(0, total - :total)
    WHERE "key" = :key AND slot = :slot AND owner = :owner
    """)
CORRECT_SUM = text(f"""
    UPDATE llm_limit_usage SET requests = max(0, requests + :requests), input = max(0, input + :input),
        output = max(0, output + :output), total = max(0, total + :total)
    WHERE "key" = :key AND slot = {_TOTAL} AND owner = ''
    """)
CORRECT_DAY = text("""
    UPDATE llm_limit_days SET requests = max(0, requests + :requests), input = max(0, input + :input),
        output = max(0, output + :output), total = max(0, total + :total)
    WHERE "key" = :key AND day = :day AND owner = :owner
    """)
DAY = text(f"""SELECT {_SUMS} FROM llm_limit_days WHERE "key" = :key AND day = :day""")
DAY_BY_OWNER = text(f"""
    SELECT owner = :owner, {_SUMS} FROM llm_limit_days WHERE "key" = :key AND day = :day GROUP BY 1
    """)
PRUNE = text("""DELETE FROM llm_limit_usage WHERE "key" = :key AND slot <= :now""")
PRUNE_DAYS = text("""DELETE FROM llm_limit_days WHERE "key" = :key AND day < :before""")
# The clock was set back: what would be held for longer than anything may be is held for as long as anything may be.
GATHER = text(f"""
    INSERT INTO llm_limit_usage ("key", slot, owner, requests, input, output, total)
    SELECT "key", :horizon, owner, sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_usage
    WHERE "key" = :key AND slot > :horizon AND slot < {_TOTAL} GROUP BY owner
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
        total = total + excluded.total
    """)
GATHERED = text(f"""DELETE FROM llm_limit_usage WHERE "key" = :key AND slot > :horizon AND slot < {_TOTAL}""")

OPEN = text("""
    SELECT sum(lease_owner IS :owner), sum(lease_owner IS NOT :owner) FROM llm_calls CROSS JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id
    WHERE llm_calls.limit_key = :key AND llm_calls.state = 'open'
    """)

# A hold is never shortened, only lifted.
SET_HOLD = text("""
    INSERT INTO llm_limit_holds ("key", until, reason, at, kind) VALUES (:key, :until, :reason, :now, :kind)
    ON CONFLICT DO UPDATE SET until = excluded.until, reason = excluded.reason, at = excluded.at, kind = excluded.kind
    WHERE excluded.until >= llm_limit_holds.until
    """)
CLEAR_HOLD = text("""DELETE FROM llm_limit_holds WHERE "key" = :key""")
HOLDS = text("""SELECT "key", until, reason, kind, at FROM llm_limit_holds ORDER BY "key" """)
# Those that wait for this hold, or for that of a key below this account.
FREE_JOBS = text("""
    UPDATE llm_jobs SET held_by = NULL, held_until = NULL, updated_at = :now
    WHERE state = 'waiting' AND held_until IS NOT NULL AND held_until > :now
        AND (held_by = :key OR substr(held_by, 1, length(:key) + 1) = :key || '/')
    """)

KEY = text("""SELECT factor, factor_at, first_used_at FROM llm_limit_keys WHERE "key" = :key""")
FACTORS = text("""SELECT "key", factor, factor_at FROM llm_limit_keys WHERE factor < 1""")
KEYS = text("""SELECT "key", factor, factor_at, first_used_at, description, at FROM llm_limit_keys ORDER BY "key" """)
USE_KEY = text("""
    INSERT INTO llm_limit_keys ("key", first_used_at, at) VALUES (:key, :now, :now) ON CONFLICT DO NOTHING
    """)
SET_FACTOR = text("""
    INSERT INTO llm_limit_keys ("key", first_used_at, at, factor, factor_at) VALUES (:key, :now, :now, :factor, :factor_at)
    ON CONFLICT DO UPDATE SET factor = excluded.factor, factor_at = excluded.factor_at
    """)
DESCRIBE = text("""
    INSERT INTO llm_limit_keys ("key", first_used_at, at, description) VALUES (:key, :now, :now, :description)
    ON CONFLICT DO UPDATE SET description = excluded.description, at = excluded.at
    """)
DESCRIPTION = text("""SELECT description FROM llm_limit_keys WHERE "key" = :key""")
HELD_JOBS = text("""
    SELECT held_by, count(*), min(held_until), max(held_until) FROM llm_jobs
    WHERE state = 'waiting' AND held_until IS NOT NULL AND held_until > :now GROUP BY held_by
    """)
USED = text(f"""
    SELECT "key", {_SUMS} FROM llm_limit_usage WHERE slot > :now AND slot < {_TOTAL} GROUP BY "key"
    """)
OPEN_BY_KEY = text("SELECT limit_key, count(*) FROM llm_calls WHERE state = 'open' GROUP BY limit_key")
DAYS_SINCE = text(f"""
    SELECT "key", day, {_SUMS} FROM llm_limit_days WHERE day > :since GROUP BY "key", day ORDER BY "key", day
    """)
