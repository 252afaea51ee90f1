"""Samples, medians, and findings judged against their targets.

Times on a shared machine wander by half, so the sides of a comparison are run in turns, forwards and backwards (A B, B A, …), because whoever
comes after a heavy run meets what that has left the disk to write; that is also written out before each sample. Medians are compared, and
CPU time per operation is kept beside the rate: it wanders least. A floor that is passed was disturbed, and such a ratio is not judged.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

DISTURBED = 1.05
"""A ratio to a floor or an ideal above which the floor was not measured well."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one side: operations, the seconds they took, and the CPU seconds they cost."""

    operations: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.operations * 1e6


@dataclass(frozen=True, slots=True)
class Typical:
    """Medians over the runs of one side."""

    rate: float
    cpu_us: float
    seconds: float


def timed(operations: int, work: Callable[[], object]) -> Sample:
    """Run `work`, which does so many operations in this process."""
    cpu, start = time.process_time(), time.perf_counter()
    work()
    return Sample(operations, time.perf_counter() - start, time.process_time() - cpu)


def in_turns(rounds: int, sides: Mapping[str, Callable[[], Sample]]) -> dict[str, Typical]:
    """Run every side once per round, every other round backwards, and return each side's medians."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            os.sync()
            samples[name].append(sides[name]())
    return {
        name: Typical(median(s.rate for s in found), median(s.cpu_us for s in found), median(s.seconds for s in found))
        for name, found in samples.items()
    }


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share (0 to 1) of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target in words, and whether it is met; None where this run cannot tell."""

    target: str
    met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table. `floor` is in the same unit, CPU in µs per operation; None where there is nothing to say."""

    what: str
    ours: float
    unit: str
    floor: float | None = None
    ratio: float | None = None
    cpu_us: float | None = None
    floor_cpu_us: float | None = None
    verdict: Verdict | None = None


def at_least(share: float | None, ratio: float, of: str) -> Verdict | None:
    """Whether a ratio reaches its target; None without a target. Nobody does more than the floor in less time: then it was disturbed."""
    if share is None:
        return None
    return Verdict(f"≥ {share:g} of {of}", None if ratio > DISTURBED else ratio >= share)


def beside_floor(what: str, unit: str, ours: Typical, floor: Typical, share: float | None = None) -> Finding:
    """A rate beside its floor's, of which it is to reach this share."""
    ratio = ours.rate / floor.rate
    return Finding(
        what=what,
        ours=ours.rate,
        unit=unit,
        floor=floor.rate,
        ratio=ratio,
        cpu_us=ours.cpu_us,
        floor_cpu_us=floor.cpu_us,
        verdict=at_least(share, ratio, "floor"),
    )


def share_of_ideal(what: str, unit: str, found: Typical, ideal: float, share: float | None) -> Finding:
    """A rate beside what it would be if nothing but waiting took time."""
    ratio = found.rate / ideal
    return Finding(
        what=what,
        ours=found.rate,
        unit=unit,
        floor=ideal,
        ratio=ratio,
        cpu_us=found.cpu_us,
        verdict=at_least(share, ratio, "ideal"),
    )


def at_most(what: str, ours: float, unit: str, limit: float | None, floor: float | None = None) -> Finding:
    """A figure that is not to exceed a limit."""
    return Finding(
        what=what,
        ours=ours,
        unit=unit,
        floor=floor,
        ratio=ours / floor if floor else None,
        verdict=None if limit is None else Verdict(f"≤ {limit:g} {unit}", ours <= limit),
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """What every benchmark is given: a directory of its own, how often to repeat, and whether to be quick rather than exact."""

    directory: Path
    quick: bool

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 5

    def size(self, full: int, quick: int) -> int:
        """How much to do."""
        return quick if self.quick else full

    def fresh(self, name: str) -> Path:
        """A path in the directory that nothing has used yet."""
        number = sum(1 for _ in self.directory.glob(f"{name}-*.db"))
        return self.directory / f"{name}-{number}.db"


Benchmark = Callable[[Bench], Iterable[Finding]]
Findings = Sequence[Finding]
