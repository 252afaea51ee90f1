"""What a job's next attempt needs to know of the batches its requests were in."""

import json
from collections.abc import Sequence

from .engine import Connection
from .json_text import loads
from .model import Batched
from .sql import Prepared

_PAST = Prepared("batches.PAST")


def past(c: Connection, job_ids: Sequence[int]) -> dict[int, dict[str, Batched]]:
    """By job and step. Jobs and steps that were in no batch, or have their answer, are not in it."""
    found: dict[int, dict[str, Batched]] = {}
    for job_id, step, rounds, late, refused in c.run(_PAST, {"ids": json.dumps(list(job_ids))}):
        known = Batched(rounds, bool(late), None if refused is None else loads(refused))
        found.setdefault(job_id, {})[step] = known
    return found
