"""When the dispatcher looks again without being told to: the actor itself under virtual time; who it talks to only keeps what it says."""

from collections.abc import Iterator

import pytest

from callboard.actors.dispatcher import DispatcherActor
from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.simulation import SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import DISPATCHER, RUNNERS, STORE, ClaimJobs, JobsClaimed, RunJob, RunnerIdle
from callboard.actors.settings import CompanySettings, RunnerSettings
from callboard.persistence.model import ClaimedJob, JobOptions, LaneDepth, Lease

LANE = LaneDepth("default|noop||", "default", "noop", None, 50)
RUNNERS_AT_WORK = 5


class Keeper(Actor):
    """Stands where another actor stands."""

    def __init__(self, system: ActorSystem, kept: list[object]) -> None:
        super().__init__(system)
        self.kept = kept

    def receive(self, message: object) -> None:
        self.kept.append(message)


class Office:
    """A dispatcher whose runners are all there and idle, and have not been given anything."""

    def __init__(self) -> None:
        self.simulation = SimulationScheduler(1)
        self.system = ActorSystem(scheduler=self.simulation)
        self.told: dict[str, list[object]] = {}
        self.jobs = 0
        self.names = [f"runner-{number}" for number in range(1, RUNNERS_AT_WORK + 1)]
        for name in (STORE, RUNNERS, *self.names):
            kept = self.told[name] = []
            self.system.start_actor(name, lambda kept=kept: Keeper(self.system, kept))
        settings = CompanySettings(
            database="sqlite://", providers={}, runners=RunnerSettings(max=RUNNERS_AT_WORK), poll_interval=1000.0
        )
        self.system.start_actor(
            DISPATCHER,
            lambda: DispatcherActor(
                self.system,
                settings=settings,
                types=frozenset({"noop"}),
                runner_spec=lambda name: pytest.fail(f"{name} was to be started"),
                memory=lambda: None,
            ),
        )

    def tell(self, message: object) -> None:
        self.system.tell(DISPATCHER, message)
        self.simulation.run_until_idle()

    def claims(self) -> list[ClaimJobs]:
        """The looks it has asked for since the last time."""
        found = [message for message in self.told[STORE] if isinstance(message, ClaimJobs)]
        self.told[STORE].clear()
        return found

    def answer(self, look: ClaimJobs, jobs: int) -> None:
        """The store's answer: so many jobs."""
        claimed = []
        for _ in range(jobs):
            self.jobs += 1
            claimed.append(("others", job_of(Lease(self.jobs, 1))))
        self.tell(JobsClaimed(number=look.number, jobs=tuple(claimed), lanes=(LANE,), suspects=False, next_due_ms=None))

    def at_work(self) -> list[str]:
        return [name for name in self.names if any(isinstance(message, RunJob) for message in self.told[name])]


def job_of(lease: Lease) -> ClaimedJob:
    return ClaimedJob(
        lease=lease,
        type="noop",
        queue="default",
        model=None,
        priority=0,
        attempt=1,
        failures=0,
        losses=0,
        max_attempts=3,
        alone=False,
        data={},
        options=JobOptions(),
    )


@pytest.fixture
def office() -> Iterator[Office]:
    office = Office()
    yield office
    office.system.close(5.0)
    office.simulation.run_until_idle()


def all_at_work(office: Office) -> list[Lease]:
    for name in office.names:
        office.tell(RunnerIdle(name, None))
    (first,) = office.claims()
    office.answer(first, 0)  # the first look learns which lanes there are
    (second,) = office.claims()
    assert second.slots == RUNNERS_AT_WORK
    office.answer(second, RUNNERS_AT_WORK)
    assert office.at_work() == office.names
    return [message.job.lease for name in office.names for message in office.told[name] if isinstance(message, RunJob)]


def test_runners_that_idle_while_a_look_is_on_its_way_do_not_wait_for_the_next_poll(office: Office) -> None:
    leases = all_at_work(office)
    office.tell(RunnerIdle("runner-1", leases[0]))
    (look,) = office.claims()
    assert look.slots == 1
    office.tell(RunnerIdle("runner-2", leases[1]))
    office.tell(RunnerIdle("runner-3", leases[2]))
    assert office.claims() == [], "one question at a time"
    office.answer(look, 1)
    (again,) = office.claims()
    assert (again.slots, again.force) == (2, True)


def test_a_look_that_was_not_filled_is_the_last_until_something_happens(office: Office) -> None:
    leases = all_at_work(office)
    office.tell(RunnerIdle("runner-1", leases[0]))
    (look,) = office.claims()
    office.tell(RunnerIdle("runner-2", leases[1]))
    office.answer(look, 0)
    assert office.claims() == []
