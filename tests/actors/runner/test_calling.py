"""What a runner tells the store of a call, and when: the real runner under the seeded scheduler, everybody else only keeps what it is told."""

from collections.abc import Generator
from typing import Any

import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.simulation import SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import (
    DISPATCHER,
    STORE,
    CallFinished,
    CallGranted,
    FinishJob,
    IntentRecorded,
    OutcomeRecorded,
    RecordIntent,
    RecordOutcome,
    ReserveCall,
    RunJob,
    RunnerIdle,
    StartCall,
    limiter_name,
    provider_name,
)
from callboard.actors.providers.model import Completion, Finish
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.runner.actor import JobRunnerActor
from callboard.actors.runner.handlers import HandlerRegistry
from callboard.actors.settings import CompanySettings
from callboard.persistence.limit_rules import Gate
from callboard.persistence.model import ClaimedJob, JobOptions, Lease

SETTINGS = CompanySettings(
    database="sqlite://",
    providers={"acme": ProviderSettings(name="acme", wire="openai-chat", base_url="https://acme.test/v1")},
    default_model="acme:m",
)


class Keeper(Actor):
    def __init__(self, system: ActorSystem, kept: list[Any]) -> None:
        super().__init__(system)
        self.kept = kept

    def receive(self, message: object) -> None:
        self.kept.append(message)


@pytest.fixture
def stage() -> Generator[tuple[SimulationScheduler, ActorSystem, list[Any]]]:
    simulation = SimulationScheduler(1)
    system = ActorSystem(scheduler=simulation)
    told: list[Any] = []
    for name in (STORE, DISPATCHER, limiter_name("acme/m"), provider_name("acme")):
        system.start_actor(name, lambda: Keeper(system, told))
    runner = JobRunnerActor(system, settings=SETTINGS, handlers=HandlerRegistry(), open_limiter=lambda _: None)
    system.start_actor("runner", lambda: runner)
    simulation.run_until_idle()
    told.clear()
    yield simulation, system, told
    system.close(1)


def perform(stage: tuple[SimulationScheduler, ActorSystem, list[Any]], epoch: int) -> None:
    """Until the answer is there, and its outcome on its way to the store."""
    simulation, system, told = stage

    def after(message: object) -> Any:
        system.tell("runner", message)
        simulation.run_until_idle()
        return told[-1]

    job = ClaimedJob(
        lease=Lease(1, epoch), type="chat", queue="default", model=None, priority=0, attempt=epoch, failures=0, losses=0,
        max_attempts=3, alone=False, data={"prompt": "?"}, options=JobOptions(),
    )  # fmt: skip
    asked = after(RunJob(job))
    assert isinstance(asked, ReserveCall)
    assert isinstance(after(CallGranted(asked.call, Gate("acme/s", "acme", 0, asked.charge))), RecordIntent)
    assert isinstance(after(IntentRecorded(asked.call, 1)), StartCall)
    after(CallFinished(asked.call, Completion(text="!", finish=Finish.STOP)))


def test_an_answer_is_told_to_the_store_together_with_the_end_it_brings(stage):
    perform(stage, epoch=1)
    writes = [message for message in stage[2] if isinstance(message, RecordOutcome | FinishJob)]
    assert [type(message) for message in writes] == [RecordOutcome, FinishJob]  # so one transaction can hold both


def test_but_not_where_another_answer_may_have_been_kept_before(stage):
    perform(stage, epoch=3)
    simulation, system, told = stage
    assert not any(isinstance(message, FinishJob) for message in told)
    booked = next(message for message in told if isinstance(message, RecordOutcome))
    system.tell("runner", OutcomeRecorded(booked.call))
    simulation.run_until_idle()
    assert [type(message) for message in told[-2:]] == [FinishJob, RunnerIdle]
