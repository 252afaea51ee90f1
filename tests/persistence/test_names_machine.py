"""Names under every order of events: the board's machine reaches them seldom, so that they have one of their own."""

import json
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callboard.persistence import claims, host_store, job_store, retention
from callboard.persistence.engine import open_database
from callboard.persistence.lifecycle import TERMINAL_STATES, JobState
from callboard.persistence.new_job import NewJob, rows_of

WINDOW = 3
KINDS = {"unique": "x", "debounce": "debounce:x", "throttle": "throttle:x"}


@dataclass
class Model:
    state: JobState
    name: str | None
    added: int
    data: int
    run_at: int | None = None
    begun: bool = False
    ended: int | None = None

    @property
    def live(self) -> bool:
        return self.state not in TERMINAL_STATES


class NamesMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.database = open_database("sqlite://")
        self.c = self.database.connect()
        self.now = 1_000_000
        self.jobs: dict[int, Model] = {}

    def teardown(self) -> None:
        if hasattr(self, "c"):
            self.c.close()
            self.database.close()

    @rule(kind=st.sampled_from(["debounce", *sorted(KINDS)]), number=st.integers(0, 9))
    def add(self, kind: str, number: int) -> None:
        name = KINDS[kind]
        named = {i: job for i, job in self.jobs.items() if job.name == name}
        live = [i for i, job in named.items() if job.live]
        newest = max(named, default=None)
        found = None
        if kind == "unique" and live:
            (found,) = live
        if kind == "debounce" and live and named[live[0]].state == JobState.DELAYED and not named[live[0]].begun:
            (found,) = live
        if kind == "throttle" and newest is not None and self.now - named[newest].added < WINDOW * 1000:
            found = newest
        said = {"unique": "x"} if kind == "unique" else {kind: ("x", WINDOW)}
        row, data = rows_of(NewJob(type="chat", data=number, **said), self.now)
        with self.c.write():
            job_id = host_store.add(self.c, row, data)
        if found is None:
            assert job_id not in self.jobs
            for other in live:
                self.jobs[other].name = None
            self.jobs[job_id] = Model(JobState.WAITING, name, self.now, number)
        else:
            assert job_id == found
        if kind == "debounce":
            job = self.jobs[job_id]
            job.state, job.data, job.run_at = JobState.DELAYED, number, self.now + WINDOW * 1000

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), move=st.sampled_from(["cancel", "retry", "promote", "promote"]))
    def host(self, data: st.DataObject, move: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[job_id]
        taken = job.name is not None and any(
            other.live and other.name == job.name for i, other in self.jobs.items() if i != job_id
        )
        can = {
            "cancel": job.live,
            "retry": job.state in {JobState.FAILED, JobState.CANCELLED} and not (taken and job.name == "x"),
            "promote": job.state == JobState.DELAYED,
        }[move]
        with self.c.write():
            assert getattr(host_store, move)(self.c, job_id, "r", self.now) == can
        if not can:
            return
        job.run_at, job.ended = None, self.now if move == "cancel" else None
        job.state = JobState.CANCELLED if move == "cancel" else JobState.WAITING
        if move == "retry":
            job.begun = True
            job.name = None if taken else job.name

    @rule(end=st.sampled_from(["again", "again", "complete", "fail"]))
    def work(self, end: str) -> None:
        with self.c.write():
            found = claims.claim(
                self.c,
                owner="w",
                slots=1,
                quotas={"default|chat||": 1},
                lease_until=2**50,
                now=self.now,
                actor="store",
            )
            for taken in found:
                job = self.jobs[taken.id]
                job.begun = True
                if end == "complete":
                    job_store.complete(self.c, taken.lease, 1, self.now, "r")
                    job.state, job.ended = JobState.COMPLETED, self.now
                elif end == "fail":
                    job_store.fail(self.c, taken.lease, {"class": "x"}, self.now, "r", "broken")
                    job.state, job.ended = JobState.FAILED, self.now
                else:
                    at = self.now + 1000
                    state = job_store.retry_later(
                        self.c, taken.lease, {"class": "x"}, at, self.now, "r", "again", max_attempts=1000
                    )
                    assert state == JobState.DELAYED
                    job.state, job.run_at = state, at

    @rule(step=st.sampled_from([1, 1000, 2999, 3000]))
    def time_passes(self, step: int) -> None:
        self.now += step
        with self.c.write():
            claims.promote_due(self.c, self.now, 100)
        for job in self.jobs.values():
            if job.run_at is not None and job.run_at <= self.now:
                job.state, job.run_at = JobState.WAITING, None

    @rule(age=st.sampled_from([0, 2000]))
    def prune(self, age: int) -> None:
        old = [i for i, job in self.jobs.items() if job.ended is not None and job.ended < self.now - age]
        with self.c.write():
            assert retention.prune(self.c, self.now - age) == len(old)
        for job_id in old:
            del self.jobs[job_id]

    @invariant()
    def the_board_agrees(self) -> None:
        if hasattr(self, "c"):
            rows = self.c.script(
                "SELECT id, state, unique_key, run_at, finished_at, data FROM llm_jobs JOIN llm_job_data ON job_id = id"
            )
            assert {row[0]: (*row[1:5], json.loads(row[5])) for row in rows} == {
                i: (job.state, job.name, job.run_at, job.ended, job.data) for i, job in self.jobs.items()
            }

    @invariant()
    def a_name_has_one_live_job(self) -> None:
        names = [job.name for job in getattr(self, "jobs", {}).values() if job.live and job.name is not None]
        assert len(names) == len(set(names))


TestNames = NamesMachine.TestCase
TestNames.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
