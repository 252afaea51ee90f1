import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.errors import SimulationError
from callboard.actors.kernel.messages import Crashed, Down, StartFailed
from callboard.actors.kernel.simulation import START_MS, SimulatedCrashError, SimulationScheduler
from callboard.actors.kernel.system import ActorSystem, Deferred


class Pinger(Actor):
    """Passes a count to a peer until it is used up; draws a random number and sets a timer at each step."""

    def __init__(self, system, peer, seen):
        super().__init__(system)
        self.peer = peer
        self.seen = seen

    def receive(self, message):
        self.seen.append((self.name, message, self.now_ms()))
        if message > 0:
            self.tell(self.peer, message - 1)
            if self.system.random.random() < 0.3:
                self.after(self.system.random.random(), 0)


def run(seed, faults=None):
    simulation = SimulationScheduler(seed, faults=faults)
    system = ActorSystem(scheduler=simulation)
    seen = []
    for name, peer in (("a", "b"), ("b", "c"), ("c", "a")):
        system.start_actor(name, lambda peer=peer: Pinger(system, peer, seen))
        system.tell(name, 10)
    simulation.advance(2)
    system.close(1)
    return simulation.trace, seen


def test_the_same_seed_gives_the_same_trace_and_another_seed_another():
    assert run(7) == run(7)
    assert len({str(run(seed)[0]) for seed in range(10)}) == 10


def test_messages_between_two_actors_keep_their_order_under_every_seed():
    class Source(Actor):
        def receive(self, message):
            for n in range(5):
                self.tell("sink", (self.name, n))

    class Sink(Actor):
        def __init__(self, system):
            super().__init__(system)
            self.got = []

        def receive(self, message):
            self.got.append(message)

    orders = set()
    for seed in range(50):
        simulation = SimulationScheduler(seed)
        system = ActorSystem(scheduler=simulation)
        system.start_actor("sink", lambda system=system: Sink(system))
        for name in ("x", "y"):
            system.start_actor(name, lambda system=system: Source(system))
            system.tell(name, "go")
        simulation.run_until_idle()
        got = system.actor("sink").got
        for name in ("x", "y"):
            assert [n for source, n in got if source == name] == [0, 1, 2, 3, 4]
        orders.add(tuple(got))
        system.close(1)
    assert len(orders) > 1


def test_time_moves_only_when_told_and_timers_see_their_own_due_time():
    seen = []
    simulation = SimulationScheduler(1)
    system = ActorSystem(scheduler=simulation)
    system.start_actor("a", lambda: Pinger(system, "a", seen))
    system.after(1.5, "a", 0)
    system.after(0.5, "a", 0)
    simulation.run_until_idle()
    assert (seen, simulation.clock.monotonic()) == ([], 0.0)
    simulation.advance(1.0)
    assert (seen, simulation.clock.monotonic()) == ([("a", 0, START_MS + 500)], 1.0)
    simulation.run_until(lambda: len(seen) == 2)
    assert (seen[1], simulation.clock.monotonic()) == (("a", 0, START_MS + 1500), 1.5)
    system.close(1)


def test_running_until_what_never_comes_says_so_with_the_last_steps():
    simulation = SimulationScheduler(42)
    system = ActorSystem(scheduler=simulation)
    system.start_actor("a", lambda: Pinger(system, "a", []))
    with pytest.raises(SimulationError, match=r"within 5 simulated seconds; seed 42(.|\n)*'a', 1, 'start'"):
        simulation.run_until(lambda: False, timeout=5)
    system.close(1)


def test_going_round_in_circles_is_noticed(monkeypatch):
    monkeypatch.setattr("callboard.actors.kernel.simulation.MAX_STEPS", 100)
    simulation = SimulationScheduler(1)
    system = ActorSystem(scheduler=simulation)

    class Busy(Actor):
        def receive(self, message):
            self.tell(self.name, message)

    system.start_actor("busy", lambda: Busy(system))
    system.tell("busy", 1)
    with pytest.raises(SimulationError, match="still busy after 100 steps"):
        simulation.run_until_idle()
    with pytest.raises(SimulationError, match="still busy after 100 steps"):
        simulation.run_until(lambda: False)
    system.abandon("busy", 1, Crashed("enough"))
    simulation.run_until_idle()
    assert system.close(1)


POINTS = [
    ("start", None, StartFailed, []),
    ("receive", "int", Crashed, []),
    ("received", "int", Crashed, [1, 0]),
    ("send", "int", Crashed, [1]),  # the other never hears
    ("sent", "int", Crashed, [1, 0]),  # the other hears, although the sender did not live to know
    ("batch", None, Crashed, [1, 0]),
    ("stop", None, Crashed, [1, 0]),
    ("label", "store.commit", Crashed, [1]),
]


@pytest.mark.parametrize(("kind", "detail", "reason", "heard"), POINTS)
def test_a_fault_strikes_at_each_point(kind, detail, reason, heard):
    def faults(point):
        if point.actor == "a" and point.kind == kind and (detail is None or point.detail == detail):
            return SimulatedCrashError(kind)
        return None

    simulation = SimulationScheduler(1, faults=faults)
    system = ActorSystem(scheduler=simulation)
    seen = []

    class Storing(Pinger):
        def receive(self, message):
            if message and self.name == "a":
                self.seen.append((self.name, message, 0))
                simulation.fault_point("store.commit")
                self.tell(self.peer, message - 1)
            else:
                super().receive(message)

    system.start_actor("a", lambda: Storing(system, "b", seen))
    system.start_actor("b", lambda: Storing(system, "a", seen))
    system.tell("a", 1)
    simulation.run_until_idle()
    system.stop_actor("a")
    simulation.run_until_idle()
    assert isinstance(system.directory._last["a"].reason, reason)
    assert system.directory._last["a"].reason.error == f"SimulatedCrashError: {kind}"
    assert [n for _, n, _ in seen] == heard
    assert ("a", f"fault at {kind}") in {(actor, what) for _, actor, _, what, _ in simulation.trace}
    simulation.fault_point("outside")
    system.close(1)


def test_a_simulation_refuses_threads_and_being_driven_from_inside():
    simulation = SimulationScheduler(1)
    with pytest.raises(SimulationError, match="no helper thread 'x'"):
        simulation.spawn_thread("x", lambda: None)
    system = ActorSystem(scheduler=simulation)

    class Meddler(Actor):
        def receive(self, message):
            simulation.run_until_idle()

    system.start_actor("m", lambda: Meddler(system))
    system.tell("m", 1)
    simulation.run_until_idle()
    assert "step from inside actor 'm'" in system.directory._last["m"].reason.error


def test_two_systems_share_one_simulation():
    simulation = SimulationScheduler(1)
    systems = [ActorSystem(scheduler=simulation) for _ in range(2)]
    seen = []
    for system in systems:
        system.start_actor("a", lambda system=system: Pinger(system, "a", seen))
        system.tell("a", 2)
    simulation.advance(2)
    assert sorted(n for _, n, _ in seen if n) == [1, 1, 2, 2]
    assert all(system.close(1) for system in systems)


def test_a_watcher_hears_of_an_end_before_the_owner_who_may_start_the_next_life():
    class Quiet(Actor):
        def receive(self, message):
            if message == "watch":
                self.watch("child")
            elif message == "crash":
                raise SimulatedCrashError

    simulation = SimulationScheduler(1)
    system = ActorSystem(scheduler=simulation)
    system.start_actor("watcher", lambda: Quiet(system))
    system.start_actor("owner", lambda: Quiet(system))
    system.start_actor("child", lambda: Quiet(system), owner="owner")
    system.tell("watcher", "watch")
    simulation.run_until_idle()
    told = []
    tell_life = system.tell_life
    system.tell_life = lambda life, message: (told.append((life.name, type(message))), tell_life(life, message))[1]
    system.tell("child", "crash")
    simulation.run_until_idle()
    assert [name for name, kind in told if kind in {Down, Deferred}] == ["watcher", "owner"]
    system.close(1)
