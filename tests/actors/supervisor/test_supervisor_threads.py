"""What only real threads can show: hangs, slow stops, parallel stops, and a host's own actors beside."""

import threading

import pykka
import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.messages import Crashed, Hung, Shutdown
from callboard.actors.supervisor.messages import ChildDown, ChildHung, ChildStarted, StartChild
from callboard.actors.supervisor.spec import Backoff, ChildSpec, Restart
from callboard.actors.supervisor.supervisor import EscalatedError, SupervisorActor

QUICK = Backoff(base=0.0, cap=0.0)


class Listener(Actor):
    def __init__(self, system):
        super().__init__(system)
        self.told = []
        self.changed = threading.Condition()

    def receive(self, message):
        with self.changed:
            self.told.append(message)
            self.changed.notify_all()

    def wait_for(self, *expected):
        with self.changed:
            assert self.changed.wait_for(lambda: all(m in self.told for m in expected), 10), self.told

    def wait_until(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.told), 10), self.told


class Worker(Actor):
    """Blocks where it is told to, until the gate opens."""

    def __init__(self, system, gate, blocks=()):
        super().__init__(system)
        self.gate = gate
        self.blocks = blocks

    def on_start(self):
        if "start" in self.blocks:
            assert self.gate.wait(10)

    def on_stop(self):
        if "stop" in self.blocks:
            assert self.gate.wait(10)

    def receive(self, message):
        match message:
            case "hang":
                assert self.gate.wait(10)
            case "crash":
                raise KeyboardInterrupt


@pytest.fixture(autouse=True, params=[False, True], ids=["own thread", "shared thread"])
def thread(request, monkeypatch):
    monkeypatch.setattr(Worker, "shares_thread", request.param)


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def listener(system):
    system.start_actor("listener", lambda: Listener(system))
    return system.actor("listener")


def supervise(system, *specs, **arguments):
    system.start_actor("root", lambda: SupervisorActor(system, specs, notify="listener", **arguments))
    assert system.wait_ready("root", 10)
    return system.actor("root")


def test_a_hung_child_is_reported_replaced_and_its_thread_counted_until_it_returns(system, listener, gate):
    spec = ChildSpec(id="w", start=lambda: Worker(system, gate), hang_after=0.05, backoff=QUICK)
    root = supervise(system, spec)
    old = system.directory.find("w")
    system.tell("w", "hang")
    listener.wait_for(ChildStarted("w", 2))
    kinds = [(type(m), m.generation) for m in listener.told]
    assert kinds == [(ChildStarted, 1), (ChildHung, 1), (ChildDown, 1), (ChildStarted, 2)]
    hung, down = listener.told[1], listener.told[2]
    assert hung.doing == "str"
    assert hung.seconds > 0.05
    assert isinstance(down.reason, Hung)
    assert down.will_restart
    assert root.status().abandoned == 1
    assert not old.finished.is_set()
    gate.set()
    assert old.finished.wait(10)
    system.tell("w", "crash")  # by the time its end is told, the supervisor has read what came before
    listener.wait_for(ChildStarted("w", 3))
    assert root.status().abandoned == 0


def test_a_child_that_is_busy_for_less_is_left_alone(system, listener, gate):
    spec = ChildSpec(id="w", start=lambda: Worker(system, gate), hang_after=5.0)
    supervise(system, spec)
    system.tell("w", "hang")
    quick = ChildSpec(id="q", start=lambda: Worker(system, gate), hang_after=0.02, backoff=QUICK)
    system.tell("root", StartChild(quick))
    listener.wait_for(ChildStarted("q", 1))
    system.tell("q", "hang")
    listener.wait_for(ChildStarted("q", 2))  # the check has run
    assert system.actor("w").generation == 1


def test_too_many_threads_left_behind_make_the_supervisor_give_up(make_system, gate, caplog):
    exits, exited = [], threading.Event()
    system = make_system(on_root_exit=lambda down: (exits.append(down), down.child == "root" and exited.set()))
    system.start_actor("listener", lambda: Listener(system))
    spec = ChildSpec(
        id="w",
        start=lambda: Worker(system, gate, ["start"]),
        start_timeout=0.02,
        backoff=QUICK,
        restart=Restart.PERMANENT,
    )
    system.start_actor("root", lambda: SupervisorActor(system, [spec], max_abandoned=2, notify="listener"))
    assert exited.wait(10)
    assert isinstance(exits[0].reason.exception, EscalatedError)
    assert "3 threads of hung children were left behind (limit 2)" in exits[0].reason.error
    assert system.directory.find("w") is None


def test_a_child_that_does_not_stop_in_time_is_left_behind_and_the_rest_go_on_stopping(system, listener, gate):
    specs = [
        ChildSpec(id="a", start=lambda: Worker(system, gate)),
        ChildSpec(id="b", start=lambda: Worker(system, gate, ["stop"]), stop_timeout=0.05),
    ]
    supervise(system, *specs)
    system.stop_actor("root")
    assert system.wait_ended("root", 10)
    listener.wait_until(lambda told: sum(isinstance(m, ChildDown) for m in told) == 2)
    b, a = [m for m in listener.told if isinstance(m, ChildDown)]
    assert (b.child, b.reason) == ("b", Hung("stopping, in on_stop", 0.05))
    assert (a.child, a.reason) == ("a", Shutdown())


def test_dynamic_children_stop_in_parallel(system, listener):
    class Together(Actor):
        barrier = threading.Barrier(5)

        def on_stop(self):
            self.barrier.wait(10)  # passes only when all five stop at once

    supervise(system)
    for n in range(5):
        system.tell("root", StartChild(ChildSpec(id=f"w{n}", start=lambda: Together(system))))
    listener.wait_for(*[ChildStarted(f"w{n}", 1) for n in range(5)])
    system.stop_actor("root")
    assert system.wait_ended("root", 10)
    listener.wait_until(lambda told: sum(isinstance(m, ChildDown) for m in told) == 5)
    assert [m.reason for m in listener.told if isinstance(m, ChildDown)] == [Shutdown()] * 5
    assert not Together.barrier.broken


def test_a_keyboard_interrupt_in_a_child_restarts_it_and_leaves_a_hosts_own_actor_alone(system, listener, gate):
    class Host(pykka.ThreadingActor):
        use_daemon_thread = True

        def on_receive(self, message):
            return message

    host = Host.start()
    supervise(system, ChildSpec(id="w", start=lambda: Worker(system, gate), backoff=QUICK))
    for generation in range(2, 6):
        system.tell("w", "crash")
        listener.wait_for(ChildStarted("w", generation))
    assert [type(m.reason) for m in listener.told if isinstance(m, ChildDown)] == [Crashed] * 4
    assert host.ask("still here", timeout=5) == "still here"
    assert system.close(10)
    assert host.ask("still here", timeout=5) == "still here"
    host.stop(timeout=5)


def test_status_may_be_read_while_children_come_and_go(system, listener, gate):
    root = supervise(system)
    stop, read, errors = threading.Event(), threading.Event(), []

    def reader():
        while not stop.is_set():
            try:
                root.status()
                system.status()
            except Exception as error:
                errors.append(error)
            read.set()

    reading = threading.Thread(target=reader)
    reading.start()
    assert read.wait(5)
    for n in range(30):
        system.tell("root", StartChild(ChildSpec(id=f"w{n}", start=lambda: Worker(system, gate))))
    listener.wait_for(*[ChildStarted(f"w{n}", 1) for n in range(30)])
    stop.set()
    reading.join(5)
    assert errors == []
    assert len(root.status().children) == 30
