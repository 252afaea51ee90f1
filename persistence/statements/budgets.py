"""Budgets: what they are, what has been spent of them, what calls in flight have reserved. The functions are in `persistence.budgets`."""

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.dialects.sqlite import insert

from ..model import USAGE_COLUMNS
from ..schema import budget_usage, budgets
from .build import lit

# The job first (depth 0), then those above it that have a budget of their own, in dollars.
JOB = text("""
    WITH RECURSIVE up(id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM llm_jobs WHERE id = :job_id
        UNION ALL SELECT above.id, above.parent_id, depth + 1 FROM up CROSS JOIN llm_jobs AS above ON above.id = up.parent_id
    )
    SELECT up.id, job.tag, coalesce(job.root_id, up.id), json_extract(body.options, '$.budget')
    FROM up CROSS JOIN llm_jobs AS job ON job.id = up.id LEFT JOIN llm_job_data AS body ON body.job_id = up.id AND body.options <> '{}'
    WHERE depth = 0 OR json_extract(body.options, '$.budget') IS NOT NULL ORDER BY depth
    """)
# By an index of those that have one: mostly none has.
OF_JOBS = text("""
    SELECT EXISTS (SELECT 1 FROM llm_job_data WHERE options <> '{}' AND json_extract(options, '$.budget') IS NOT NULL)
    """)
ON_BOARD = select(budgets.c.name, budgets.c.settings).order_by(budgets.c.name)

STANDING = select(
    budget_usage.c.spent, budget_usage.c.reserved, budget_usage.c.tokens_spent, budget_usage.c.tokens_reserved
).where(budget_usage.c.budget == bindparam("key"), budget_usage.c.period == bindparam("in_period"))

# What calls that are under way have reserved, and may give back. Asked only where a call does not fit.
IN_FLIGHT = text("""
    SELECT coalesce(sum(amount), 0), coalesce(sum(tokens), 0) FROM llm_budget_reservations
    JOIN llm_calls ON llm_calls.id = call_id AND llm_calls.state = 'open'
    WHERE budget = :key AND period = :in_period
    """)

# The row that the triggers add to: how much the budget is, for readers.
DESCRIBE = text("""
    INSERT INTO llm_budget_usage (budget, period, cap, token_cap, until, updated_at) VALUES (:key, :in_period, :cap, :token_cap, :until, :now)
    ON CONFLICT DO UPDATE SET cap = excluded.cap, token_cap = excluded.token_cap, until = excluded.until, updated_at = excluded.updated_at
    """)
RESERVE = text("""
    INSERT INTO llm_budget_reservations (call_id, budget, period, amount, tokens) VALUES (:call_id, :key, :in_period, :amount, :tokens)
    ON CONFLICT DO NOTHING
    """)

_ENDED = "state NOT IN ('open', 'unknown')"
_FREE = "state = 'failed' AND cost IS NULL AND json_extract(error, '$.billed') IS NOT 'yes'"
_USED = " + ".join(f"coalesce({name}, 0)" for name in USAGE_COLUMNS)
_KNOWN = f"coalesce({', '.join(USAGE_COLUMNS)}) IS NOT NULL"
# A call that failed without a bill cost nothing; one that does not say what it cost counts as what was reserved for it.
SETTLE = text(f"""
    UPDATE llm_budget_reservations SET
        amount = (SELECT CASE WHEN {_FREE} THEN 0 ELSE coalesce(cost, amount) END FROM llm_calls WHERE id = call_id),
        tokens = (SELECT CASE WHEN {_FREE} THEN 0 WHEN {_KNOWN} THEN {_USED} ELSE tokens END FROM llm_calls WHERE id = call_id)
    WHERE call_id = :call_id AND EXISTS (SELECT 1 FROM llm_calls WHERE id = :call_id AND {_ENDED})
    """)
SETTLED = text("DELETE FROM llm_budget_reservations WHERE call_id = :call_id")

_put = insert(budgets).values(name=bindparam("budget_name"), settings=bindparam("stored"), at=bindparam("now"))
PUT = _put.on_conflict_do_update(
    index_elements=["name"], set_={"settings": _put.excluded.settings, "at": _put.excluded.at}
)
DROP = delete(budgets).where(budgets.c.name == bindparam("budget_name"))
BEGIN_AT = text("""
    INSERT INTO llm_budget_usage (budget, period, spent, tokens_spent, updated_at) VALUES (:key, '', :spent, :tokens, :now)
    ON CONFLICT DO UPDATE SET spent = max(spent, excluded.spent), tokens_spent = max(tokens_spent, excluded.tokens_spent)
    """)
# Jobs that wait for a budget look again: it is another one now.
FREE = text("""
    UPDATE llm_jobs SET held_by = NULL, held_until = NULL, updated_at = :now
    WHERE state = 'waiting' AND held_until IS NOT NULL AND held_by GLOB :held
    """)
# The ones that were asked last, by name.
USAGE = text("""
    SELECT * FROM (
        SELECT budget, period, cap, token_cap, spent, reserved, tokens_spent, tokens_reserved, until, updated_at
        FROM llm_budget_usage ORDER BY updated_at DESC LIMIT :limit + 0
    ) ORDER BY budget, period DESC
    """)
# What was counted in periods that are over goes with the jobs of that time.
FORGET = delete(budget_usage).where(
    budget_usage.c.until.is_not(None), budget_usage.c.until < bindparam("before"), budget_usage.c.reserved == lit(0)
)
JOB_BUDGET = text("UPDATE llm_job_data SET options = json_set(options, '$.budget', :dollars) WHERE job_id = :wanted")
