"""How a company stands, for hosts and status pages: a value, so that whoever shows it loads no actor."""

from dataclasses import dataclass

from ..persistence.model import LaneDepth


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanySnapshot:
    """How the company stands, as its dispatcher sees it.

    `lanes`: what waits; of these, by their names, `unroutable` are beyond everybody here (and why), `paused` in a paused queue, `elsewhere`
    left to other workers by configuration. `settled`: it has looked, found nothing it may run now, and works on nothing. `next_due_ms`: when that changes by time alone.
    """

    runners: int
    busy: int
    settled: bool
    draining: bool
    store_problem: str | None
    lanes: tuple[LaneDepth, ...]
    unroutable: dict[str, str]
    paused: tuple[str, ...]
    elsewhere: tuple[str, ...]
    held_keys: dict[str, int]
    next_due_ms: int | None
    abandoned: int
    claimed: int
    memory_mb: float | None
