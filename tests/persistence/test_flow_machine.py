"""The board's machine, with jobs that wait on others and create children: the same rules, and what waiting adds to each of them.

The model settles edges by reading the definition of each policy and quorum word by word; the board does it by counters and in bulk.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from callboard.persistence import family, flows, host_store, job_store, retention
from callboard.persistence.flow_plan import single_node
from callboard.persistence.lifecycle import TERMINAL_STATES, JobState
from callboard.persistence.new_job import NewJob, rows_of

_NAME = "callboard_test_state_machine"
_SPEC = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name("test_state_machine.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
base = importlib.util.module_from_spec(_SPEC)
sys.modules[_NAME] = base  # dataclasses look themselves up here
_SPEC.loader.exec_module(base)

PARKED = JobState.WAITING_CHILDREN
QUERIES = st.sampled_from(["priority:7", "-priority:7", "group:g,h", "losses:>0"])
POLICIES = st.sampled_from(["fail", "fail", "ignore", "continue"])


class FlowMachine(base.BoardMachine):  # type: ignore[misc, name-defined]  # loaded above
    leases = base.BoardMachine.leases

    def ids(self) -> dict[int, int]:
        return {id(job): job_id for job_id, job in self.jobs.items()}

    @property
    def edges(self) -> dict[tuple[int, int], list[str]]:
        """(who waits, on what) → step, policy, state."""
        if not hasattr(self, "_edges"):
            self._edges: dict[tuple[int, int], list[str]] = {}
            self.quorums: dict[int, int | None] = {}
        return self._edges

    def open_of(self, job_id: int) -> list[list[str]]:
        return [edge for (waiter, _), edge in self.edges.items() if waiter == job_id and edge[2] == "open"]

    # --- what waiting adds to the model's moves

    def ends(self, job: Any, state: JobState) -> None:
        self.end_together([job], state)

    def end_together(self, jobs: list[Any], state: JobState) -> None:
        """All of them, before anyone who waits on one is told; those who fail by it end together in turn."""
        for job in jobs:
            super().ends(job, state)
        if state not in TERMINAL_STATES or not jobs:
            return
        ids = self.ids()
        ended = {ids[id(job)] for job in jobs}
        for job_id in ended:
            for edge in self.open_of(job_id):
                edge[2] = "moot"
        told: dict[tuple[int, str], None] = {}
        for (waiter, target), edge in self.edges.items():
            if target in ended and edge[2] == "open":
                edge[2] = "met" if state == JobState.COMPLETED or edge[1] != "fail" else "failed"
                told[waiter, edge[0]] = None
        failing = [waiter for waiter, step in told if self.cannot_go_on(waiter, step)]
        self.end_together([self.jobs[waiter] for waiter in dict.fromkeys(failing)], JobState.FAILED)

    def cannot_go_on(self, waiter: int, step: str) -> bool:
        """Whether the waiter fails by its edges; if they are met, it may run."""
        job = self.jobs[waiter]
        if job.state not in (PARKED, JobState.DELAYED):
            return False
        of_step = [edge for (who, _), edge in self.edges.items() if who == waiter and edge[0] == step]
        needed = self.quorums.get(waiter) or len(of_step)
        met = sum(edge[2] == "met" for edge in of_step)
        if met >= needed:
            for edge in of_step:
                edge[2] = "moot" if edge[2] == "open" else edge[2]
        elif met + sum(edge[2] == "open" for edge in of_step) < needed:
            return True
        if job.state == PARKED and not self.open_of(waiter):
            job.state = JobState.WAITING
        return False

    def promote(self) -> None:
        due = [i for i, job in self.jobs.items() if job.state == JobState.DELAYED and job.run_at <= self.now]
        super().promote()
        self.park(due)

    def promote_one(self, job_id: int, job: Any) -> None:
        was_delayed = job.state == JobState.DELAYED
        super().promote_one(job_id, job)
        if was_delayed:
            self.park([job_id])

    def park(self, promoted: list[int]) -> None:
        for job_id in promoted:
            if self.open_of(job_id):
                self.jobs[job_id].state = PARKED

    def send_back(self, job_id: int, job: Any) -> None:
        before = job.epoch
        super().send_back(job_id, job)
        if job.epoch == before:
            return
        for (waiter, target), edge in self.edges.items():
            if waiter == job_id and edge[2] in ("failed", "moot"):
                edge[2] = "met" if self.jobs[target].state in TERMINAL_STATES else "open"
        self.park([job_id])

    # --- rules of their own

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), delay=st.sampled_from([None, None, 5.0]), quorum=st.sampled_from(["all", "all", "any"]))
    def add_waiting(self, data: st.DataObject, delay: float | None, quorum: str) -> None:
        targets = data.draw(st.lists(st.sampled_from(sorted(self.jobs)), min_size=1, max_size=3, unique=True))
        needs = [(target, data.draw(POLICIES)) for target in targets]
        job = NewJob(type="chat", delay=delay)
        with self.c.write():
            rows = rows_of(job, self.now)
            (job_id,) = family.add_flow(self.c, [single_node(job, needs, "fail", quorum)], [rows], self.now)
        run_at = None if delay is None else self.now + round(delay * 1000)
        state = PARKED if delay is None else JobState.DELAYED
        self.jobs[job_id] = base.Model(state, 3, run_at=run_at, data={})
        self.quorums[job_id] = None if quorum == "all" else 1
        for target, policy in needs:
            ended = self.jobs[target].state
            met = ended == JobState.COMPLETED or policy != "fail"
            now = "open" if ended not in TERMINAL_STATES else "met" if met else "failed"
            self.edges[job_id, target] = ["", policy, now]
        if self.cannot_go_on(job_id, ""):
            self.ends(self.jobs[job_id], JobState.FAILED)

    @rule(lease=leases, count=st.integers(1, 3), quorum=st.sampled_from([None, None, 1]), policy=POLICIES)
    def spawn(self, lease: Any, count: int, quorum: int | None, policy: str) -> None:
        step = f"s{lease.epoch}"
        made = [
            family.Child(*rows_of(NewJob(type="chat"), self.now), frozenset({"priority"}), policy) for _ in range(count)
        ]
        with self.c.write():
            spawned = family.spawn(self.c, lease, step, made, quorum, self.now, "runner")
        assert spawned == self.holds(lease)
        if spawned:
            parent = self.jobs[lease.job_id]
            parent.state, parent.owner, parent.alone = PARKED, None, False
            parent.epoch += 1
            self.quorums[lease.job_id] = quorum
            known = set(self.jobs)
            for (child,) in self.c.script(f"SELECT id FROM llm_jobs WHERE parent_id = {lease.job_id} ORDER BY id"):
                if child not in known:
                    self.jobs[child] = base.Model(JobState.WAITING, 3, priority=parent.priority, data={})
                    self.edges[lease.job_id, child] = [step, policy, "open"]

    @rule(lease=leases)
    def crash_while_spawning_or_settling(self, lease: Any) -> None:
        rows = rows_of(NewJob(type="chat"), self.now)
        for move in (
            lambda: family.spawn(
                self.c, lease, "lost", [family.Child(*rows, frozenset(), "fail")], None, self.now, "r"
            ),
            lambda: job_store.fail(self.c, lease, {"class": "x"}, self.now, "runner", "never seen"),
        ):
            with contextlib.suppress(base.SimulatedCrashError), self.c.write():
                move()
                raise base.SimulatedCrashError

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel_tree(self, data: st.DataObject) -> None:
        root = data.draw(st.sampled_from(sorted(self.jobs)))
        members = family.tree_of(self.c, root)
        live = {job_id for job_id, job in self.jobs.items() if job.state not in TERMINAL_STATES}
        assert (root in members) == (root in live)
        assert set(members) <= live
        for member in set(members) - {root}:
            others = {waiter for (waiter, on), edge in self.edges.items() if on == member and edge[2] == "open"}
            created = self.c.script(f"SELECT parent_id FROM llm_jobs WHERE id = {member}") != [(None,)]
            assert created or others <= set(members), (root, member)
        with self.c.write():
            assert host_store.cancel_all(self.c, members, "no", self.now) == len(members)
        self.cancel_together(members)

    @rule()
    def repair_finds_nothing_to_do(self) -> None:
        with self.c.write():
            assert flows.repair(self.c, after=0, now=self.now, actor="store") == ([], 0)

    def cancel_together(self, job_ids: list[int]) -> int:
        live = [job_id for job_id in job_ids if self.jobs[job_id].state not in TERMINAL_STATES]
        for job_id in live:
            self.jobs[job_id].epoch += self.jobs[job_id].state == JobState.ACTIVE
            self.jobs[job_id].held_until = 0
        self.end_together([self.jobs[job_id] for job_id in live], JobState.CANCELLED)
        return len(live)

    @rule(query=QUERIES)
    def cancel_all(self, query: str) -> None:
        meant = sorted((job_id for job_id, _ in self.described(query)), reverse=True)
        cancelled = sum(self.cancel_together(meant[at : at + 2]) for at in range(0, len(meant), 2))
        assert self.queue.cancel_where(query, chunk=2) == cancelled

    @rule(query=QUERIES)
    def delete_all(self, query: str) -> None:
        gone = self.forget(i for i, job in self.described(query) if job.state in TERMINAL_STATES)
        assert self.queue.delete_where(query, chunk=2) == gone

    @rule(age=st.sampled_from([0, 500, 2500]))
    def prune(self, age: int) -> None:
        before = self.now - age
        gone = self.forget(i for i, job in self.jobs.items() if job.ended_at is not None and job.ended_at < before)
        with self.c.write():
            assert retention.prune(self.c, before) == gone

    def forget(self, job_ids: Iterable[int]) -> int:
        """Delete these from the model, but for what a live job waits on or has waited on. Returns how many went."""
        kept = {on for (waiter, on) in self.edges if self.jobs[waiter].state not in TERMINAL_STATES}
        gone = set(job_ids) - kept
        for job_id in gone:
            del self.jobs[job_id]
        for pair in [pair for pair in self.edges if gone & set(pair)]:
            del self.edges[pair]
        return len(gone)

    @invariant()
    def edges_and_counters_agree(self) -> None:
        if not hasattr(self, "c"):
            return
        found = {
            (waiter, on): list(rest)
            for waiter, on, *rest in self.c.script("SELECT job_id, depends_on, step, policy, state FROM llm_job_edges")
        }
        assert found == self.edges, (found, self.edges)
        pending = dict(self.c.script("SELECT id, pending FROM llm_jobs"))
        assert pending == {job_id: len(self.open_of(job_id)) for job_id in self.jobs}


TestFlows = FlowMachine.TestCase
TestFlows.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
