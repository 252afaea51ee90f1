"""Turns against a small model of them, under every order of events: added, claimed, ended, cancelled, sent back, deleted, with crashes between.

What is promised: of a conversation at most one turn is not behind another, nothing parks for ever, and the log is what completed turns said,
in the order they completed, whole or not at all.
"""

import contextlib
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from callboard.persistence import claims, conversations, flows, host_store, job_store
from callboard.persistence.engine import open_database
from callboard.persistence.lifecycle import TERMINAL_STATES, JobState, is_legal
from callboard.persistence.model import Lease, NewMessage, Said
from callboard.persistence.new_job import NewJob, rows_of

LEASE_MS = 1000
TALKS = {"skips": "skip", "blocks": "block"}


class SimulatedCrashError(Exception):
    """The process dies between two statements of a transaction."""


class TurnMachine(RuleBasedStateMachine):
    leases: Bundle[Lease] = Bundle("leases")

    @initialize()
    def open(self) -> None:
        self.database = open_database("sqlite://")
        self.c = self.database.connect()
        self.now = 1_000_000
        self.talk_of: dict[int, str] = {}
        self.logs: dict[str, list[Any]] = {name: [] for name in TALKS}
        self.talks: dict[str, int] = {}
        with self.c.write():
            for name, policy in TALKS.items():
                row = conversations.open_conversation(self.c, name, {"on_failed": policy}, self.now)
                self.talks[name] = row.id

    def teardown(self) -> None:
        if hasattr(self, "c"):
            self.c.close()
            self.database.close()

    def states(self) -> dict[int, JobState]:
        return {job_id: JobState(state) for job_id, state in self.c.script("SELECT id, state FROM llm_jobs")}

    def holds(self, lease: Lease) -> bool:
        return bool(
            self.c.script(
                f"SELECT 1 FROM llm_jobs WHERE id = {lease.job_id} AND lease_epoch = {lease.epoch} AND state = 'active'"
            )
        )

    @rule(talk=st.sampled_from(sorted(TALKS)), delay=st.sampled_from([0, 0, 0, 2]), times=st.integers(1, 3))
    def add(self, talk: str, delay: int, times: int) -> None:
        with self.c.write():
            for _ in range(times):
                row, data = rows_of(NewJob(type="chat", conversation=talk, delay=delay, max_attempts=2), self.now)
                self.talk_of[host_store.add(self.c, row, data)] = talk

    @rule(talk=st.sampled_from(sorted(TALKS)), times=st.integers(1, 3))
    def add_many(self, talk: str, times: int) -> None:
        rows = [rows_of(NewJob(type="chat", conversation=talk), self.now) for _ in range(times)]
        with self.c.write():
            self.talk_of |= dict.fromkeys(host_store.add_many(self.c, rows), talk)

    @rule(talk=st.sampled_from(sorted(TALKS)), through_the_view=st.booleans())
    def add_by_plain_sql(self, talk: str, through_the_view: bool) -> None:
        with self.c.write():
            if through_the_view:
                self.c.script(f"INSERT INTO llm_inbox (type, conversation) VALUES ('chat', '{talk}')")
            else:
                self.c.script(f"INSERT INTO llm_jobs (type, conversation_id) VALUES ('chat', {self.talks[talk]})")
            self.talk_of[self.c.script("SELECT max(id) FROM llm_jobs")[0][0]] = talk

    @rule(target=leases, slots=st.integers(1, 4))
    def claim(self, slots: int) -> Any:
        with self.c.write():
            claims.promote_due(self.c, self.now, 100)
            lanes = claims.lanes(self.c)
            claimed = claims.claim(
                self.c,
                owner="worker",
                slots=slots,
                quotas={lane.lane: slots for lane in lanes},
                lease_until=self.now + LEASE_MS,
                now=self.now,
                actor="store",
                suspect_after=99,
            )
        for job in claimed:
            assert job.history is not None
            said = [message.content for message in job.history.messages]
            assert said == self.logs[job.history.name], "a turn is given what was said before it, all of it"
        return multiple(*(job.lease for job in claimed))

    def say(self, lease: Lease) -> Said:
        talk = self.talk_of[lease.job_id]
        words = (NewMessage("user", f"q{lease.job_id}"), NewMessage("assistant", f"a{lease.job_id}.{lease.epoch}"))
        return Said(conversation_id=self.talks[talk], messages=words)

    def complete_in(self, lease: Lease) -> Said | None:
        if not job_store.complete(self.c, lease, "done", self.now, "runner"):
            return None
        said = self.say(lease)
        conversations.extend(self.c, lease.job_id, said, self.now)
        return said

    @rule(lease=leases)
    def complete(self, lease: Lease) -> None:
        held = self.holds(lease)
        with self.c.write():
            said = self.complete_in(lease)
        assert (said is not None) == held
        if said is not None:
            self.logs[self.talk_of[lease.job_id]] += [message.content for message in said.messages]

    @rule(lease=leases)
    def crash_while_completing(self, lease: Lease) -> None:
        with contextlib.suppress(SimulatedCrashError), self.c.write():
            self.complete_in(lease)
            raise SimulatedCrashError

    @rule(lease=leases, how=st.sampled_from(["fail", "later", "loss", "handback"]))
    def end_otherwise(self, lease: Lease, how: Any) -> None:
        with self.c.write():
            if how == "fail":
                job_store.fail(self.c, lease, {"class": "x"}, self.now, "runner", "broken")
            elif how == "later":
                job_store.retry_later(self.c, lease, {"class": "x"}, self.now + 500, self.now, "runner", "again")
            else:
                job_store.release(self.c, lease, cause=how, reason="r", now=self.now, actor="runner")

    @rule(data=st.data(), how=st.sampled_from(["cancel", "cancel", "retry", "delete", "plain cancel"]))
    def host_moves(self, data: st.DataObject, how: str) -> None:
        if not self.talk_of:
            return
        job_id = data.draw(st.sampled_from(sorted(self.talk_of)))
        with self.c.write():
            if how == "cancel":
                host_store.cancel(self.c, job_id, "no", self.now)
            elif how == "retry":
                host_store.retry(self.c, job_id, "again", self.now)
            elif how == "delete":
                self.c.script(f"DELETE FROM llm_jobs WHERE id = {job_id}")
                del self.talk_of[job_id]
            else:
                live = "state NOT IN ('completed', 'failed', 'cancelled')"
                self.c.script(
                    "UPDATE llm_jobs SET state = 'cancelled', lease_owner = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1, run_at = NULL "
                    f"WHERE id = {job_id} AND {live}"
                )

    @rule(step=st.sampled_from([100, 600, 2500]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule()
    def repair(self) -> None:
        with self.c.write():
            assert flows.repair(self.c, after=0, now=self.now, actor="store").after == 0

    @invariant()
    def turns_never_overlap(self) -> None:
        if not hasattr(self, "c"):
            return
        free = self.c.script("""
            SELECT conversation_id, count(*) FROM llm_jobs WHERE state = 'waiting' OR state = 'active' OR (
                state = 'delayed' AND NOT EXISTS (SELECT 1 FROM llm_job_edges WHERE job_id = llm_jobs.id AND state = 'open'))
            GROUP BY conversation_id
            """)
        assert all(count == 1 for _, count in free), "two turns of a conversation may run"

    @invariant()
    def everyone_waits_for_someone_live_in_one_line(self) -> None:
        if not hasattr(self, "c"):
            return
        states = self.states()
        behind: dict[int, int] = {}
        for job_id, target in self.c.script("SELECT job_id, depends_on FROM llm_job_edges WHERE state = 'open'"):
            assert states[job_id] in (JobState.WAITING_CHILDREN, JobState.DELAYED)
            assert job_id not in behind
            behind[job_id] = target
        live_targets = [target for target in behind.values() if states[target] not in TERMINAL_STATES]
        assert len(set(live_targets)) == len(live_targets), "two turns behind one"
        for job_id in behind:
            seen = {job_id}
            while (job_id := behind.get(job_id, 0)) != 0:  # walks to the front
                assert job_id not in seen, "they wait for each other"
                seen.add(job_id)

    @invariant()
    def nothing_parks_for_ever(self) -> None:
        """When its time has come and after a repair, exactly one turn is in front of each conversation that has live ones."""
        if not hasattr(self, "c"):
            return
        with contextlib.suppress(SimulatedCrashError), self.c.write():
            claims.promote_due(self.c, self.now + 10_000, 1000)
            flows.repair(self.c, after=0, now=self.now, actor="store")
            wrong = self.c.script("""
                SELECT conversation_id, sum(state <> 'waiting_children' AND pending = 0) FROM llm_jobs
                WHERE state NOT IN ('completed', 'failed', 'cancelled') GROUP BY conversation_id
                """)
            assert all(front == 1 for _, front in wrong), wrong
            counted = self.c.script("""
                SELECT id FROM llm_jobs WHERE state NOT IN ('completed', 'failed', 'cancelled') AND pending <> (
                    SELECT count(*) FROM llm_job_edges WHERE job_id = llm_jobs.id AND state = 'open')
                """)
            assert counted == [], "pending is the number of open edges"
            raise SimulatedCrashError

    @invariant()
    def the_log_is_what_completed_turns_said(self) -> None:
        if not hasattr(self, "c"):
            return
        for name, conversation_id in self.talks.items():
            log = conversations.log(self.c, conversation_id)
            assert [message.content for message in log] == self.logs[name]
            assert [message.turn for message in log] == [1 + place // 2 for place in range(len(log))]

    @invariant()
    def the_transitions_and_the_counts_agree(self) -> None:
        if not hasattr(self, "c"):
            return
        last: dict[int, JobState] = {}
        for job_id, before, after in self.c.script(
            "SELECT job_id, from_state, to_state FROM llm_job_transitions ORDER BY id"
        ):
            assert last.get(job_id) == before
            assert is_legal(None if before is None else JobState(before), JobState(after))
            last[job_id] = JobState(after)
        assert last == self.states()
        kept = self.c.script(
            "SELECT state, sum(jobs) FROM llm_job_counts GROUP BY state HAVING sum(jobs) > 0 ORDER BY state"
        )
        assert kept == self.c.script("SELECT state, count(*) FROM llm_jobs GROUP BY state ORDER BY state")


TestTurns = TurnMachine.TestCase
TestTurns.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
