"""A whole company under one seed: production actors, a real store in memory, a scripted provider, a host, and faults anywhere.

The provider keeps a journal of every call that reached it, which is what it would bill. What it says, and how long it takes, is drawn from the seed.
When the company gives up, it is started again under another owner's name, as a process manager would.
"""

from __future__ import annotations

import json
from collections import Counter
from random import Random

from company_provider import Delivery, ScriptedEngine

from callboard.actors.kernel.messages import Crashed, Down, StartFailed
from callboard.actors.kernel.simulation import SimulatedCrashError, SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import ROOT, WakeUp, provider_name
from callboard.actors.providers.model import (
    Message,
)
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.runner.effects import CallFailedError, CallModel, KeepValue, ShowProgress
from callboard.actors.runner.handlers import HandlerRegistry
from callboard.actors.settings import CompanySettings, LimitSettings, ModelSettings, RetrySettings, RunnerSettings
from callboard.actors.supervisor.supervisor import EscalatedError
from callboard.actors.supervisor.tree import CompanyParts, start_company
from callboard.persistence import job_store
from callboard.persistence.engine import Connection, open_database
from callboard.persistence.errors import DatabaseBusyError, DatabaseFullError
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.lifecycle import TERMINAL_STATES, is_legal
from callboard.persistence.model import Lease
from callboard.persistence.new_job import NewJob

CHECK_EVERY = 40
"""Steps between two looks at whether everything is done."""

SETTINGS = CompanySettings(
    database="sqlite://",
    runners=RunnerSettings(min=1, max=3, idle_timeout=3.0),
    providers={
        name: ProviderSettings(name=name, wire="openai-chat", base_url="https://provider.example/v1")
        for name in ("acme", "umbra")
    },
    models={
        "small": ModelSettings(
            provider="acme", model="small", limits=LimitSettings(requests_per_minute=20, concurrency=2), max_output=50
        ),
        "large": ModelSettings(provider="umbra", model="large", limits=LimitSettings(tokens_per_minute=4000)),
    },
    retries=RetrySettings(base=0.5, cap=4.0),
    default_model="small",
    poll_interval=0.5,
    sweep_interval=2.0,
    lease_ttl=15.0,
    park_after=1.0,
    job_timeout=120.0,
)


class FaultyConnection(Connection):
    """A connection that may fail, or take its actor with it, before and after every statement and commit."""

    world: World

    def _at(self, label):
        if self.world.outage and label != "committed":
            raise self.world.outage("the disk is full, or locked")
        self.world.simulation.fault_point(label)

    def run(self, prepared, params=None):
        self._at("sql")
        return super().run(prepared, params)

    def change(self, prepared, params=None):
        self._at("sql")
        return super().change(prepared, params)

    def change_many(self, prepared, rows):
        self._at("sql")
        return super().change_many(prepared, rows)

    def data_version(self):
        return self.world.host_commits

    def _commit(self):
        self._at("commit")
        super()._commit()
        self.world.note_commit(self)
        self._at("committed")


class WorldBoard:
    """The board of one owner; whoever came before is dead."""

    def __init__(self, world, owner):
        self.world, self.owner = world, owner

    def connect(self):
        connection = self.world.database.connect()
        connection.__class__ = FaultyConnection
        connection.world = self.world
        return connection

    def is_dead(self, owner):
        return owner != self.owner

    def forget(self, owner):
        pass


class CountingSystem(ActorSystem):
    """Counts beginnings and ends of lives apart from all supervisors."""

    def __init__(self, world, **arguments):
        super().__init__(**arguments)
        self.world = world
        self.births, self.ends = Counter(), Counter()

    def start_actor(self, name, factory, *, generation=None, owner=None):
        generation = generation or self.next_generation(name)
        reference = super().start_actor(name, factory, generation=generation, owner=owner)
        self.births[name, generation] += 1
        return reference

    def end_life(self, life, reason, *, abandoned=False):
        ended = super().end_life(life, reason, abandoned=abandoned)
        if ended:
            self.ends[life.name, life.generation] += 1
            if isinstance(reason, Crashed | StartFailed) and not isinstance(reason.exception, EXPECTED):
                self.world.bugs.append(f"{life.name} ended by itself: {reason.error}\n{reason.traceback}")
        return ended


def several_steps(job):
    """Calls and kept values in turn; every value is checked against what was kept before."""
    told = []
    kept = dict(job.memo.values) if job.memo else {}
    for number in range(job.data["steps"]):
        yield ShowProgress(number * 30)
        completion = yield CallModel(step=f"s{number}", messages=(Message("user", f"s{number}"),))
        if f"v{number}" in kept:
            assert kept[f"v{number}"] == completion.text, (kept, completion)
        else:
            yield KeepValue(f"v{number}", completion.text)
        told.append(completion.text)
    return told


def forgiving(job):
    """Goes on with another model when a call cannot be healed."""
    try:
        return [(yield CallModel(step="first", messages=(Message("user", "first"),))).text]
    except CallFailedError:
        return [(yield CallModel(step="second", model="large", messages=(Message("user", "second"),))).text]


def breaking(job):
    """Raises until its last attempt."""
    completion = yield CallModel(step="only", messages=(Message("user", "only"),))
    if job.failures < job.data["breaks"]:
        raise RuntimeError("broken on purpose")
    return [completion.text]


HANDLERS = {"several": several_steps, "forgiving": forgiving, "breaking": breaking}
CRASHES = (SimulatedCrashError, SimulatedCrashError, SystemExit)
EXPIRED = "its lease expired"
KNOWS_WHO_WORKS = ("company", "store", "runners", "dispatcher", "limiters", "providers")
"""Only where one of these ends is it forgotten who works on what; without that no job is ever found that nobody works on."""
EXPECTED = (SimulatedCrashError, SystemExit, EscalatedError)


class World:
    """Everything under one seed. `play` runs it until every job has ended; `judge` says whether what happened was right."""

    def __init__(self, seed, *, crashes=None, jobs=8, settings=SETTINGS, fault=None):
        self.seed = seed
        self.dice = Random(f"{seed}:world")
        chance = Random(f"{seed}:faults")
        self.crashes = chance.choice([0.0, 0.0005, 0.002, 0.005, 0.01]) if crashes is None else crashes
        self.provider_errors = chance.choice([0.0, 0.15, 0.4])
        self.outages = chance.random() < 0.25
        self.chance, self.extra_fault = chance, fault
        self.quiet = False
        self.outage = None
        self.journal: list[Delivery] = []
        self.crashed = Counter()
        self.gave_up = 0
        self.bugs: list[str] = []
        self.host_commits = self.commits = 0
        self.intents: dict[int, int] = {}
        self.completions: dict[tuple[int, str], int] = {}
        self.settings = settings
        self.simulation = SimulationScheduler(seed, faults=self.fault)
        self.database = open_database("sqlite://")
        self.queue = JobQueue(self.database, clock=self.simulation.clock.now_ms)
        self.plan_host(jobs)
        self.owners = 0
        self.systems: list[CountingSystem] = []
        self.start()

    # -- the company, and the one who starts it again -----------------------------------------------------------------

    def start(self):
        self.owners += 1
        self.system = CountingSystem(self, scheduler=self.simulation, on_root_exit=self.on_root_exit)
        self.systems.append(self.system)
        self.root_down = None
        parts = CompanyParts(
            settings=self.settings,
            board=WorldBoard(self, f"owner-{self.owners}"),
            handlers=HandlerRegistry(HANDLERS),
            make_engine=lambda name: ScriptedEngine(self, name),
            memory=lambda: 10.0,
            limit_window=8.0,
        )
        start_company(self.system, parts)

    def on_root_exit(self, down: Down):
        self.root_down = down

    def tend(self):
        if self.root_down is not None:
            if not isinstance(self.root_down.reason, Crashed | StartFailed):
                self.bugs.append(f"the root ended: {self.root_down.reason}")
            self.gave_up += 1
            self.system.close(60.0)
            self.start()

    def fault(self, point):
        if self.extra_fault is not None and (error := self.extra_fault(point)) is not None:
            self.crashed[point.actor] += 1
            return error
        if self.quiet or self.chance.random() >= self.crashes:
            return None
        if point.actor == ROOT and self.chance.random() < 0.9:
            return None  # the end of the root is a rare thing even here
        self.crashed[point.actor] += 1
        return self.chance.choice(CRASHES)(point.kind)

    # -- the host -----------------------------------------------------------------------------------------------------

    def plan_host(self, jobs):
        dice = self.dice
        self.to_do = []
        for _ in range(jobs):
            kind = dice.choice(["chat", "chat", "several", "several", "forgiving", "breaking"])
            data = {
                "chat": {"prompt": "chat"},
                "several": {"steps": dice.randint(2, 3)},
                "forgiving": {},
                "breaking": {"breaks": dice.randint(1, 3)},
            }[kind]
            options = {}
            if dice.random() < 0.2:
                options["on_unknown"] = "park"
            if dice.random() < 0.15:
                options["job_timeout"] = 2.5
            job = NewJob(
                type=kind,
                data=data,
                model=dice.choice([None, "small", "large"]),
                priority=dice.choice([0, 0, 5]),
                delay=2.0 if dice.random() < 0.1 else None,
                start_within=5.0 if dice.random() < 0.1 else None,
                options=options or None,
            )
            self.to_do.append((dice.choice([0, 0, 0, 150, 400]), lambda job=job: self.queue.add_many([job])))
        for _ in range(dice.choice([0, 1, 2, 6])):
            number = dice.randint(1, jobs)
            self.to_do.append((dice.randint(20, 900), lambda number=number: self.cancel(number)))
        for _ in range(dice.choice([0, 0, 1, 3])):
            number = dice.randint(1, jobs)
            self.to_do.append((dice.randint(20, 900), lambda number=number: self.steal(number)))
        if self.outages:
            kind = dice.choice([DatabaseBusyError, DatabaseFullError])
            begins = dice.randint(50, 600)
            self.to_do.append((begins, lambda: setattr(self, "outage", kind)))
            self.to_do.append((begins + dice.randint(50, 300), lambda: setattr(self, "outage", None)))
        self.to_do.sort(key=lambda entry: entry[0])

    def cancel(self, number):
        ids = self.all_ids()
        if number in ids:
            self.queue.cancel(number)

    def steal(self, number):
        """Another worker takes a job for lost, as it does when this one was paused beyond its lease. Return whether it was leased."""
        with self.database.connect() as connection:
            rows = connection.script(f"SELECT lease_epoch FROM llm_jobs WHERE id = {number} AND state = 'active'")
            if rows:
                with connection.write():
                    lease, now = Lease(number, rows[0][0]), self.simulation.clock.now_ms()
                    job_store.release(connection, lease, cause="loss", reason=EXPIRED, now=now, actor="rescue")
        return bool(rows)

    def all_ids(self):
        with self.database.connect() as connection:
            return {row[0] for row in connection.script("SELECT id FROM llm_jobs")}

    def act(self):
        while self.to_do and self.to_do[0][0] <= self.simulation.steps:
            self.to_do.pop(0)[1]()
            self.host_commits += 1
            if self.dice.random() < 0.5:
                self.system.tell("dispatcher", WakeUp())

    # -- playing ------------------------------------------------------------------------------------------------------

    def play(self, *, faults_for=60.0, timeout=2000.0):
        clock = self.simulation.clock
        looked = -CHECK_EVERY

        def done():
            nonlocal looked
            self.tend()
            if self.bugs:
                return True
            self.act()
            self.quiet = clock.monotonic() > faults_for
            if self.to_do and not self.quiet:
                return False
            if self.simulation.steps - looked < CHECK_EVERY:
                return False
            looked = self.simulation.steps
            return not self.to_do and self.outage is None and not self.unfinished()

        try:
            self.simulation.run_until(done, timeout)
        except Exception:
            self.explain()
            raise
        assert not self.bugs, (self.seed, self.bugs)
        self.quiet = True
        self.simulation.run_until(self.whole, 100.0)
        self.simulation.advance(12.0)  # aborted calls end, idle runners leave
        return self

    def whole(self):
        self.tend()
        lives = [
            self.system.directory.find(name) for name in (*KNOWS_WHO_WORKS, *map(provider_name, ("acme", "umbra")))
        ]
        return all(life is not None and life.ready.is_set() for life in lives)

    def unfinished(self):
        with self.database.connect() as connection:
            return connection.script(
                "SELECT id, type, state, lease_epoch, held_by, held_until, losses, reason FROM llm_jobs"
                " WHERE state NOT IN ('completed', 'failed', 'cancelled')"
            )

    def explain(self):
        print(f"seed {self.seed}: crash rate {self.crashes}, errors {self.provider_errors}, {dict(self.crashed)}")
        print("unfinished:", self.unfinished())
        for name in ("dispatcher", "runner-1", "runner-2", "runner-3", "store"):
            actor = self.system.actor(name)
            if actor is not None:
                shown = {k: v for k, v in vars(actor).items() if k.startswith("_") and not k.startswith("_settings")}
                print(name, actor.generation, {k: v for k, v in shown.items() if k in INTERESTING})

    # -- judging ------------------------------------------------------------------------------------------------------

    def note_commit(self, connection):
        """Which commit brought each intent into the ledger, and which each step's completion."""
        self.commits += 1
        for call, job, step, state in connection.script("SELECT id, job_id, step, state FROM llm_calls"):
            self.intents.setdefault(call, self.commits)
            if state == "completed":
                self.completions.setdefault((job, step), self.commits)

    def judge_call(self, delivery):
        """As a call reaches the provider: its intent is in the ledger, and no completion of its step was there before it.

        Between intent and call another holder's completion may still arrive: that one then counts as superseded.
        """
        with self.database.connect() as connection:
            rows = connection.script(
                "SELECT max(id) FROM llm_calls"
                f" WHERE job_id = {delivery.job_id} AND step = '{delivery.step}' AND epoch = {delivery.epoch}"
            )
            active = connection.script("SELECT id, alone FROM llm_jobs WHERE state = 'active'")
        if len(active) > 1 and any(alone for _, alone in active):
            self.bugs.append(f"at {delivery} a suspect is not alone: {active}")
        intended, completed = self.intents.get(rows[0][0]), self.completions.get((delivery.job_id, delivery.step))
        if intended is None:
            self.bugs.append(f"{delivery} was called before its intent was in the ledger")
        elif completed is not None and completed < intended:
            self.bugs.append(f"{delivery} was called though a completion of it was in the ledger before its intent")

    def judge(self):
        assert not self.bugs, (self.seed, self.bugs)
        with self.database.connect() as connection:
            states = dict(connection.script("SELECT id, state FROM llm_jobs"))
            results = {i: (r and json.loads(r), e) for i, r, e in connection.script("SELECT * FROM llm_job_results")}
            completions = {
                (job, step): json.loads(text)["text"]
                for job, step, text in connection.script(
                    "SELECT job_id, step, completion FROM llm_calls JOIN llm_call_completions ON call_id = llm_calls.id"
                    " WHERE state = 'completed'"
                )
            }
            counters = connection.script("SELECT id, type, failures, losses, max_attempts, lease_owner FROM llm_jobs")
            open_calls = connection.script("SELECT * FROM llm_calls WHERE state = 'open'")
        for job_id, kind, failures, lost, max_attempts, owner in counters:
            log = self.queue.transitions(job_id)
            where = (self.seed, job_id, [(t.to_state, t.epoch, t.reason) for t in log])
            before = None
            for transition in log:
                assert transition.from_state == before, where
                assert is_legal(before, transition.to_state), where
                before = transition.to_state
            assert before == states[job_id], where
            assert before in TERMINAL_STATES, where
            assert sum(t.to_state in TERMINAL_STATES for t in log) == 1, where
            claims = [t.epoch for t in log if t.to_state == "active"]
            assert claims == sorted(set(claims)), where
            assert failures <= max_attempts, where
            assert owner is None, where
            told_lost = sum(
                bool(t.reason)
                and any(cause in t.reason for cause in ("runner crashed", "the process that ran it", EXPIRED))
                for t in log
            )
            assert lost == told_lost, (where, lost, told_lost)
            if not any(name.startswith(KNOWS_WHO_WORKS) for name in self.crashed):
                assert not any(t.reason == "nobody was working on it" for t in log), where
            # A job that waits for what will never come ends by this, and by nothing else here.
            assert not any("longer than its job_timeout of 120" in (t.reason or "") for t in log), where
            if before == "completed":
                result = results[job_id][0]
                texts = [result["text"]] if kind == "chat" else result
                assert texts, where
                assert set(texts) <= {text for (job, _), text in completions.items() if job == job_id}, (where, texts)
        assert not open_calls, (self.seed, open_calls)
        self.judge_leftovers()
        return self

    def judge_leftovers(self):
        """Nothing is held by anybody: no job, no permit, no call, no name."""
        dispatcher = self.system.actor("dispatcher")
        assert dispatcher is not None, (self.seed, self.root_down)
        held = {name: getattr(dispatcher, name) for name in ("_busy", "_unassigned", "_alone", "_starting", "_leaving")}
        assert not any(held.values()), (self.seed, held)
        for life in self.system.directory.lives():
            if life.name.startswith("runner-"):
                assert life.actor._work is None, (self.seed, life.name)
                assert not life.actor._lingering, (self.seed, life.name)
            if life.name.startswith("limiter:"):
                assert not life.actor._limiter._permits, (self.seed, life.name, life.actor._limiter._permits)
                assert not [w for w in life.actor._limiter._waiters if w.owner is not None], (self.seed, life.name)
            if life.name.startswith("provider:"):
                assert not life.actor._engine.live, (self.seed, life.name)
        assert dispatcher._running() == self.settings.runners.min, (self.seed, dispatcher._idle)
        assert not dispatcher._abandoned, self.seed
        assert self.system.close(120.0), self.seed
        for system in self.systems:
            assert system.directory.lives() == [], self.seed
            assert system.ends == system.births, self.seed
            assert max(system.births.values()) == 1, self.seed


INTERESTING = {
    "_busy",
    "_idle",
    "_starting",
    "_leaving",
    "_unassigned",
    "_alone",
    "_suspects",
    "_claiming",
    "_plan",
    "_allowances",
    "_unheard",
    "_more",
    "_store_problem",
    "_stopping",
    "_work",
    "_lingering",
    "_pending",
    "_available",
}
