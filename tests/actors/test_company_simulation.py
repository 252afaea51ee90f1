"""The whole company under seeds: crashes anywhere, a provider that fails in every way, a host that cancels, a database that refuses work.

What must hold in each of them is judged by `company_world.World.judge` from the board, the ledger and the provider's own journal: nothing lost, nothing done
twice, no completion paid for again, nothing left over. A seed that fails can be run again: `World(seed).play().judge()`.
"""

from collections import Counter

import pytest

from callboard.actors.kernel.simulation import SimulatedCrashError
from callboard.actors.messages import DISPATCHER, RunJob, RunnerIdle

pytestmark = pytest.mark.usefixtures("quiet")

BLOCK = 25
DEFAULT_BLOCKS = 1
SOAK_BLOCKS = 96


def run_block(company, block):
    seen = Counter()
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        world = company.World(seed).play().judge()
        seen["crashes"] += world.crashed.total()
        seen["gave up"] += world.gave_up
        seen["calls"] += len(world.journal)
        seen["aborted or failed"] += sum(not delivery.completed for delivery in world.journal)
    # Each of these must happen in every block, or the runs show less than they say.
    assert seen["crashes"] > BLOCK / 5, seen
    assert seen["calls"] > BLOCK * 5, seen
    assert seen["aborted or failed"] > BLOCK / 2, seen


@pytest.mark.parametrize("block", range(DEFAULT_BLOCKS))
def test_nothing_is_lost_or_done_twice_under_any_seed(company, block):
    run_block(company, block)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(DEFAULT_BLOCKS, SOAK_BLOCKS))
def test_nothing_is_lost_or_done_twice_under_thousands_of_seeds(company, block):
    run_block(company, block)


@pytest.mark.parametrize("seed", [3, 11, 12])
def test_the_same_seed_does_the_same_again(company, seed):
    first, second = (company.World(seed).play().judge() for _ in range(2))
    assert first.simulation.trace == second.simulation.trace
    assert first.journal == second.journal


def test_a_runner_that_called_itself_idle_before_it_got_its_job_is_not_given_another(company):
    """As a new dispatcher hears it: once from the runner's start, and again in answer to its question."""
    told = []

    def fault(point):
        if point.kind == "sent" and isinstance(point.message, RunJob):
            told.append(point.to)
            world.system.tell(DISPATCHER, RunnerIdle(point.to, None))

    world = company.World(1, crashes=0.0, fault=fault)
    world.play().judge()
    assert len(told) >= 8


class CrashOnce:
    """Crashes one kind of actor the first time it gets to one kind of point."""

    def __init__(self, place):
        self.place, self.struck = place, 0

    def __call__(self, point):
        if not self.struck and place_of(point) == self.place:
            self.struck += 1
            return SimulatedCrashError(str(self.place))
        return None


def place_of(point):
    kind = point.actor.partition(":")[0].rstrip("0123456789")
    return kind, point.kind, point.detail


def places(company, seeds):
    """Every place an undisturbed run gets to: kind of actor, kind of point, message."""
    found = set()

    def note(point):
        found.add(place_of(point))

    for seed in seeds:
        company.World(seed, crashes=0.0, fault=note, jobs=3).play().judge()
    return sorted(found)


class TakeOnce:
    """A host cancels a job, or another worker takes it for lost, the first time a message about it gets to one kind of point."""

    def __init__(self, place, how):
        self.place, self.how, self.world, self.struck = place, how, None, 0

    def __call__(self, point):
        lease = lease_of(point.message)
        if not self.struck and lease is not None and place_of(point) == self.place:
            self.struck += 1
            getattr(self.world, self.how)(lease.job_id)
            self.world.host_commits += 1


def lease_of(message):
    for about in (message, getattr(message, "call", None), getattr(message, "job", None)):
        if hasattr(about, "lease"):
            return about.lease
    return None


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("cancel", 0),
        *(pytest.param(how, part, marks=pytest.mark.soak) for how, part in (("cancel", 1), ("steal", 0), ("steal", 1))),
    ],
)
def test_a_lease_lost_at_each_place_leaves_nothing_behind(company, how, part):
    everywhere = [place for place in places(company, [1]) if place[1] in {"sent", "receive"}]
    struck = 0
    for place in everywhere[part::2]:
        fault = TakeOnce(place, how)
        world = company.World(1, crashes=0.0, fault=fault, jobs=3)
        fault.world = world
        world.play().judge()
        struck += fault.struck
    assert struck > 10


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.soak) for part in (1, 2, 3))])
def test_a_single_crash_at_each_place_loses_nothing(company, part):
    """One crash per place, so that every message of the protocol is lost once on either side of its delivery."""
    everywhere = places(company, [1])
    assert len(everywhere) > 100
    for number, place in enumerate(everywhere):
        if number % 4 == part and place[:2] != ("company", "start"):
            fault = CrashOnce(place)
            world = company.World(1, crashes=0.0, fault=fault, jobs=3).play().judge()
            assert fault.struck == 1, place
            assert world.crashed.total() == 1
