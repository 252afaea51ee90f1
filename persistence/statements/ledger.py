"""Calls and steps. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.ledger`."""

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.sqlite import insert

from ..schema import call_completions, calls, job_results, jobs, steps
from .build import lit

_results = insert(job_results).values(job_id=bindparam("job_id"), result=bindparam("result"), error=bindparam("error"))
STORE_RESULT = _results.on_conflict_do_update(
    index_elements=["job_id"], set_={"result": _results.excluded.result, "error": _results.excluded.error}
)

STANDS = (
    select(lit(1))
    .select_from(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.lease_epoch == bindparam("epoch"), jobs.c.state == lit("active"))
)

INTENT = text("""
    INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, reserved_cost, sent_at,
        reserved_input, reserved_output, requests)
    SELECT id, lease_epoch, attempt, :step, :fingerprint, :provider, :model, :limit_key, 'open', :reserved_tokens, :reserved_cost, :now,
        :reserved_input, :reserved_output, :requests
    FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    RETURNING id
    """)

# Whoever had a call before it was taken up may have its answer first: it is the same call, and paid for.
OUTCOME = text("""
    UPDATE llm_calls SET
        state = CASE WHEN :state = 'completed' AND EXISTS (
            SELECT 1 FROM llm_calls AS first WHERE first.job_id = llm_calls.job_id AND first.step = llm_calls.step AND first.state = 'completed'
        ) THEN 'superseded' ELSE :state END,
        finished_at = :now, first_token_ms = :first_token_ms, input_uncached = :input_uncached, cache_read = :cache_read,
        cache_write = :cache_write, output_visible = :output_visible, output_reasoning = :output_reasoning, cache_write_1h = :cache_write_1h,
        cost = :cost, price_id = :price_id, finish = :finish,
        request_id = :request_id, error_class = :error_class, error = :error
    WHERE id = :call_id AND job_id = :job_id AND state IN ('open', 'unknown')
        AND (epoch = :epoch OR epoch > :epoch AND :state = 'completed' AND origin = 'resumed')
    RETURNING state, EXISTS (SELECT 1 FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'),
        EXISTS (SELECT 1 FROM llm_budget_reservations WHERE call_id = :call_id)
    """)

COMPLETION = insert(call_completions).values(call_id=bindparam("call_id"), completion=bindparam("completion"))

STEP = text("""
    INSERT INTO llm_steps (job_id, name, value, at)
    SELECT id, :name, :value, :now FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    ON CONFLICT DO NOTHING
    """)

_ids = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
COMPLETIONS = (
    select(calls.c.job_id, calls.c.step, call_completions.c.completion)
    .join(call_completions, call_completions.c.call_id == calls.c.id)
    .where(calls.c.job_id.in_(_ids), calls.c.state == lit("completed"))
)
VALUES = select(steps.c.job_id, steps.c.name, steps.c.value).where(steps.c.job_id.in_(_ids))
UNKNOWN = select(calls.c.job_id, calls.c.step).where(
    calls.c.job_id.in_(_ids), calls.c.state == lit("unknown"), calls.c.error_class.is_distinct_from(lit("reviewed"))
)

# What its step goes by instead of the answer of a call that came second.
FIRST = text("""
    SELECT completion FROM llm_calls AS late
    JOIN llm_calls AS first ON first.job_id = late.job_id AND first.step = late.step AND first.state = 'completed'
    JOIN llm_call_completions ON call_id = first.id
    WHERE late.id = :call_id AND late.state = 'superseded'
    """)
