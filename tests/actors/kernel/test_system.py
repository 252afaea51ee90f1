import threading

import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.ask import ReplyTo, ask
from callboard.actors.kernel.directory import REMEMBERED
from callboard.actors.kernel.errors import (
    ActorUnavailableError,
    AskError,
    AskTimeoutError,
    KernelError,
    NameTakenError,
    SystemClosedError,
    UnhandledMessageError,
)
from callboard.actors.kernel.messages import Crashed, Down, NotRunning, Shutdown
from callboard.actors.kernel.simulation import SimulationScheduler
from callboard.actors.kernel.system import ActorSystem


class Query:
    def __init__(self, reply_to):
        self.reply_to = reply_to


class Worker(Actor):
    def __init__(self, system):
        super().__init__(system)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.downs = []
        self.batches = [0]
        self.kept = None

    def receive(self, message):
        self.batches[-1] += 1
        match message:
            case "wait":
                self.entered.set()
                assert self.gate.wait(5)
            case "crash":
                raise ValueError("on purpose")
            case "ignore" | int():
                pass
            case ("watch", name):
                self.watch(name)
            case ("watch twice", name):
                self.watch(name)
                self.watch(name)
            case ("unwatch", name):
                self.unwatch(name)
            case ("ask", name):
                ask(self.system, name, Query, 1)
            case Query(reply_to=reply_to):
                reply_to.set(self.name)
            case Down():
                self.downs.append(message)
            case _:
                self.unhandled(message)

    def after_batch(self):
        self.batches.append(0)


@pytest.fixture
def simulation():
    return SimulationScheduler(1)


@pytest.fixture
def virtual(simulation):
    system = ActorSystem(scheduler=simulation)
    yield system
    assert system.close(1)


class Never(Actor):
    announces_ready = True


def start(system, name="worker", **arguments):
    system.start_actor(name, lambda: Worker(system), **arguments)
    return system.actor(name)


# -- names ------------------------------------------------------------------------------------------------------------


def test_mail_to_nobody_is_counted_remembered_and_logged_once_a_minute_per_kind(virtual, simulation, caplog):
    told = []
    virtual.dead_letters._on_dead_letter = told.append
    for _ in range(3):
        assert virtual.tell("nobody", "hello") is False
    assert virtual.tell("nobody", 5) is False
    assert virtual.dead_letters.counts() == {"str": 3, "int": 1}
    assert virtual.dead_letters.total() == 4
    assert [letter.kind for letter in virtual.dead_letters.recent()] == ["str", "str", "str", "int"]
    assert len(told) == 4
    assert len(caplog.records) == 2
    simulation.advance(61)
    virtual.tell("nobody", "hello")
    assert len(caplog.records) == 3
    assert "4 of this kind so far" in caplog.records[-1].getMessage()


def test_a_name_has_one_living_holder(virtual):
    start(virtual)
    with pytest.raises(NameTakenError, match="generation 1 of that name is alive"):
        start(virtual)


def test_generations_rise_with_every_life_even_when_names_were_forgotten(virtual, simulation):
    for expected in (1, 2, 3):
        assert start(virtual).generation == expected
        virtual.stop_actor("worker")
        simulation.run_until_idle()
    for n in range(REMEMBERED):
        start(virtual, f"other-{n}")
        virtual.stop_actor(f"other-{n}")
        simulation.run_until_idle()
    assert len(virtual.directory._last) == REMEMBERED
    assert virtual.next_generation("worker") == 4


def test_a_stop_for_another_generation_does_nothing(virtual, simulation):
    start(virtual)
    assert not virtual.stop_actor("worker", 2)
    assert not virtual.stop_actor("nobody")
    simulation.run_until_idle()
    assert virtual.actor("worker") is not None


def test_an_actor_is_started_by_a_system_only(virtual):
    with pytest.raises(KernelError, match=r"start Worker with ActorSystem\.start_actor"):
        Worker.start(virtual)
    with pytest.raises(KernelError, match="has no name yet"):
        _ = Worker(virtual).life
    with pytest.raises(KernelError, match="its owner 'nobody' is not alive"):
        start(virtual, owner="nobody")


def test_an_owner_that_ends_while_its_child_is_built_gets_no_child(virtual):
    start(virtual, "owner")

    def build():
        virtual.abandon("owner", 1, Shutdown())
        return Worker(virtual)

    with pytest.raises(KernelError, match="its owner 'owner' has just ended"):
        virtual.start_actor("worker", build, owner="owner")
    assert virtual.actor("worker") is None


def test_status_shows_mail_and_what_an_actor_is_busy_with(system):
    worker = start(system)
    system.tell("worker", "wait")
    assert worker.entered.wait(5)
    system.tell("worker", "ignore")
    (status,) = system.status()
    assert (status.name, status.generation, status.kind, status.waiting, status.busy_with) == (
        "worker",
        1,
        "Worker",
        1,
        "str",
    )
    assert status.busy_for >= 0
    worker.gate.set()
    assert ask(system, "worker", Query, 5) == "worker"


def test_an_unknown_message_crashes_the_actor(virtual, simulation):
    start(virtual)
    virtual.start_actor("owner", lambda: Worker(virtual))
    virtual.start_actor("child", lambda: Worker(virtual), owner="owner")
    virtual.tell("child", None)
    simulation.run_until(lambda: virtual.actor("child") is None)
    assert isinstance(virtual.directory._last["child"].reason, Crashed)
    assert (
        "UnhandledMessageError: Worker 'child' has no case for NoneType"
        in virtual.directory._last["child"].reason.error
    )
    assert virtual.directory._last["child"].reason.exception is None  # what is remembered holds no frames
    with pytest.raises(UnhandledMessageError):
        Actor(virtual).receive("anything")
    simulation.advance(1)
    assert virtual.actor("owner") is None  # `Started` is unknown to this owner: the same bug, the same end


# -- batches ----------------------------------------------------------------------------------------------------------


def test_the_batch_hook_runs_when_no_mail_waits_or_after_max_batch(system):
    worker = start(system)
    system.tell("worker", "wait")
    assert worker.entered.wait(5)
    for n in range(600):
        system.tell("worker", n)
    worker.gate.set()
    assert ask(system, "worker", Query, 5) == "worker"
    assert system.stop_actor("worker")
    assert system.wait_ended("worker", 5)
    assert worker.batches[:2] == [256, 256]
    assert sum(worker.batches) == 602


# -- watching ---------------------------------------------------------------------------------------------------------


def test_a_watcher_gets_one_down_per_watch_with_the_reason(virtual, simulation):
    watcher = start(virtual, "watcher")
    start(virtual)
    for _ in range(2):
        virtual.tell("watcher", ("watch", "worker"))
    simulation.run_until_idle()
    virtual.stop_actor("worker")
    simulation.run_until_idle()
    start(virtual)
    virtual.stop_actor("worker")
    simulation.run_until_idle()
    assert watcher.downs == [Down("worker", 1, Shutdown())]


def test_watching_the_dead_brings_down_at_once(virtual, simulation):
    watcher = start(virtual, "watcher")
    start(virtual)
    virtual.tell("worker", "crash")
    simulation.run_until_idle()
    virtual.tell("watcher", ("watch", "worker"))
    virtual.tell("watcher", ("watch", "nobody"))
    simulation.run_until_idle()
    assert [(d.child, d.generation) for d in watcher.downs] == [("worker", 1), ("nobody", 0)]
    assert watcher.downs[0].reason.error == "ValueError: on purpose"
    assert watcher.downs[1].reason == NotRunning()
    virtual.tell("watcher", ("watch", "worker"))  # a watch that is over may be set again
    simulation.run_until_idle()
    assert len(watcher.downs) == 3
    virtual.tell("watcher", ("watch twice", "worker"))
    simulation.run_until_idle()
    assert len(watcher.downs) == 4


def test_unwatch_recalls_a_down_that_waits_already(virtual, simulation):
    watcher = start(virtual, "watcher")
    start(virtual)
    virtual.tell("watcher", ("watch", "worker"))
    simulation.run_until_idle()
    virtual.tell("watcher", ("unwatch", "worker"))
    virtual.abandon("worker", 1, Shutdown())  # its `Down` now waits behind the unwatch
    simulation.run_until_idle()
    assert watcher.downs == []
    assert watcher._watches == {}
    virtual.tell("watcher", ("unwatch", "worker"))
    simulation.run_until_idle()


def test_a_down_never_overtakes_what_the_dead_actor_sent():
    class Teller(Actor):
        def on_stop(self):
            self.tell("watcher", 1)

        def receive(self, message):
            self.tell("watcher", message)

    class Listener(Worker):
        def receive(self, message):
            if isinstance(message, int):
                self.downs.append(message)
            else:
                super().receive(message)

    for seed in range(20):
        simulation = SimulationScheduler(seed)
        system = ActorSystem(scheduler=simulation)
        system.start_actor("watcher", lambda system=system: Listener(system))
        system.start_actor("teller", lambda system=system: Teller(system))
        system.tell("watcher", ("watch", "teller"))
        simulation.run_until_idle()
        system.tell("teller", 0)
        simulation.run_until_idle()
        system.stop_actor("teller")
        simulation.run_until_idle()
        assert system.actor("watcher").downs == [0, 1, Down("teller", 1, Shutdown())]
        assert system.close(1)


# -- asking -----------------------------------------------------------------------------------------------------------


def test_ask_returns_the_answer_on_threads_and_in_a_simulation(system, virtual):
    start(system)
    assert ask(system, "worker", Query, 5) == "worker"
    start(virtual)
    assert ask(virtual, "worker", Query, 5) == "worker"


def test_ask_of_nobody_fails_at_once(system):
    with pytest.raises(ActorUnavailableError, match="cannot ask 'nobody' for Query"):
        ask(system, "nobody", Query, 60)


def test_ask_times_out_naming_actor_and_message(virtual, simulation):
    class Silent(Actor):
        def receive(self, message):
            pass

    virtual.start_actor("silent", lambda: Silent(virtual))
    with pytest.raises(AskTimeoutError, match=r"no answer from 'silent' to Query within 5 s"):
        ask(virtual, "silent", Query, 5)
    assert simulation.clock.monotonic() == 5


def test_ask_raises_what_crashed_the_actor(system):
    class Crashing(Actor):
        def receive(self, message):
            raise LookupError("on purpose")

    system.start_actor("crashing", lambda: Crashing(system))
    with pytest.raises(LookupError, match="on purpose"):
        ask(system, "crashing", Query, 5)


@pytest.mark.parametrize("kind", ["threads", "simulation"])
def test_an_actor_cannot_ask(kind, make_system):
    system = make_system() if kind == "threads" else make_system(scheduler=SimulationScheduler(1))
    system.start_actor("worker", lambda: Worker(system))
    life = system.directory.find("worker")
    system.tell("worker", ("ask", "worker"))
    assert system.scheduler.wait(life.finished, 5)
    assert system.directory._last["worker"].reason.error.startswith(
        "AskError: ask of Query to 'worker' from inside an actor"
    )
    assert issubclass(AskTimeoutError, AskError)


def test_a_promise_takes_one_answer():
    promise = ReplyTo()
    assert promise.set(1)
    assert not promise.set(2)
    assert not promise.fail(ValueError())
    assert promise.result() == 1


# -- closing ----------------------------------------------------------------------------------------------------------


def test_close_stops_what_has_no_owner_latest_first_and_refuses_new_actors(make_system):
    ended = []

    class Last(Worker):
        def on_stop(self):
            ended.append(self.name)

    system = make_system()
    for name in ("a", "b"):
        system.start_actor(name, lambda: Last(system))
    assert system.close(5)
    assert ended == ["b", "a"]
    assert system.close(5)
    with pytest.raises(SystemClosedError):
        start(system)


def test_close_abandons_what_does_not_end_in_time(make_system):
    told = []
    system = make_system(on_root_exit=told.append)
    worker = start(system)
    life = worker.life
    system.tell("worker", "wait")
    assert worker.entered.wait(5)
    assert system.close(0.01) is False
    assert [type(d.reason).__name__ for d in told] == ["Hung"]
    worker.gate.set()
    assert life.finished.wait(5)
    assert len(told) == 1


def test_a_failing_root_hook_does_not_keep_an_actor_from_ending(make_system, caplog):
    def fail(_down):
        raise ValueError("on purpose")

    system = make_system(on_root_exit=fail)
    start(system)
    assert system.close(5)
    assert "on_root_exit raised" in caplog.text


def test_wait_ready_and_wait_ended(system):
    start(system)
    assert system.wait_ready("worker", 5)
    assert not system.wait_ready("nobody", 5)
    system.start_actor("never", lambda: Never(system))
    ending = threading.Timer(0.0, system.stop_actor, ["never"])
    ending.start()
    assert not system.wait_ready("never", 60)  # it ends first
    ending.join(5)
    system.stop_actor("worker")
    assert system.wait_ended("worker", 5)
    assert system.wait_ended("worker", 5)


def test_helper_threads_are_daemons(system):
    ran = threading.Event()
    thread = system.scheduler.spawn_thread("helper", ran.set)
    assert thread.daemon
    thread.join(5)
    assert ran.is_set()
