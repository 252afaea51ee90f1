"""Actors that share a thread: they take turns, and none of them can hold up, end or double another."""

import asyncio
import resource
import threading

import pytest

from callboard.actors.kernel import crew
from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.messages import Crashed, Down, Hung, Started, StartFailed, Unstuck


class Mate(Actor):
    """Notes on which thread it handles what."""

    shares_thread = True

    def __init__(self, system):
        super().__init__(system)
        self.handled = []
        self.threads = []
        self.batches = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.changed = threading.Condition()

    def receive(self, message):
        match message:
            case "wait":
                self.entered.set()
                assert self.gate.wait(10)
            case BaseException():
                raise message
            case ("tell", name, rest):
                self.tell(name, rest)
        with self.changed:
            self.threads.append(threading.current_thread())
            self.handled.append(message)
            self.changed.notify_all()

    def after_batch(self):
        self.batches += 1

    def wait_for(self, message):
        self.wait_until(lambda: message in self.handled)

    def wait_until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 10), self.handled


class Owner(Mate):
    shares_thread = False


def start(system, name, kind=Mate, **arguments):
    system.start_actor(name, lambda: kind(system), **arguments)
    return system.actor(name)


def crew_of(system):
    return system.scheduler._crew


def test_they_share_one_thread_which_is_there_while_they_are(system):
    mates = [start(system, f"mate-{n}") for n in range(5)]
    for mate in mates:
        system.tell(mate.name, "hello")
    for mate in mates:
        mate.wait_for("hello")
    (thread,) = {thread for mate in mates for thread in mate.threads}
    for mate in mates:
        assert system.stop_actor(mate.name)
    thread.join(10)
    assert not thread.is_alive()
    late = start(system, "late")
    system.tell("late", "hello")
    late.wait_for("hello")
    assert late.threads != [thread]


def test_a_message_from_one_to_another_wakes_no_thread(system):
    class Player(Mate):
        def receive(self, message):
            if message:
                self.tell(self.name.translate(str.maketrans("ab", "ba")), message - 1)
            super().receive(message)
            self.waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            if len(self.handled) == 1:
                self.waited_before = self.waits

    players = [start(system, name, Player) for name in "ab"]
    system.tell("a", 10_000)
    players[0].wait_for(0)
    assert sum(len(player.handled) for player in players) == 10_001
    assert players[0].waits - players[0].waited_before < 100


def test_mail_is_handled_in_order_in_turns_and_a_batch_ends_when_none_waits(system):
    first, second = start(system, "first"), start(system, "second")
    system.tell("first", "wait")
    assert first.entered.wait(10)
    for n in range(300):
        system.tell("first", n)
    system.tell("second", "turn")
    seen = []
    second.receive = lambda message: (seen.append(len(first.handled)), Mate.receive(second, message))
    first.gate.set()
    second.wait_for("turn")
    first.wait_for(299)
    assert first.handled == ["wait", *range(300)]
    assert seen == [crew.TURN]  # its turn came although the other's mail was not read to its end
    system.stop_actor("first")
    assert system.wait_ended("first", 10)
    assert first.batches == 2  # after 256, and at the end


def test_whoever_waits_keeps_the_thread_and_the_others_go_on(system):
    slow, other = start(system, "slow"), start(system, "other")
    system.tell("slow", "wait")
    assert slow.entered.wait(10)
    system.tell("slow", "and then")
    system.tell("other", "go on")
    other.wait_for("go on")
    slow.gate.set()
    slow.wait_for("and then")
    system.tell("other", "again")
    other.wait_for("again")
    assert slow.threads[0] is not other.threads[0]
    assert slow.threads[1] is other.threads[0]  # it has joined the others again
    slow.threads[0].join(10)
    assert not slow.threads[0].is_alive()


def test_whoever_comes_back_when_the_others_have_left_serves_itself(system):
    slow, other = start(system, "slow"), start(system, "other")
    system.tell("slow", "wait")
    assert slow.entered.wait(10)
    system.tell("other", "go on")
    other.wait_for("go on")
    assert system.stop_actor("other")
    other.threads[0].join(10)
    assert not other.threads[0].is_alive()
    slow.gate.set()
    system.tell("slow", "and then")
    slow.wait_for("and then")
    assert slow.threads[0] is slow.threads[1]


def test_one_that_is_given_up_holds_nobody_up_and_reports_back_when_it_returns(system, monkeypatch):
    monkeypatch.setattr(crew, "RELIEF", 3600.0)
    owner = start(system, "owner", Owner)
    stuck, other = start(system, "stuck", owner="owner"), start(system, "other")
    life = stuck.life
    system.tell("stuck", "wait")
    assert stuck.entered.wait(10)
    system.tell("other", "go on")
    assert system.abandon("stuck", 1, Hung("str", 1.0))
    other.wait_for("go on")
    assert not life.finished.is_set()  # so it was not that one's giving up by itself
    replacement = start(system, "stuck", owner="owner")
    system.tell("stuck", "hello")
    replacement.wait_for("hello")
    stuck.gate.set()
    assert life.finished.wait(10)
    owner.wait_for(Unstuck("stuck", 1))
    system.stop_actor("stuck")
    owner.wait_until(lambda: any(isinstance(message, Down) and message.generation == 2 for message in owner.handled))
    assert [message.generation for message in owner.handled if isinstance(message, Down)] == [1, 2]


def test_one_that_is_given_up_while_it_has_nothing_to_do_ends(system):
    idle, other = start(system, "idle"), start(system, "other")
    life = idle.life
    assert system.abandon("idle", 1, Hung("nothing", 1.0))
    assert life.finished.wait(10)
    system.tell("other", "go on")
    other.wait_for("go on")


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_a_crash_ends_one_and_no_other(system, error):
    owner = start(system, "owner", Owner)
    other = start(system, "other")
    start(system, "crashing", owner="owner")
    system.tell("crashing", error("on purpose"))
    system.tell("other", "go on")
    other.wait_for("go on")
    owner.wait_until(lambda: len(owner.handled) == 2)
    started, down = owner.handled
    assert started == Started("crashing", 1)
    assert isinstance(down.reason, Crashed)


def test_an_end_that_raises_where_none_may_is_logged_and_the_others_go_on(system, monkeypatch, caplog):
    failing, other = start(system, "failing"), start(system, "other")
    for mate in (failing, other):
        system.tell(mate.name, "hello")
        mate.wait_for("hello")
    monkeypatch.setattr(system, "end_life", lambda *_: 1 / 0)
    life = failing.life
    system.stop_actor("failing")
    system.tell("other", "go on")
    other.wait_for("go on")
    monkeypatch.undo()
    system.end_life(life, Crashed("after all"))
    assert "the end of 'failing' failed; the other actors go on" in caplog.text


class Slow(Mate):
    """Waits in the hooks at its ends, until its gate opens."""

    waits_at_ends = True
    fails = None

    def hook(self, name):
        with self.changed:
            self.threads.append(threading.current_thread())
            self.handled.append(name)
            self.changed.notify_all()
        assert self.gate.wait(10)
        if name == self.fails:
            raise ValueError("on purpose")

    def on_start(self):
        self.hook("on_start")

    def on_stop(self):
        self.hook("on_stop")

    def on_failure(self, *_):
        self.hook("on_failure")


@pytest.mark.parametrize("end", ["on_stop", "on_failure"])
def test_one_that_waits_at_its_ends_does_so_on_threads_of_its_own(system, monkeypatch, end):
    monkeypatch.setattr(crew, "RELIEF", 3600.0)
    slow, other = start(system, "slow", Slow), start(system, "other")
    life = slow.life
    slow.wait_for("on_start")
    system.tell("slow", "work")
    system.tell("other", "go on")
    other.wait_for("go on")
    slow.gate.set()
    slow.wait_for("work")
    slow.gate.clear()
    if end == "on_stop":
        system.stop_actor("slow")
    else:
        system.tell("slow", ValueError("on purpose"))
    slow.wait_for(end)
    system.tell("other", "and on")
    other.wait_for("and on")
    slow.gate.set()
    assert life.finished.wait(10)
    assert slow.handled == ["on_start", "work", end]
    assert len(set(slow.threads)) == 3
    assert slow.threads[1] is other.threads[0]


def test_one_that_fails_to_start_on_its_own_thread_tells_so(system):
    class Failing(Slow):
        fails = "on_start"

    owner = start(system, "owner", Owner)
    failing = start(system, "failing", Failing, owner="owner")
    life = failing.life
    failing.gate.set()
    assert life.finished.wait(10)
    owner.wait_until(lambda: owner.handled)
    (down,) = owner.handled
    assert isinstance(down.reason, StartFailed)
    assert failing.handled == ["on_start", "on_failure"]


def test_the_first_one_there_serves_on_the_thread_it_began_on(system):
    slow = start(system, "slow", Slow)
    slow.gate.set()
    system.tell("slow", "work")
    slow.wait_for("work")
    assert slow.threads[0] is slow.threads[1]


def test_no_thread_to_be_had_is_the_starters_error_and_leaves_nothing_behind(system, monkeypatch):
    def no_thread(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(crew.ActorThread, "start", no_thread)
    for kind in (Mate, Slow):
        with pytest.raises(RuntimeError):
            start(system, "mate", kind)
    monkeypatch.undo()
    assert system.directory.find("mate") is None
    mate = start(system, "mate")
    system.tell("mate", "hello")
    mate.wait_for("hello")


def test_without_a_thread_for_the_others_they_wait_and_nothing_is_lost(system, monkeypatch, caplog):
    slow, other = start(system, "slow"), start(system, "other")
    system.tell("slow", "wait")
    assert slow.entered.wait(10)
    refused = threading.Event()

    def no_thread(_self):
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(crew.ActorThread, "start", no_thread)
    system.tell("other", "go on")
    assert refused.wait(10)
    slow.gate.set()
    other.wait_for("go on")
    monkeypatch.undo()
    assert slow.threads[0] is other.threads[0]
    assert "there is no thread for them" in caplog.text


def test_no_actor_ever_runs_on_two_threads_and_none_forgets_mail_however_often_they_are_relieved(system, monkeypatch):
    monkeypatch.setattr(crew, "RELIEF", 0.0002)
    rounds = 300

    class Busy(Mate):
        inside = 0

        def receive(self, message):
            self.inside += 1
            assert self.inside == 1
            if message % 7 == 0:
                self.gate.wait(0.0004)  # gives the thread away, for long enough to be relieved
            self.inside -= 1
            if message < rounds:
                self.tell(f"busy-{(int(self.name[5:]) + message) % 8}", message + 1)
            super().receive(message)

    busy = [start(system, f"busy-{n}", Busy) for n in range(8)]
    for mate in busy:
        mate.changed = busy[0].changed
    for n in range(8):
        system.tell(f"busy-{n}", 1)
    busy[0].wait_until(lambda: sum(len(mate.handled) for mate in busy) == 8 * rounds)
    assert len({thread for mate in busy for thread in mate.threads}) > 3  # there were reliefs
    assert all(system.actor(mate.name) is mate for mate in busy)
