"""The supervisor's behaviour, event by event, in virtual time."""

import logging

import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.messages import Crashed, Down, Hung, Normal, Shutdown, Started, StartFailed, explain
from callboard.actors.kernel.simulation import SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.supervisor.messages import ChildDown, ChildStarted, StartChild, StopChild
from callboard.actors.supervisor.spec import Backoff, ChildSpec, Intensity, Restart, Strategy
from callboard.actors.supervisor.supervisor import EscalatedError, SupervisorActor


class Company:
    """A simulated system with one supervisor, a log of what its children did, and a listener that is notified."""

    def __init__(self, seed=1, faults=None):
        self.exits = []
        self.simulation = SimulationScheduler(seed, faults=faults)
        self.system = ActorSystem(scheduler=self.simulation, on_root_exit=self.exits.append)
        self.log = []
        self.told = []
        self.fail_start = set()
        self.never_ready = set()
        self.slow_to_stop = set()
        self.system.start_actor("listener", lambda: Listener(self))

    def spec(self, name, **arguments):
        arguments.setdefault("backoff", Backoff(base=1.0, cap=8.0, min_uptime=10.0))
        return ChildSpec(id=name, start=lambda: Child(self), **arguments)

    def supervise(self, *specs, **arguments):
        arguments.setdefault("notify", "listener")
        self.system.start_actor("root", lambda: SupervisorActor(self.system, specs, **arguments))
        return self

    def run(self, seconds=0.0):
        self.simulation.run_until_idle()
        if seconds:
            self.simulation.advance(seconds)
        return self

    def tell(self, name, message):
        self.system.tell(name, message)
        return self.run()

    def status(self):
        return self.system.actor("root").status()

    def states(self):
        return {child.id: (child.state, child.generation) for child in self.status().children}

    def take_log(self):
        log, self.log = self.log, []
        return log


class Listener(Actor):
    def __init__(self, company):
        super().__init__(company.system)
        self.company = company

    def receive(self, message):
        self.company.told.append(message)


class Child(Actor):
    announces_ready = True

    def __init__(self, company):
        super().__init__(company.system)
        self.company = company

    def on_start(self):
        if self.name in self.company.fail_start:
            raise ValueError("cannot start")
        self.company.log.append(f"+{self.name}")
        if self.name not in self.company.never_ready:
            self.ready()

    def stop_requested(self, reason):
        return self.name not in self.company.slow_to_stop

    def on_stop(self):
        self.company.log.append(f"-{self.name}")

    def receive(self, message):
        match message:
            case "crash":
                raise ValueError("on purpose")
            case "finish":
                self.exit()
            case "ready":
                self.ready()
            case _:
                self.unhandled(message)


@pytest.fixture
def company():
    company = Company()
    yield company
    assert company.system.close(60)
    assert company.system.directory.lives() == []


# -- the table: kind of child x how it ends ---------------------------------------------------------------------------

TABLE = [
    (Restart.PERMANENT, "finish", True),
    (Restart.PERMANENT, "shutdown", True),
    (Restart.PERMANENT, "crash", True),
    (Restart.PERMANENT, "hang", True),
    (Restart.TRANSIENT, "finish", False),
    (Restart.TRANSIENT, "shutdown", False),
    (Restart.TRANSIENT, "crash", True),
    (Restart.TRANSIENT, "hang", True),
    (Restart.TEMPORARY, "finish", False),
    (Restart.TEMPORARY, "shutdown", False),
    (Restart.TEMPORARY, "crash", False),
    (Restart.TEMPORARY, "hang", False),
]
REASON = {"finish": Normal, "shutdown": Shutdown, "crash": Crashed, "hang": Hung}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("restart", "how", "restarted"), TABLE)
def test_which_children_come_back(company, restart, how, restarted, dynamic):
    spec = company.spec("child", restart=restart)
    if dynamic:
        company.supervise().run().tell("root", StartChild(spec))
    else:
        company.supervise(spec).run()
    match how:
        case "shutdown":
            company.system.stop_actor("child")
        case "hang":
            company.system.abandon("child", 1, Hung("x", 1.0))
        case _:
            company.tell("child", how)
    company.run()
    started, down = company.told
    assert started == ChildStarted("child", 1)
    assert (down.child, down.generation, type(down.reason), down.will_restart) == ("child", 1, REASON[how], restarted)
    company.run(2)
    assert (company.system.actor("child") is not None) is restarted
    if restarted:
        assert company.told[-1] == ChildStarted("child", 2)
        assert company.states() == {"child": ("running", 2)}
    else:
        assert company.states() == ({} if dynamic else {"child": ("done", 1)})


# -- starting ---------------------------------------------------------------------------------------------------------


def test_children_start_in_order_each_when_the_one_before_is_ready(company):
    company.never_ready = {"b"}
    company.supervise(*[company.spec(name) for name in "abc"]).run()
    assert company.take_log() == ["+a", "+b"]
    assert company.status().state == "starting"
    assert company.states() == {"a": ("running", 1), "b": ("starting", 1), "c": ("pending", 0)}
    company.tell("b", "ready")
    assert company.take_log() == ["+c"]
    assert company.status().state == "running"
    assert company.system.wait_ready("root", 0)


def test_a_child_that_is_not_ready_in_time_is_given_up_and_tried_again(company):
    company.never_ready = {"a"}
    company.supervise(company.spec("a", start_timeout=3.0), company.spec("b")).run(2.9)
    assert company.told == []
    company.run(0.2)
    (down,) = company.told
    assert down == ChildDown("a", 1, StartFailed("not ready within 3 s"), will_restart=True)
    company.never_ready = set()
    company.run(2)
    assert company.states() == {"a": ("running", 2), "b": ("running", 1)}
    assert company.status().abandoned == 0  # the thread came back: it was only slow


def test_a_start_failure_is_retried_with_growing_delays_and_the_next_child_waits(company):
    company.fail_start = {"a"}
    company.supervise(company.spec("a"), company.spec("b")).run(5)
    assert all(isinstance(down.reason, StartFailed) and down.will_restart for down in company.told)
    assert len(company.told) >= 2
    assert company.system.actor("b") is None
    company.fail_start = set()
    company.run(10)
    assert company.take_log() == ["+a", "+b"]


def test_a_factory_that_raises_is_a_start_failure_not_a_crash_of_the_supervisor(company):
    def broken():
        raise OSError("no such thing")

    company.supervise(ChildSpec(id="x", start=broken, restart=Restart.TEMPORARY), company.spec("b")).run()
    assert company.told[0].reason.error == "OSError: no such thing"
    assert company.states() == {"x": ("done", 1), "b": ("running", 1)}


def test_a_temporary_child_that_fails_to_start_does_not_hold_up_the_next(company):
    company.fail_start = {"a"}
    company.supervise(company.spec("a", restart=Restart.TEMPORARY), company.spec("b")).run()
    assert company.states() == {"a": ("done", 1), "b": ("running", 1)}


def test_children_need_different_ids(company):
    with pytest.raises(ValueError, match="different ids"):
        SupervisorActor(company.system, [company.spec("a"), company.spec("a")])


def test_mail_about_another_life_of_a_child_is_stale(company):
    company.never_ready = {"b"}
    company.supervise(company.spec("a"), company.spec("b")).run()
    company.tell("root", Started("b", 2)).tell("root", Down("a", 2, Crashed("stale")))
    assert company.states() == {"a": ("running", 1), "b": ("starting", 1)}


# -- strategies -------------------------------------------------------------------------------------------------------


def test_one_for_one_restarts_that_one_only(company):
    company.supervise(*[company.spec(name) for name in "abc"]).run()
    company.take_log()
    company.tell("b", "crash").run(2)
    assert company.take_log() == ["+b"]
    assert company.states() == {"a": ("running", 1), "b": ("running", 2), "c": ("running", 1)}


def test_one_for_one_restarts_do_not_wait_for_each_other(company):
    company.supervise(*[company.spec(name) for name in "ab"]).run()
    company.fail_start = {"a"}
    company.tell("a", "crash").tell("b", "crash").run(1.1)
    assert company.states()["b"] == ("running", 2)
    assert company.states()["a"][0] == "backoff"


def test_rest_for_one_stops_those_after_in_reverse_and_starts_them_again_in_order(company):
    company.supervise(*[company.spec(name) for name in "abcd"], strategy=Strategy.REST_FOR_ONE).run()
    company.take_log()
    company.tell("b", "crash")
    assert company.take_log() == ["-d", "-c"]
    assert company.states() == {"a": ("running", 1), "b": ("backoff", 1), "c": ("pending", 1), "d": ("pending", 1)}
    company.run(2)
    assert company.take_log() == ["+b", "+c", "+d"]
    assert company.status().restarts == 1  # those taken down do not count
    downs = [m for m in company.told if isinstance(m, ChildDown)]
    assert [(d.child, d.will_restart) for d in downs] == [("b", True), ("d", True), ("c", True)]


def test_rest_for_one_does_not_bring_a_temporary_sibling_back(company):
    specs = [company.spec("a"), company.spec("b", restart=Restart.TEMPORARY), company.spec("c")]
    company.supervise(*specs, strategy=Strategy.REST_FOR_ONE).run()
    company.tell("a", "crash").run(2)
    assert company.states() == {"a": ("running", 2), "b": ("done", 1), "c": ("running", 2)}


def test_rest_for_one_when_an_earlier_one_ends_during_the_backoff_of_a_later(company):
    company.supervise(*[company.spec(name) for name in "abc"], strategy=Strategy.REST_FOR_ONE).run()
    company.take_log()
    company.tell("b", "crash").tell("a", "crash").run(5)
    assert company.take_log() == ["-c", "+a", "+b", "+c"]
    assert company.states() == {"a": ("running", 2), "b": ("running", 2), "c": ("running", 2)}


def test_rest_for_one_starts_nothing_while_one_after_it_still_stops(company):
    specs = [company.spec(name, stop_timeout=60.0) for name in "ab"]
    company.supervise(*specs, strategy=Strategy.REST_FOR_ONE).run()
    company.take_log()
    company.slow_to_stop = {"b"}
    company.tell("a", "crash").run(10)
    assert company.take_log() == []
    company.tell("b", "finish").run()
    assert company.take_log() == ["-b", "+a", "+b"]
    company.slow_to_stop = set()


# -- dynamic children -------------------------------------------------------------------------------------------------


def test_children_come_and_go(company):
    company.supervise().run()
    company.tell("root", StartChild(company.spec("x"))).tell("root", StartChild(company.spec("y")))
    assert company.states() == {"x": ("running", 1), "y": ("running", 1)}
    company.tell("root", StopChild("x")).tell("root", StopChild("unknown"))
    assert company.states() == {"y": ("running", 1)}
    assert company.told[-1] == ChildDown("x", 1, Shutdown(), will_restart=False)
    company.tell("root", StartChild(company.spec("x")))
    assert company.states()["x"] == ("running", 2)


def test_an_id_in_use_is_refused(company, caplog):
    company.supervise().run()
    company.tell("root", StartChild(company.spec("x"))).tell("root", StartChild(company.spec("x")))
    assert company.states() == {"x": ("running", 1)}
    assert "it has one of that id" in caplog.text


def test_a_child_stopped_during_its_backoff_stays_away(company):
    company.supervise().run().tell("root", StartChild(company.spec("x"))).tell("x", "crash")
    assert company.states() == {"x": ("backoff", 1)}
    company.tell("root", StopChild("x")).run(10)
    assert company.states() == {}
    assert company.system.actor("x") is None


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_a_stop_ends_children_in_reverse_order_and_then_the_supervisor(company):
    company.supervise(*[company.spec(name) for name in "abc"]).run()
    company.take_log()
    company.system.stop_actor("root")
    company.run()
    assert company.take_log() == ["-c", "-b", "-a"]
    assert [(d.child, d.reason) for d in company.exits] == [("root", Shutdown())]


def test_nothing_is_started_during_a_stop(company):
    company.supervise(*[company.spec(name) for name in "ab"]).run()
    company.tell("a", "crash")
    company.take_log()
    company.system.stop_actor("root")
    company.system.tell("root", StartChild(company.spec("x")))
    company.run(60)
    assert company.take_log() == ["-b"]
    assert company.exits[0].reason == Shutdown()


# -- giving up --------------------------------------------------------------------------------------------------------


def test_too_many_restarts_make_the_supervisor_stop_everything_and_crash(company, caplog):
    company.supervise(company.spec("a"), company.spec("b"), intensity=Intensity(max_restarts=2)).run()
    for _ in range(3):
        company.take_log()
        company.tell("b", "crash").run(8.5)
    assert company.take_log() == ["-a"]
    (down,) = company.exits
    assert down.child == "root"
    assert isinstance(down.reason.exception, EscalatedError)
    assert explain(down.reason) == (
        "crashed: supervisor 'root' gave up: 'b' crashed: ValueError: on purpose, after 2 restarts of children within 60 s (limit 2)"
    )
    assert company.told[-2].will_restart is False
    assert [r.levelname for r in caplog.records].count("CRITICAL") == 1


def test_a_supervisor_above_sees_the_escalation_and_starts_the_lower_one_afresh(company):
    def lower():
        return SupervisorActor(
            company.system, [company.spec("leaf")], intensity=Intensity(max_restarts=0), notify="listener"
        )

    spec = ChildSpec(id="lower", start=lower, backoff=Backoff(base=1.0, cap=8.0), stop_timeout=60.0)
    company.supervise(spec).run()
    company.tell("leaf", "crash")
    down = company.told[-1]
    assert (down.child, down.will_restart, type(down.reason.exception)) == ("lower", True, EscalatedError)
    company.run(2)
    assert company.system.actor("leaf").generation == 2
    assert company.system.actor("lower").status().restarts == 0
    assert company.exits == []


def test_a_significant_child_that_ends_for_good_ends_the_supervisor(company):
    specs = [company.spec("a"), company.spec("b", restart=Restart.TRANSIENT, significant=True)]
    company.supervise(*specs).run()
    company.tell("b", "crash").run(2)
    assert company.exits == []
    company.tell("b", "finish")
    assert [d.reason for d in company.exits] == [Shutdown()]
    assert company.system.actor("a") is None


# -- logs -------------------------------------------------------------------------------------------------------------


def test_a_crash_is_logged_with_its_traceback_once_and_counted_after(company, caplog):
    caplog.set_level(logging.WARNING)
    company.supervise(company.spec("a")).run()
    for _ in range(3):
        company.tell("a", "crash").run(20)
    assert [(r.levelname, r.exc_info is not None) for r in caplog.records] == [
        ("ERROR", True),
        ("WARNING", False),
        ("WARNING", False),
    ]
    assert "3 times here" in caplog.records[-1].getMessage()


def test_notices_to_a_listener_that_is_gone_are_no_dead_letters(company):
    company.supervise(company.spec("a")).run()
    company.system.stop_actor("listener")
    company.run().tell("a", "crash").run(2)
    assert company.states() == {"a": ("running", 2)}
    assert company.system.dead_letters.total() == 0
