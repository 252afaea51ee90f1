"""Every life ends in exactly one `Down`, with its reason, on every path; mail and asks of the dead are answered; bystanders live."""

import asyncio
import threading

import pykka
import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.ask import ask
from callboard.actors.kernel.errors import ActorUnavailableError
from callboard.actors.kernel.messages import Crashed, Down, Normal, Shutdown, Started, StartFailed

ERRORS = [ValueError, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit]


class Owner(Actor):
    """Collects what it is told about its children."""

    def __init__(self, system):
        super().__init__(system)
        self.told = []
        self.changed = threading.Condition()

    def receive(self, message):
        with self.changed:
            self.told.append(message)
            self.changed.notify_all()

    def wait_for(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.told), 5), self.told
            return list(self.told)


class Bystander(pykka.ThreadingActor):
    """A host's own actor, which is none of our business."""

    use_daemon_thread = True

    def on_receive(self, message):
        return message


class Child(Actor):
    def __init__(self, system, fails_in=None, error=ValueError):
        super().__init__(system)
        self.fails_in = fails_in
        self.error = error
        self.hooks = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def run(self, hook):
        self.hooks.append(hook)
        if hook == self.fails_in:
            raise self.error("on purpose")

    def on_start(self):
        self.run("on_start")

    def on_stop(self):
        self.run("on_stop")

    def on_failure(self, *exc_info):
        assert exc_info[1] is not None
        self.run("on_failure")
        if self.fails_in == "receive+on_failure":
            raise self.error("on purpose, again")

    def after_batch(self):
        self.run("after_batch")

    def receive(self, message):
        match message:
            case "wait":
                self.entered.set()
                assert self.gate.wait(5)
            case "exit":
                self.exit()
            case "fail":
                raise self.error("on purpose")
            case _:
                self.run("receive")


@pytest.fixture(autouse=True, params=[False, True], ids=["own thread", "shared thread"])
def thread(request, monkeypatch):
    monkeypatch.setattr(Child, "shares_thread", request.param)


@pytest.fixture
def owner(system):
    system.start_actor("owner", lambda: Owner(system))
    return system.actor("owner")


@pytest.fixture
def bystander():
    reference = Bystander.start()
    yield reference
    assert reference.ask("still here", timeout=5) == "still here"
    reference.stop(timeout=5)


def start(system, **arguments):
    child = Child(system, **arguments)
    reference = system.start_actor("child", lambda: child, owner="owner")
    return child, reference


def the_down(owner, system):
    told = owner.wait_for(lambda told: any(isinstance(m, Down) for m in told))
    assert system.wait_ended("child", 5)
    told = owner.wait_for(bool)
    downs = [m for m in told if isinstance(m, Down)]
    assert len(downs) == 1
    assert (downs[0].child, downs[0].generation) == ("child", 1)
    return downs[0]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "path", ["on_start", "receive", "after_batch", "on_stop", "on_failure", "receive+on_failure", "ask"]
)
def test_one_down_with_the_reason_on_every_failing_path(system, owner, bystander, path, error):
    child, reference = start(system, fails_in=path, error=error)
    match path:
        case "on_start":
            pass
        case "receive" | "after_batch":
            system.tell("child", "go")
        case "on_stop":
            reference.stop(timeout=5)
        case "on_failure" | "receive+on_failure":
            system.tell("child", "fail")
        case "ask":
            with pytest.raises(error):
                reference.ask("fail", timeout=5)
    down = the_down(owner, system)
    assert isinstance(down.reason, StartFailed if path == "on_start" else Crashed)
    assert down.reason.error == f"{error.__name__}: on purpose"
    assert type(down.reason.exception) is error
    assert "Traceback" in down.reason.traceback
    assert ("on_stop" in child.hooks) == (path == "on_stop")
    assert ("on_failure" in child.hooks) == (path != "on_stop")
    assert not reference.is_alive()
    assert reference not in pykka.ActorRegistry.get_all()
    assert not system.tell("child", "late")
    with pytest.raises(pykka.ActorDeadError):
        reference.ask("late", timeout=5)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("exit", Normal()), ("self.stop", Normal()), ("ref.stop", Shutdown()), ("stop_actor", Shutdown())],
)
def test_one_down_on_every_clean_path(system, owner, how, reason):
    child, reference = start(system)
    match how:
        case "exit":
            system.tell("child", "exit")
        case "self.stop":
            child.stop()
        case "ref.stop":
            assert reference.stop(timeout=5) is True
        case "stop_actor":
            assert system.stop_actor("child")
    assert the_down(owner, system) == Down("child", 1, reason)
    assert child.hooks[0] == "on_start"
    assert child.hooks[-1] == "on_stop"
    assert "on_failure" not in child.hooks


def test_started_comes_before_down(system, owner):
    start(system)
    system.stop_actor("child")
    the_down(owner, system)
    assert [type(m) for m in owner.told] == [Started, Down]


def test_a_stop_overtakes_mail_that_waits_which_is_refused(system, owner):
    child, reference = start(system)
    system.tell("child", "wait")
    assert child.entered.wait(5)
    for _ in range(100):
        system.tell("child", "late")
    asked = reference.ask("late", block=False)
    stopped = reference.stop(block=False)
    child.gate.set()
    assert stopped.get(timeout=5) is True
    assert "receive" not in child.hooks
    with pytest.raises(pykka.ActorDeadError):
        asked.get(timeout=5)
    assert system.dead_letters.counts() == {"str": 101}


def test_an_ask_by_promise_that_waits_when_the_actor_ends_is_answered(system):
    class Query:
        def __init__(self, reply_to):
            self.reply_to = reply_to

    child = Child(system)
    system.start_actor("child", lambda: child)
    system.tell("child", "wait")
    assert child.entered.wait(5)
    answers = []

    def edge():
        try:
            ask(system, "child", Query, 5)
        except ActorUnavailableError as error:
            answers.append(str(error))

    asking = threading.Thread(target=edge)
    asking.start()
    while not child.inbox.waiting:
        assert asking.is_alive()
    system.stop_actor("child")
    child.gate.set()
    asking.join(5)
    assert answers == ["'child' ended before it handled Query"]


def test_the_batch_hook_runs_before_on_stop_when_mail_was_handled(system, owner):
    child, _ = start(system)
    system.tell("child", "wait")
    assert child.entered.wait(5)
    system.tell("child", "more")
    system.stop_actor("child")
    child.gate.set()
    the_down(owner, system)
    assert child.hooks == ["on_start", "after_batch", "on_stop"]


def test_a_draining_actor_handles_what_waits_in_one_batch_before_it_stops(system, owner):
    class Draining(Child):
        drains_before_stop = True

    child = Draining(system)
    system.start_actor("child", lambda: child, owner="owner")
    system.tell("child", "wait")
    assert child.entered.wait(5)
    for _ in range(5):
        system.tell("child", "more")
    system.stop_actor("child")
    child.gate.set()
    assert the_down(owner, system).reason == Shutdown()
    assert child.hooks == ["on_start", *["receive"] * 5, "after_batch", "on_stop"]
    assert system.dead_letters.total() == 0


def test_a_draining_actor_that_crashes_refuses_the_rest(system, owner):
    class Draining(Child):
        drains_before_stop = True

    child = Draining(system)
    reference = system.start_actor("child", lambda: child, owner="owner")
    system.tell("child", "wait")
    assert child.entered.wait(5)
    system.tell("child", "fail")
    asked = reference.ask("more", block=False)
    system.stop_actor("child")
    child.gate.set()
    assert isinstance(the_down(owner, system).reason, Crashed)
    with pytest.raises(pykka.ActorDeadError):
        asked.get(timeout=5)


def test_a_crash_of_an_actor_without_owner_is_logged_and_told_to_the_root_hook(make_system, caplog):
    told = []
    done = threading.Event()
    system = make_system(on_root_exit=lambda down: (told.append(down), done.set()))
    system.start_actor("child", lambda: Child(system))
    system.tell("child", "fail")
    assert done.wait(5)
    assert [(d.child, d.reason.error) for d in told] == [("child", "ValueError: on purpose")]
    assert "on purpose" in caplog.text


def test_children_of_an_owner_that_crashed_end_with_it(system):
    system.start_actor("owner", lambda: Child(system))
    system.start_actor("child", lambda: Child(system), owner="owner")
    child = system.directory.find("child")
    system.tell("owner", "fail")
    assert system.wait_ended("owner", 5)
    assert child.finished.wait(5)
    assert system.directory.find("child") is None


def test_an_abandoned_life_sends_its_down_at_once_and_its_thread_is_reported_when_it_returns(system, owner):
    child, reference = start(system)
    old = system.directory.find("child")
    system.tell("child", "wait")
    assert child.entered.wait(5)
    late = reference.ask("late", block=False)
    assert system.abandon("child", 1, Crashed("given up"))
    assert not system.abandon("child", 1, Crashed("given up"))
    owner.wait_for(lambda told: Down("child", 1, Crashed("given up")) in told)
    with pytest.raises(pykka.ActorDeadError):
        late.get(timeout=5)
    replacement = Child(system)
    system.start_actor("child", lambda: replacement, owner="owner")  # the name is free
    assert replacement.generation == 2
    child.gate.set()
    assert old.finished.wait(5)
    told = owner.wait_for(lambda told: any(type(m).__name__ == "Unstuck" for m in told))
    assert len([m for m in told if isinstance(m, Down)]) == 1
    assert child.hooks[-1] == "on_stop"  # what it held is released
    assert system.directory.find("child").actor is replacement


def test_a_crash_after_the_reply_leaves_the_reply_as_it_is(system, owner):
    _, reference = start(system, fails_in="after_batch")
    assert reference.ask("go", timeout=5) is None
    assert isinstance(the_down(owner, system).reason, Crashed)


def test_what_a_hung_draining_actor_leaves_is_refused_when_it_is_given_up(system, owner):
    class Draining(Child):
        drains_before_stop = True
        go = threading.Event()

        def on_start(self):
            assert self.go.wait(5)

    child = Draining(system)
    reference = system.start_actor("child", lambda: child, owner="owner")
    life = child.life
    system.tell("child", "exit")
    system.tell("child", "wait")
    asked = reference.ask("more", block=False)
    child.go.set()
    assert child.entered.wait(5)  # it drains, and hangs
    assert system.abandon("child", 1, Crashed("given up"))
    with pytest.raises(pykka.ActorDeadError):
        asked.get(timeout=5)
    child.gate.set()
    assert life.finished.wait(5)
    assert "receive" not in child.hooks


def test_an_exception_that_cannot_be_shown_is_a_crash_like_any_other(system, owner):
    class UnspeakableError(Exception):
        def __str__(self):
            raise ValueError("no text")

    start(system, error=lambda _text: UnspeakableError())
    system.tell("child", "fail")
    assert the_down(owner, system).reason.error == "UnspeakableError: (its text cannot be shown)"


def test_a_failure_to_get_a_thread_leaves_nothing_behind(system, owner, monkeypatch):
    def no_thread(_life):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(system.scheduler, "start", no_thread)
    with pytest.raises(RuntimeError):
        start(system)
    monkeypatch.undo()
    assert system.directory.find("child") is None
    start(system)
    assert system.wait_ready("child", 5)
    assert not [m for m in owner.told if isinstance(m, Down)]
