"""Nothing may be left behind: no thread, no registered actor, no uncaught error of a thread."""

import threading

import pykka
import pytest

from callboard.actors.kernel.system import ActorSystem


@pytest.fixture(autouse=True)
def nothing_left_behind():
    threads = set(threading.enumerate())
    actors = set(pykka.ActorRegistry.get_all())
    uncaught = []
    hook, threading.excepthook = threading.excepthook, uncaught.append
    yield
    threading.excepthook = hook
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert not [t for t in threading.enumerate() if t not in threads], "threads left behind"
    assert not [a for a in pykka.ActorRegistry.get_all() if a not in actors], "registered actors left behind"
    assert not uncaught


@pytest.fixture
def make_system():
    systems = []

    def make(**arguments):
        systems.append(ActorSystem(**arguments))
        return systems[-1]

    yield make
    for system in systems:
        system.close(5)


@pytest.fixture
def system(make_system):
    return make_system()
