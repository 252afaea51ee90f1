"""What calls have cost, summed by what one asks for; those of deleted jobs are in the sums. Reads only."""

from typing import NamedTuple

from .engine import Connection
from .errors import InvalidJobError
from .model import USAGE_COLUMNS
from .sql import Prepared

BY = ("all", "job", "tree", "tag", "type", "queue", "model", "provider", "day")
_COSTS = {by: Prepared(f"costs.BY_{by.upper()}") for by in BY}
_OF_TREE = Prepared("costs.OF_TREE")
_FOREVER = 1 << 62


class CostRow(NamedTuple):
    """The calls of one job, tag, model, day, …: `name`. Money in nano-dollars, None where nothing is known.

    `cost`: of the calls with a known price. `unpriced`: answered calls without one. `reserved`: what calls under way may cost. `unknown`: calls
    of which nobody knows whether they were made, and `unknown_cost` what they may have cost. `saved`: what answers from the cache had cost when they
    were first given; that of deleted jobs is forgotten.
    """

    name: str
    calls: int
    input_uncached: int
    cache_read: int
    cache_write: int
    output_visible: int
    output_reasoning: int
    cache_write_1h: int
    cost: int | None
    unpriced: int
    reserved: int | None
    unknown: int
    unknown_cost: int | None
    saved: int | None = None

    @property
    def input(self) -> int:
        """All input tokens, cached or not."""
        return self.input_uncached + self.cache_read + self.cache_write + self.cache_write_1h

    @property
    def output(self) -> int:
        """All output tokens, shown or not."""
        return self.output_visible + self.output_reasoning


assert CostRow._fields[2:8] == USAGE_COLUMNS


class TreeCost(NamedTuple):
    """What a job and everything that it created has cost; money as in `CostRow`."""

    jobs: int
    calls: int
    cost: int | None
    unpriced: int
    reserved: int | None
    unknown_cost: int | None


def costs(
    c: Connection,
    by: str = "model",
    *,
    since: int = 0,
    before: int | None = None,
    tag: str | None = None,
    limit: int = 1000,
) -> list[CostRow]:
    """Costs summed by one of `BY`, the dearest first. `since`, `before` (epoch milliseconds): calls sent then; of deleted jobs whole days (UTC).

    A day is a day in UTC. What deleted jobs cost is known by day, tag, model and provider; elsewhere it is in a row "(deleted jobs)".
    """
    if by not in _COSTS:
        raise InvalidJobError("by", f"must be one of {', '.join(BY)}, not {by!r}")
    params = {"since": since, "before": _FOREVER if before is None else before, "tag": tag, "limit": limit}
    return [CostRow(*row) for row in c.run(_COSTS[by], params)]


def of_tree(c: Connection, job_id: int) -> TreeCost:
    """What a job and everything below it has cost: what it created, and what that created."""
    jobs, calls, cost, unpriced, reserved, unknown = c.run(_OF_TREE, {"wanted": job_id})[0]
    return TreeCost(jobs, calls, cost, unpriced or 0, reserved, unknown)
