"""The runners by groups: who belongs to which, what each may claim, and whom to start. Pure: no clock, no thread, no I/O.

A runner's group follows from its name, so that nobody has to remember it: a dispatcher that begins anew knows it at once.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..persistence.batches import DRIVERS
from ..persistence.model import LaneDepth
from .messages import ClaimPart
from .settings import CompanySettings

DRIVER_TYPES = frozenset(DRIVERS.values())
"""Jobs that drive batches are anybody's, whatever types and queues a worker or its groups are configured to claim."""


@dataclass(frozen=True, slots=True)
class RunnerGroup:
    """Runners that are alike, numbered from `first` on. None for types or queues: any."""

    name: str
    first: int
    runners: int
    types: frozenset[str] | None
    queues: frozenset[str] | None
    tags: frozenset[str]

    @property
    def names(self) -> list[str]:
        """The names of its runners."""
        return [f"runner-{number}" for number in range(self.first, self.first + self.runners)]

    def takes(self, lane: LaneDepth) -> bool:
        """Whether it is meant for jobs of this type and queue. Whoever can begin a job can drive the batch that the job came to be in."""
        return lane.type in DRIVER_TYPES or (
            (self.types is None or lane.type in self.types) and (self.queues is None or lane.queue in self.queues)
        )

    def can_run(self, lane: LaneDepth) -> bool:
        """Whether it takes such jobs and has what they require."""
        return self.takes(lane) and self.tags.issuperset(lane.requires)


REST = "others"
"""The name of the group of those runners that no group is configured for."""


def runner_groups(settings: CompanySettings) -> tuple[RunnerGroup, ...]:
    """How the runners are divided: the groups as configured, in their order, then the rest. Raises ValueError if there are too few runners."""
    if REST in settings.groups:
        raise ValueError(f"{REST!r} is what the runners outside all groups are called: give the group another name")
    wanted = sum(group.runners for group in settings.groups.values())
    if wanted > settings.runners.max:
        raise ValueError(
            f"the groups have {wanted} runners together, more than runners.max, which is {settings.runners.max}"
        )
    own = frozenset(settings.claims.tags)
    groups = []
    first = 1
    for name, group in settings.groups.items():
        groups.append(
            RunnerGroup(
                name,
                first,
                group.runners,
                None if group.types is None else frozenset(group.types),
                None if group.queues is None else frozenset(group.queues),
                own | frozenset(group.tags),
            )
        )
        first += group.runners
    if wanted < settings.runners.max:
        groups.append(RunnerGroup(REST, first, settings.runners.max - wanted, None, None, own))
    return tuple(groups)


class Roster:
    """All runners there may be."""

    def __init__(self, groups: tuple[RunnerGroup, ...]) -> None:
        self.groups = groups
        self._group_of = {name: group.name for group in groups for name in group.names}
        self.names = list(self._group_of)

    def group_of(self, runner: str) -> str:
        """The group of a runner by its name."""
        return self._group_of[runner]

    def parts(
        self,
        plan: Mapping[str, Collection[str]],
        *,
        busy: Iterable[str],
        unassigned: Iterable[str],
        slots: int,
        turn: int,
    ) -> tuple[ClaimPart, ...]:
        """What each group with a free runner may claim; the group of this `turn` goes first.

        `plan` names the groups that can run each lane, `busy` the runners that are not free, `unassigned` the group of each job that already
        waits for a runner.
        """
        taken = Counter(map(self._group_of.__getitem__, busy))
        taken.update(unassigned)
        first = turn % len(self.groups)
        parts = []
        for group in self.groups[first:] + self.groups[:first]:
            free = min(slots, group.runners - taken[group.name])
            lanes = tuple(lane for lane, names in plan.items() if group.name in names)
            if free > 0 and lanes:
                parts.append(ClaimPart(group.name, free, lanes))
        return tuple(parts)

    def to_start(
        self, taken: Collection[str], *, starting: Iterable[str], unassigned: Iterable[str], at_least: int
    ) -> list[str]:
        """The runners to start, of those not `taken`: one for each `unassigned` job of a group that has none `starting`, and `at_least` so many."""
        wanted = Counter(unassigned)
        wanted.subtract(map(self.group_of, starting))
        chosen: list[str] = []
        for group in self.groups:
            free = [name for name in group.names if name not in taken]
            chosen += free[: max(0, wanted[group.name])]
        others = [name for name in self.names if name not in taken and name not in chosen]
        return chosen + others[: max(0, at_least - len(chosen))]


def asked(quotas: Mapping[str, int], parts: Iterable[ClaimPart]) -> dict[tuple[str, str], int]:
    """How many jobs of each lane a claim may take for each group."""
    return {(part.group, lane): min(quotas[lane], part.slots) for part in parts for lane in part.lanes}
