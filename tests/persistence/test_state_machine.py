"""The board against a small model of it, under every order of events Hypothesis can think of, crashes in the middle included.

The model knows only what is promised: who may write, where a job is, and its counters.
"""

import contextlib
import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from callboard.persistence import claims, events, host_store, job_store, queues, retention
from callboard.persistence.engine import open_database
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.lifecycle import TERMINAL_STATES, JobState, is_legal
from callboard.persistence.model import Lease
from callboard.persistence.new_job import NewJob, rows_of

OWNERS = ("worker-a", "worker-b")
LEASE_MS = 1000
SUSPECT_AFTER = 2


@dataclass
class Model:
    """What a job should look like."""

    state: JobState
    max_attempts: int
    epoch: int = 0
    owner: str | None = None
    alone: bool = False
    lease_until: int = 0
    run_at: int | None = None
    failures: int = 0
    losses: int = 0
    deferrals: int = 0
    held_until: int = 0
    priority: int = 0
    group: str | None = None
    group_limit: int | None = None
    results: list[Any] = field(default_factory=list)
    name: str | None = None
    created_at: int = 0
    ended_at: int | None = None
    data: Any = None


class SimulatedCrashError(Exception):
    """The process dies between two statements of a transaction."""


class BoardMachine(RuleBasedStateMachine):
    leases: Bundle[Lease] = Bundle("leases")

    @initialize(target=leases)
    def open(self) -> Any:
        self.database = open_database("sqlite://")
        self.c = self.database.connect()
        self.now = 1_000_000
        self.jobs: dict[int, Model] = {}
        self.epochs: dict[int, int] = {}
        self.paused = False
        self.queue = JobQueue(self.database, clock=lambda: self.now)
        self.told: list[events.Event] = []

        for _ in range(2):
            self.add(max_attempts=2, delay=0, key=None)
        return self.claim(owner=OWNERS[0], slots=2, alone=False)

    def teardown(self) -> None:
        if hasattr(self, "c"):
            self.c.close()
            self.database.close()

    def holds(self, lease: Lease) -> bool:
        job = self.jobs.get(lease.job_id)  # None: it is deleted
        return job is not None and job.state == JobState.ACTIVE and job.epoch == lease.epoch

    def ends(self, job: Model, state: JobState) -> None:
        job.state, job.owner, job.alone, job.run_at = state, None, False, None
        job.ended_at = self.now if state in TERMINAL_STATES else None

    @rule(
        max_attempts=st.integers(1, 3),
        delay=st.sampled_from([0, 0, 5]),
        key=st.sampled_from([None, "k"]),
        priority=st.sampled_from([0, 0, 7]),
        group=st.sampled_from([(None, None), (None, None), ("g", 2), ("g", 2), ("h", None)]),
    )
    def add(
        self,
        max_attempts: int,
        delay: int,
        key: str | None,
        priority: int = 0,
        group: tuple[str | None, int | None] = (None, None),
    ) -> None:
        name, limit = group
        job = NewJob(type="chat", max_attempts=max_attempts, delay=delay, key=key, priority=priority, group=name)
        row, data = rows_of(dataclasses.replace(job, group_limit=limit), self.now)
        with self.c.write():
            job_id = host_store.add(self.c, row, data)
        if job_id not in self.jobs:
            state = JobState.DELAYED if delay else JobState.WAITING
            due = self.now + delay * 1000 if delay else None
            self.jobs[job_id] = Model(state, max_attempts, run_at=due, priority=priority, group=name, group_limit=limit)
            self.jobs[job_id].data = {}
        else:
            assert key is not None

    @rule(kind=st.sampled_from(["unique", "debounce", "throttle"]), number=st.integers())
    def add_named(self, kind: str, number: int) -> None:
        fields: dict[str, Any] = {"unique": "x"} if kind == "unique" else {kind: ("x", 0.7)}
        name = "x" if kind == "unique" else f"{kind}:x"
        named = {job_id: job for job_id, job in self.jobs.items() if job.name == name}
        live = {job_id: job for job_id, job in named.items() if job.state not in TERMINAL_STATES}
        assert len(live) <= 1
        match kind:
            case "unique":
                there = set(live)
            case "debounce":
                there = {i for i, job in live.items() if job.state == JobState.DELAYED and job.epoch == 0}
            case _:
                newest = max(named, default=0)
                there = {newest} if named and self.now - named[newest].created_at < 700 else set()
        row, data = rows_of(NewJob(type="chat", data={"n": number}, **fields), self.now)
        with self.c.write():
            job_id = host_store.add(self.c, row, data)
        if there:
            assert {job_id} == there
        else:
            assert job_id not in self.jobs
            for job in live.values():
                job.name = None
            state = JobState.DELAYED if kind == "debounce" else JobState.WAITING
            self.jobs[job_id] = Model(state, 3, name=name, created_at=self.now, data={"n": number})
        if kind == "debounce":
            self.jobs[job_id].run_at = self.now + 700
            self.jobs[job_id].data = {"n": number}

    @rule(age=st.sampled_from([0, 500, 2500]))
    def prune(self, age: int) -> None:
        before = self.now - age
        old = {i for i, job in self.jobs.items() if job.ended_at is not None and job.ended_at < before}
        with self.c.write():
            assert retention.prune(self.c, before) == len(old)
        for job_id in old:
            del self.jobs[job_id]

    @rule(
        target=leases,
        owner=st.sampled_from(OWNERS),
        slots=st.integers(1, 3),
        alone=st.sampled_from([False, False, False, True]),
    )
    def claim(self, owner: str, slots: int, alone: bool) -> Any:
        with self.c.write():
            claimed = claims.claim(
                self.c,
                owner=owner,
                slots=slots,
                quotas={"default|chat||": slots},
                lease_until=self.now + LEASE_MS,
                now=self.now,
                actor="store",
                alone=alone,
                suspect_after=SUSPECT_AFTER,
            )
        assert {job.id for job in claimed} == set(self.next_jobs(slots, alone))
        for taken in claimed:
            job = self.jobs[taken.id]
            job.state, job.owner, job.alone, job.lease_until = JobState.ACTIVE, owner, alone, self.now + LEASE_MS
            job.epoch += 1
            job.held_until = 0
            assert taken.lease.epoch == job.epoch
        return multiple(*(job.lease for job in claimed))

    def next_jobs(self, slots: int, alone: bool) -> list[int]:
        """Whose turn it is: by priority, then by the turns of their groups, then by age."""
        if self.paused:
            return []
        active = Counter(job.group for job in self.jobs.values() if job.state == JobState.ACTIVE)
        turns = Counter(active)
        able = [
            (-job.priority, job_id, job)
            for job_id, job in self.jobs.items()
            if job.state == JobState.WAITING and job.held_until <= self.now and (job.losses >= SUSPECT_AFTER) == alone
        ]
        ordered = []
        for rank, job_id, job in sorted(able, key=lambda entry: entry[:2]):
            turn = 1
            if job.group is not None:
                turns[job.group] += 1
                turn = active[job.group] + 1 if alone else turns[job.group]
            if job.group_limit is None or turn <= job.group_limit:
                ordered.append((rank, 0 if alone else turn, job_id))
        return [job_id for _, _, job_id in sorted(ordered)][: 1 if alone else slots]

    @rule(pause=st.booleans())
    def pause_or_resume(self, pause: bool) -> None:
        with self.c.write():
            changed = queues.pause(self.c, "default", self.now) if pause else queues.resume(self.c, "default")
        assert changed == (pause != self.paused)
        self.paused = pause

    @rule(lease=leases, value=st.integers())
    def complete(self, lease: Lease, value: int) -> None:
        with self.c.write():
            done = job_store.complete(self.c, lease, value, self.now, "runner")
        assert done == self.holds(lease)
        if done:
            job = self.jobs[lease.job_id]
            self.ends(job, JobState.COMPLETED)
            job.results.append(value)

    @rule(lease=leases)
    def fail(self, lease: Lease) -> None:
        with self.c.write():
            done = job_store.fail(self.c, lease, {"class": "x"}, self.now, "runner", "broken")
        assert done == self.holds(lease)
        if done:
            self.jobs[lease.job_id].failures += 1
            self.ends(self.jobs[lease.job_id], JobState.FAILED)

    @rule(lease=leases)
    def retry_later(self, lease: Lease) -> None:
        with self.c.write():
            state = job_store.retry_later(self.c, lease, {"class": "x"}, self.now + 500, self.now, "runner", "again")
        assert (state is not None) == self.holds(lease)
        if state is None:
            return
        job = self.jobs[lease.job_id]
        job.failures += 1
        if job.failures >= job.max_attempts:
            self.ends(job, JobState.FAILED)
        else:
            self.ends(job, JobState.DELAYED)
            job.run_at = self.now + 500
            job.epoch += 1
        assert state == job.state

    @rule(
        lease=leases, cause=st.sampled_from(["loss", "deferral", "handback"]), hold=st.sampled_from([None, None, 700])
    )
    def release(self, lease: Lease, cause: Any, hold: int | None) -> None:
        until = None if hold is None else self.now + hold
        with self.c.write():
            state = job_store.release(
                self.c, lease, cause=cause, reason="r", now=self.now, actor="runner", held_by="k", held_until=until
            )
        assert (state is not None) == self.holds(lease)
        if state is not None:
            self.went_back(self.jobs[lease.job_id], cause, until or 0)
            assert state == self.jobs[lease.job_id].state

    def went_back(self, job: Model, cause: str, held_until: int = 0) -> None:
        convicted = job.alone and cause == "loss"
        job.losses += cause == "loss"
        if convicted:
            self.ends(job, JobState.FAILED)
        else:
            job.deferrals += cause == "deferral"
            job.epoch += 1
            job.held_until = held_until
            self.ends(job, JobState.WAITING)

    @rule(lease=leases)
    def write_along(self, lease: Lease) -> None:
        with self.c.write():
            assert job_store.append_chunks(self.c, lease, [(1, "main", "text")], self.now) == self.holds(lease)
            assert job_store.set_progress(self.c, lease, 50, None, self.now) == self.holds(lease)

    @rule(me=st.sampled_from(OWNERS), dead=st.booleans(), limit=st.integers(1, 3))
    def rescue(self, me: str, dead: bool, limit: int) -> None:
        with self.c.write():
            back = claims.rescue(self.c, now=self.now, is_dead=lambda _: dead, my_owner=me, limit=limit)
        lost = [
            i
            for i, job in self.jobs.items()
            if job.state == JobState.ACTIVE and job.owner != me and (dead or job.lease_until <= self.now)
        ]
        assert len(back) == min(limit, len(lost))
        for job_id, state in back:
            assert job_id in lost
            self.went_back(self.jobs[job_id], "loss")
            assert self.jobs[job_id].state == state

    def renew(self, owner: str) -> None:
        with self.c.write():
            renewed = claims.renew(self.c, owner, self.now + LEASE_MS)
        mine = [job for job in self.jobs.values() if job.state == JobState.ACTIVE and job.owner == owner]
        assert renewed == len(mine)
        for job in mine:
            job.lease_until = self.now + LEASE_MS

    def promote(self) -> None:
        with self.c.write():
            claims.promote_due(self.c, self.now, 100)
        for job in self.jobs.values():
            if job.state == JobState.DELAYED and job.run_at is not None and job.run_at <= self.now:
                job.state, job.run_at = JobState.WAITING, None

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), move=st.sampled_from(["send_back", "cancel", "promote_one", "duplicate"]))
    def host_moves(self, data: st.DataObject, move: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        getattr(self, move)(job_id, self.jobs[job_id])

    def promote_one(self, job_id: int, job: Model) -> None:
        with self.c.write():
            promoted = host_store.promote(self.c, job_id, "now", self.now)
        assert promoted == (job.state == JobState.DELAYED)
        if promoted:
            job.state, job.run_at = JobState.WAITING, None

    def duplicate(self, job_id: int, job: Model) -> None:
        with self.c.write():
            made = host_store.duplicate(self.c, job_id, self.now)
        assert made is not None
        assert made not in self.jobs
        self.jobs[made] = Model(
            JobState.WAITING,
            job.max_attempts,
            priority=job.priority,
            group=job.group,
            group_limit=job.group_limit,
            data=job.data,
        )

    def cancel(self, job_id: int, job: Model) -> None:
        with self.c.write():
            cancelled = host_store.cancel(self.c, job_id, "no", self.now)
        assert cancelled == (job.state not in TERMINAL_STATES)
        if cancelled:
            job.epoch += job.state == JobState.ACTIVE
            job.held_until = 0
            self.ends(job, JobState.CANCELLED)

    def send_back(self, job_id: int, job: Model) -> None:
        with self.c.write():
            sent = host_store.retry(self.c, job_id, "again", self.now)
        taken = job.name is not None and any(
            other.name == job.name and other.state not in TERMINAL_STATES for other in self.jobs.values()
        )
        assert sent == (job.state in {JobState.FAILED, JobState.CANCELLED} and not (taken and job.name == "x"))
        if sent:
            job.state, job.failures, job.losses, job.ended_at = JobState.WAITING, 0, 0, None
            job.name = None if taken else job.name
            job.epoch += 1

    @rule(query=st.sampled_from(["priority:7", "-priority:7", "group:g,h", "losses:>0"]))
    def cancel_all(self, query: str) -> None:
        meant = {i: job for i, job in self.described(query) if job.state not in TERMINAL_STATES}
        assert self.queue.cancel_where(query, chunk=2) == len(meant)
        for job in meant.values():
            job.epoch += job.state == JobState.ACTIVE
            job.held_until = 0
            self.ends(job, JobState.CANCELLED)

    @rule(query=st.sampled_from(["priority:7", "-priority:7", "group:g,h", "losses:>0"]))
    def delete_all(self, query: str) -> None:
        gone = [i for i, job in self.described(query) if job.state in TERMINAL_STATES]
        assert self.queue.delete_where(query, chunk=2) == len(gone)
        for job_id in gone:
            del self.jobs[job_id]

    def described(self, query: str) -> list[tuple[int, Model]]:
        def meets(job: Model) -> bool:
            match query:
                case "group:g,h":
                    return job.group is not None
                case "losses:>0":
                    return job.losses > 0
            return (job.priority == 7) == (query == "priority:7")

        return [(i, job) for i, job in self.jobs.items() if meets(job)]

    @rule(rows=st.integers(1, 9))
    def subscriber_comes_back(self, rows: int) -> None:
        self.told += events.page(self.c, self.told[-1].cursor if self.told else 0, rows=rows)

    @invariant()
    def a_subscriber_was_told_everything_once(self) -> None:
        if getattr(self, "told", None):
            log = "SELECT id, job_id, to_state FROM llm_job_transitions WHERE id <= {} ORDER BY id"
            kept = [(e.cursor, e.job_id, e.to_state) for e in self.told if e.job_id in self.jobs]
            assert kept == self.c.script(log.format(self.told[-1].cursor))

    @rule(lease=leases, owner=st.sampled_from(OWNERS))
    def crash_inside_a_transaction(self, lease: Lease, owner: str) -> None:
        with contextlib.suppress(SimulatedCrashError), self.c.write():
            job_store.complete(self.c, lease, "never seen", self.now, "runner")
            claims.claim(
                self.c,
                owner=owner,
                slots=9,
                quotas={"default|chat||": 9},
                lease_until=self.now,
                now=self.now,
                actor="store",
            )
            raise SimulatedCrashError

    @rule(step=st.sampled_from([0, 100, 600, 2000]), owner=st.sampled_from([None, *OWNERS]))
    def time_passes(self, step: int, owner: str | None) -> None:
        self.now += step
        self.promote()
        if owner is not None:
            self.renew(owner)

    @invariant()
    def the_board_agrees(self) -> None:
        if not hasattr(self, "c"):
            return
        rows = self.c.script(
            "SELECT id, state, lease_epoch, lease_owner, failures, losses, deferrals, run_at, unique_key, finished_at, data "
            "FROM llm_jobs JOIN llm_job_data ON job_id = id ORDER BY id"
        )
        assert [row[0] for row in rows] == sorted(self.jobs)
        for job_id, *found in rows:
            job = self.jobs[job_id]
            counters = [job.failures, job.losses, job.deferrals]
            found[-1] = json.loads(found[-1])
            assert found == [job.state, job.epoch, job.owner, *counters, job.run_at, job.name, job.ended_at, job.data]
            assert job.epoch >= self.epochs.get(job_id, 0)
            self.epochs[job_id] = job.epoch

    @invariant()
    def no_group_is_over_the_limit_that_all_its_jobs_have(self) -> None:
        active = Counter(job.group for job in getattr(self, "jobs", {}).values() if job.state == JobState.ACTIVE)
        assert active["g"] <= 2

    @invariant()
    def the_counters_say_how_many_jobs_there_are(self) -> None:
        if hasattr(self, "c"):
            assert queues.count_problems(self.c) == []
            assert dict(Counter(job.state for job in self.jobs.values())) == {
                state: count for _, state, count in queues.counts(self.c)
            }

    @invariant()
    def the_log_is_a_legal_path_to_the_state(self) -> None:
        if not hasattr(self, "c"):
            return
        last: dict[int, JobState] = {}
        for job_id, before, after in self.c.script(
            "SELECT job_id, from_state, to_state FROM llm_job_transitions ORDER BY id"
        ):
            assert last.get(job_id) == before
            assert is_legal(None if before is None else JobState(before), JobState(after))
            last[job_id] = JobState(after)
        assert last == {job_id: job.state for job_id, job in self.jobs.items()}

    @invariant()
    def a_completed_job_has_the_one_result_of_its_holder(self) -> None:
        if not hasattr(self, "c"):
            return
        results = dict(self.c.script("SELECT job_id, result FROM llm_job_results WHERE result IS NOT NULL"))
        expected = {job_id: str(job.results[0]) for job_id, job in self.jobs.items() if job.state == JobState.COMPLETED}
        assert results == expected
        assert all(len(job.results) <= 1 for job in self.jobs.values())


TestBoard = BoardMachine.TestCase
TestBoard.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
