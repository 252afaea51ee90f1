"""Who a job is: when adding one gives the job that is there already.

- `key`: one job, for as long as it is kept. Whatever became of it, adding the key again returns it.
- `unique="name"`: one *live* job. Once it has ended, the next is a new one.
- `debounce=("name", seconds)`: the last word counts. While the job waits for its time and was never begun, adding another replaces what is to
  be done and pushes its time back; after that it is a new job.
- `throttle=("name", seconds)`: the first word counts. Within that time after it was added, the job is returned, whatever its state.

The last three share the column `unique_key`, each under a prefix of its own, so that the index which allows one live job per name holds for all
of them. Where the rule asks for a new job although an older one is live, the name passes on to the new one. All of it happens in the adding
transaction, which has the write lock from its beginning, so that any number of processes may add the same at once.
"""

from collections.abc import Mapping
from typing import Any

from .engine import Connection
from .lifecycle import JobState
from .new_job import DEBOUNCE, THROTTLE
from .sql import Prepared

_LIVE = Prepared("identity.LIVE")
_NEWEST = Prepared("identity.NEWEST")
_PASS_ON = Prepared("identity.PASS_ON")
_REPLACE = Prepared("identity.REPLACE")
_REPLACE_DATA = Prepared("identity.REPLACE_DATA")


def find(c: Connection, row: Mapping[str, Any], data: Mapping[str, Any]) -> int | None:
    """The job that a new one with this `unique_key` comes to; None: it is to be added, and the name is free for it."""
    name: str = row["unique_key"]
    if name.startswith(THROTTLE):
        newest = c.run(_NEWEST, {"unique_key": name})
        # A job from beyond the window's far end was added before the clock was set back.
        if newest and abs(row["created_at"] - newest[0][1]) < row["window_ms"]:
            return int(newest[0][0])
    else:
        live = c.run(_LIVE, {"unique_key": name})
        if not name.startswith(DEBOUNCE):
            return int(live[0][0]) if live else None
        for job_id, state, epoch in live:
            if state == JobState.DELAYED and epoch == 0:  # later it has begun, and is only waiting to be tried again
                c.change(_REPLACE, {**row, "job_id": job_id})
                c.change(_REPLACE_DATA, {**data, "of_job": job_id})
                return int(job_id)
    c.change(_PASS_ON, {"held_key": name})
    return None
