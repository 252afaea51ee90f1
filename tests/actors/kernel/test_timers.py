import threading

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.clock import SystemClock
from callboard.actors.kernel.simulation import SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.kernel.timers import COMPACT_ABOVE, TimerQueue, TimerThread, TimerToken


def nothing(_token):
    pass


def test_timers_fire_by_due_time_and_then_in_the_order_they_were_set():
    queue = TimerQueue()
    tokens = [TimerToken(due, nothing) for due in (2.0, 1.0, 2.0, 1.0)]
    for token in tokens:
        queue.add(token)
    assert queue.next_due() == 1.0
    assert queue.pop_due(0.5) is None
    fired = [queue.pop_due(5.0) for _ in tokens]
    assert [tokens.index(t) for t in fired] == [1, 3, 0, 2]
    assert queue.pop_due(5.0) is None


def test_a_cancelled_timer_does_not_fire_and_its_place_is_freed():
    queue = TimerQueue()
    tokens = [TimerToken(float(n), nothing) for n in range(1000)]
    for token in tokens:
        queue.add(token)
    for token in tokens[1:]:
        queue.cancel(token)
        queue.cancel(token)
    assert len(queue) == 1
    assert len(queue._heap) <= 2 * COMPACT_ABOVE
    assert queue.pop_due(1e9) is tokens[0]
    queue.cancel(tokens[0])  # too late, and harmless
    assert queue.pop_due(1e9) is None
    assert len(queue) == 0


def test_the_timer_thread_fires_in_order_survives_a_failing_delivery_and_takes_earlier_timers_while_it_waits(caplog):
    clock = SystemClock()
    timers = TimerThread(clock)
    fired, done = [], threading.Event()

    def fail(_token):
        raise ValueError("on purpose")

    now = clock.monotonic()
    far = TimerToken(now + 3600, nothing)
    timers.add(far)
    while not timers._condition._waiters:  # until the thread waits for the far one; only then can it be woken too late
        assert timers._thread.is_alive()
    timers.add(TimerToken(now + 0.02, lambda _: (fired.append("late"), done.set())))
    timers.add(TimerToken(now, fail))
    timers.add(TimerToken(now, lambda _: fired.append("now")))
    assert done.wait(5)
    assert fired == ["now", "late"]
    assert "could not be delivered" in caplog.text
    assert len(timers) == 1
    timers.cancel(far)
    assert len(timers) == 0
    timers.close(5)
    timers.add(TimerToken(now, lambda _: fired.append("after close")))
    assert fired == ["now", "late"]


class Sleeper(Actor):
    def __init__(self, system, heard):
        super().__init__(system)
        self.heard = heard
        self.token = None

    def receive(self, message):
        match message:
            case ("after", delay, text):
                self.token = self.after(delay, text)
            case "cancel":
                self.cancel(self.token)
            case "crash":
                raise ValueError("on purpose")
            case str():
                self.heard.append((self.generation, message))


def test_a_real_timer_reaches_its_actor(system):
    class Waiter(Actor):
        def __init__(self, system):
            super().__init__(system)
            self.rang = threading.Event()

        def on_start(self):
            self.after(0.001, "ring")

        def receive(self, message):
            self.rang.set()

    system.start_actor("waiter", lambda: Waiter(system))
    assert system.actor("waiter").rang.wait(5)


def test_an_actors_own_timer_never_reaches_a_later_life_but_a_timer_to_a_name_does():
    simulation = SimulationScheduler(1)
    system = ActorSystem(scheduler=simulation)
    heard = []
    system.start_actor("sleeper", lambda: Sleeper(system, heard))
    system.tell("sleeper", ("after", 5.0, "own"))
    system.after(5.0, "sleeper", "to the name")
    system.tell("sleeper", "crash")
    simulation.run_until_idle()
    system.start_actor("sleeper", lambda: Sleeper(system, heard))
    simulation.advance(10)
    assert heard == [(2, "to the name")]
    assert system.dead_letters.total() == 0
    assert system.close(1)


def test_a_timer_cancelled_while_its_message_waits_is_not_received():
    simulation = SimulationScheduler(1)
    system = ActorSystem(scheduler=simulation)
    heard = []
    system.start_actor("sleeper", lambda: Sleeper(system, heard))
    system.tell("sleeper", ("after", 1.0, "ring"))
    simulation.run_until_idle()
    system.tell("sleeper", "cancel")
    simulation.timers.queue.pop_due(2.0).action(system.actor("sleeper").token)  # it fires: now both wait
    simulation.run_until_idle()
    assert heard == []
    token = system.after(1.0, "sleeper", "again")
    system.cancel(token)
    simulation.advance(2)
    assert heard == []
    assert system.close(1)


def test_a_timer_to_nobody_is_a_dead_letter():
    simulation = SimulationScheduler(1)
    system = ActorSystem(scheduler=simulation)
    system.after(1.0, "nobody", "hello")
    simulation.advance(2)
    assert [(d.to, d.kind) for d in system.dead_letters.recent()] == [("nobody", "str")]
