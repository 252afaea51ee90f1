"""What a look at the board may take from the look before it, and what it must not: the store's actor over a real database file.

The actor runs under the seeded scheduler with virtual time; its answers go to an actor that only keeps them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard import JobQueue
from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.simulation import SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import (
    DISPATCHER,
    STORE,
    CallRef,
    CheckLeases,
    ClaimJobs,
    ClaimPart,
    Complete,
    FinishJob,
    IntentRecorded,
    IntentRefused,
    JobsClaimed,
    LeasesLost,
    RecordIntent,
    RetryLater,
)
from callboard.actors.store import CHECKPOINT_EVERY, TRY_AGAIN, StoreActor
from callboard.persistence import limits
from callboard.persistence.board import WorkerBoard
from callboard.persistence.errors import DatabaseBusyError
from callboard.persistence.limit_rules import Charge, Gate
from callboard.persistence.model import CallIntent, ClaimedJob

A, B = "default|a||", "default|b||"


class Keeper(Actor):
    """Stands where the dispatcher stands."""

    def __init__(self, system: ActorSystem, kept: list[object]) -> None:
        super().__init__(system)
        self.kept = kept

    def receive(self, message: object) -> None:
        self.kept.append(message)


class Desk:
    """A store's actor, a host beside it, and whoever asks for jobs."""

    def __init__(self, path: Path) -> None:
        self.simulation = SimulationScheduler(1)
        self.system = ActorSystem(scheduler=self.simulation)
        self.url = f"sqlite:///{path}"
        self.board = WorkerBoard.open(self.url, owner="me")
        self.queue = JobQueue(path, clock=self.simulation.clock.now_ms)
        self.kept: list[object] = []
        self.numbers = 0
        self.system.start_actor(STORE, lambda: StoreActor(self.system, board=self.board, lease_ttl=30.0))
        self.system.start_actor(DISPATCHER, lambda: Keeper(self.system, self.kept))
        self.simulation.run_until_idle()

    @property
    def connection(self) -> Any:
        actor = self.system.actor(STORE)
        assert isinstance(actor, StoreActor)
        return actor._open_connection

    def look(self, slots: int = 1, *lanes: str) -> JobsClaimed:
        self.numbers += 1
        quotas = dict.fromkeys(lanes or (A, B), slots)
        parts = (ClaimPart("all", slots, tuple(quotas)),)
        order = ClaimJobs(
            reply_to=DISPATCHER,
            number=self.numbers,
            slots=slots,
            quotas=quotas,
            keys={},
            parts=parts,
            alone=False,
            force=True,
        )
        self.system.tell(STORE, order)
        self.simulation.run_until_idle()
        claimed = self.kept.pop()
        assert isinstance(claimed, JobsClaimed)
        return claimed

    def finish(self, job: ClaimedJob, verdict: Any) -> None:
        self.system.tell(STORE, FinishJob(reply_to=DISPATCHER, lease=job.lease, verdict=verdict))
        self.simulation.run_until_idle()
        self.kept.clear()

    def close(self) -> None:
        self.system.close(5.0)
        self.simulation.run_until_idle()
        self.board.close()
        self.queue.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "board.db")
    yield desk
    desk.close()


def lanes(claimed: JobsClaimed) -> list[str]:
    return [lane.lane for lane in claimed.lanes]


def test_while_claims_are_filled_and_nobody_else_commits_the_statements_are_few(desk: Desk) -> None:
    desk.queue.add_many([{"type": "a"}] * 4)
    desk.look()
    seen: list[str] = []
    desk.connection._driver.set_trace_callback(seen.append)
    ((_, job),) = desk.look().jobs
    desk.finish(job, Complete({}))
    desk.look()
    desk.connection._driver.set_trace_callback(None)
    assert not [sql for sql in seen if "RECURSIVE lanes" in sql or "'delayed'" in sql]


def test_what_another_process_adds_is_seen_at_once(desk: Desk) -> None:
    desk.queue.add_many([{"type": "a"}] * 4)
    assert lanes(desk.look()) == [A]
    desk.queue.add("b")
    assert lanes(desk.look(1, A)) == [A, B]


def test_a_look_that_finds_too_little_counts_the_lanes_anew(desk: Desk) -> None:
    desk.queue.add_many([{"type": "a"}, {"type": "a"}, {"type": "b"}])
    assert lanes(desk.look(1, A)) == [A, B]
    assert len(desk.look(1, A).jobs) == 1
    assert lanes(desk.look(1, A)) == [B]


def test_who_waited_on_a_job_of_ours_is_seen_however_busy_another_lane_keeps_us(desk: Desk) -> None:
    first = desk.queue.add("a")
    desk.queue.add("b", needs=[first])
    desk.queue.add_many([{"type": "a"}] * 9)
    ((_, job),) = desk.look(1, A).jobs
    assert job.id == first.id
    desk.finish(job, Complete({}))
    seen = []
    for _ in range(8):
        desk.simulation.advance(0.02)
        seen.append(lanes(desk.look(1, A)))
    assert seen[0] == [A], "the lanes are not counted for every look"
    assert seen[-1] == [A, B]


def test_leases_are_only_looked_up_when_somebody_else_has_written(desk: Desk) -> None:
    first, second = desk.queue.add("a"), desk.queue.add("a")
    leases = tuple(job.lease for _, job in desk.look(2).jobs)
    seen: list[str] = []

    def check() -> Any:
        seen.clear()
        desk.system.tell(STORE, CheckLeases(DISPATCHER, leases))
        desk.simulation.run_until_idle()
        answer = desk.kept.pop()
        assert isinstance(answer, LeasesLost)
        return answer.leases

    desk.connection._driver.set_trace_callback(seen.append)
    assert check() == ()
    assert "BEGIN IMMEDIATE" in seen
    assert check() == ()
    assert "BEGIN IMMEDIATE" not in seen
    desk.simulation.advance(1.1)
    assert check() == ()
    assert "BEGIN IMMEDIATE" in seen, "now and then although nobody has"
    first.cancel()
    assert check() == leases[:1]
    assert check() == leases[:1], "until it is let go"
    assert second.state == "active"


def test_a_hold_that_another_process_sets_stops_the_very_next_call(desk: Desk) -> None:
    """What is known of holds is looked up once a transaction, and no longer believed in the next."""
    desk.queue.add("a")
    ((_, job),) = desk.look().jobs
    now = desk.simulation.clock.now_ms

    def intend(number: int) -> object:
        call = CallRef(job.lease.job_id, job.lease.epoch, number)
        intent = CallIntent(
            step=f"s{number}",
            fingerprint="f",
            provider="p",
            model="m",
            limit_key="p/m",
            reserved_tokens=1,
            reserved_cost=None,
        )
        gate = Gate("p/m", "p", now(), Charge(1, 1, 0, 1))
        desk.system.tell(STORE, RecordIntent(reply_to=DISPATCHER, call=call, intent=intent, gate=gate))
        desk.simulation.run_until_idle()
        return desk.kept.pop()

    assert isinstance(intend(1), IntentRecorded)
    other = WorkerBoard.open(desk.url, owner="other")
    connection = other.connect()
    with connection.write():
        limits.set_hold(connection, "p", now() + 60_000, "the key is wrong", now(), "auth")
    refused = intend(2)
    assert isinstance(refused, IntentRefused)
    assert refused.reason == "the key is wrong"
    connection.close()
    other.close()


def test_our_own_retries_fall_due(desk: Desk) -> None:
    desk.queue.add_many([{"type": "a"}] * 4)
    ((_, job),) = desk.look().jobs
    due = desk.simulation.clock.now_ms() + 2000
    desk.finish(job, RetryLater({"class": "server"}, due, "again"))
    assert desk.look().next_due_ms == due
    desk.simulation.advance(1.9)
    assert desk.look().jobs[0][1].id != job.id
    desk.simulation.advance(0.2)
    assert job.id in {claimed.id for _, claimed in desk.look(4).jobs}


def test_what_a_look_did_in_a_transaction_that_failed_is_done_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.queue.add("a", delay=1.0)
    desk.look()
    desk.simulation.advance(1.5)
    commit = desk.connection._commit

    def refuse() -> None:
        desk.connection._rollback()
        monkeypatch.setattr(desk.connection, "_commit", commit)
        raise DatabaseBusyError("locked by a test")

    monkeypatch.setattr(desk.connection, "_commit", refuse)
    desk.numbers += 1
    order = ClaimJobs(
        reply_to=DISPATCHER,
        number=desk.numbers,
        slots=1,
        quotas={A: 1},
        keys={},
        parts=(ClaimPart("all", 1, (A,)),),
        alone=False,
        force=True,
    )
    desk.system.tell(STORE, order)
    desk.simulation.run_until_idle()
    desk.simulation.advance(TRY_AGAIN + 0.1)
    claimed = [message for message in desk.kept if isinstance(message, JobsClaimed)]
    assert [found.id for _, found in claimed[-1].jobs] == [job.id]


def test_what_is_committed_moves_into_the_file_by_itself_and_only_when_there_is_something(desk: Desk) -> None:
    file = desk.board._database.path
    assert file is not None
    statements: list[str] = []
    script = desk.connection.script
    desk.connection.script = lambda sql: (statements.append(sql), script(sql))[1]
    desk.queue.add("a", {"text": "x" * 100_000})
    desk.look()
    before = file.stat().st_size
    desk.simulation.advance(CHECKPOINT_EVERY + 0.1)
    assert file.stat().st_size > before + 90_000
    statements.clear()
    desk.simulation.advance(3 * CHECKPOINT_EVERY)
    assert not [sql for sql in statements if "checkpoint" in sql]
