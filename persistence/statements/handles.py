"""Calls that the provider goes on with when nobody listens. The functions are in `persistence.handles`."""

from sqlalchemy import bindparam, select, text, update

from ..schema import calls
from .build import lit
from .ledger import _ids

# Not fenced by a lease: whoever holds the job, the provider has what it has.
KEEP = update(calls).where(calls.c.id == bindparam("call_id")).values(handle=bindparam("kept"))

# A process that died has left no error; one that lived says whether the provider goes on with it.
_GOES_ON = text(
    "(llm_calls.error IS NULL AND llm_calls.error_class IS NULL OR json_extract(llm_calls.error, '$.resumable'))"
)
KEPT = (
    select(
        calls.c.job_id, calls.c.step, calls.c.id, calls.c.fingerprint, calls.c.provider, calls.c.model, calls.c.handle
    )
    .where(calls.c.job_id.in_(_ids), calls.c.state == lit("unknown"), calls.c.handle.is_not(None), _GOES_ON)
    .order_by(calls.c.id)
)

# Nobody will take it up: its job was cancelled.
GIVE_UP = text("""
    UPDATE llm_calls SET error = json_remove(error, '$.resumable')
    WHERE id = :call_id AND state = 'unknown' AND handle IS NOT NULL AND error IS NOT NULL
        AND EXISTS (SELECT 1 FROM llm_jobs WHERE id = llm_calls.job_id AND state = 'cancelled')
    RETURNING provider, handle
    """)

TAKE_UP = text("""
    UPDATE llm_calls SET state = 'open', epoch = :epoch, origin = 'resumed', finished_at = NULL, error_class = NULL, error = NULL,
        attempt = (SELECT attempt FROM llm_jobs WHERE id = :job_id)
    WHERE id = :call_id AND job_id = :job_id AND state = 'unknown' AND handle IS NOT NULL
        AND EXISTS (SELECT 1 FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active')
    RETURNING id
    """)
