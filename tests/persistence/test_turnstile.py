"""The queue before the write lock: turns, courtesy, and what it never does."""

import fcntl
import subprocess
import sys
import threading
import time

import pytest

from callboard.persistence.engine import open_database
from callboard.persistence.turnstile import Turnstile

SOON = 20.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "board.db"


def test_one_at_a_time_and_the_next_follows(path):
    first, second = Turnstile(path), Turnstile(path)
    assert first.enter(SOON)
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: second.enter(SOON) and entered.set())
    waiting.start()
    assert not Turnstile(path).enter(0.0)  # the gate or the slot is another's
    assert not entered.is_set()
    first.leave()
    waiting.join(SOON)
    assert entered.is_set()
    second.close()
    first.close()


def test_who_has_written_goes_behind_who_waits(path):
    """The flat-out writer asks again the moment it has left; the patient one, who stood at the gate, is before it."""
    flat_out, patient = Turnstile(path), Turnstile(path)
    assert flat_out.enter(SOON)
    order = []

    def wait() -> None:
        assert patient.enter(SOON)
        order.append("patient")
        patient.close()

    waiting = threading.Thread(target=wait)
    waiting.start()
    probe = path.with_name("board.db.gate").open("rb")
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            break  # the patient one stands there
        fcntl.flock(probe, fcntl.LOCK_UN)
    flat_out.leave()
    assert flat_out.enter(SOON)
    order.append("flat out")
    waiting.join(SOON)
    assert order == ["patient", "flat out"]
    probe.close()
    flat_out.close()


def test_a_turn_ends_with_its_process_however_it_ends(path):
    script = (
        "import sys; from pathlib import Path; from callboard.persistence.turnstile import Turnstile;"
        "held = Turnstile(Path(sys.argv[1])); print(held.enter(1), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "True\n"
        mine = Turnstile(path)
        assert not mine.enter(0.0)
        child.kill()
        child.wait(SOON)
    assert mine.enter(SOON)
    mine.close()


def test_without_it_sqlite_decides(tmp_path):
    """A writer that stands still with the slot, and a place where its files cannot be: the write goes on without a turn."""
    database = open_database(f"sqlite:///{tmp_path / 'board.db'}", busy_timeout=0.05)
    still = Turnstile(tmp_path / "board.db")
    assert still.enter(SOON)
    with database.connect() as connection:
        with connection.write():
            connection.script("INSERT INTO llm_jobs (type) VALUES ('a')")
        assert connection.script("SELECT count(*) FROM llm_jobs") == [(1,)]
    still.close()
    assert not Turnstile(tmp_path / "nowhere" / "board.db").enter(SOON)


def test_every_end_of_a_transaction_gives_the_turn_back(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'board.db'}")
    other = Turnstile(tmp_path / "board.db")
    with database.connect() as connection:
        with connection.write():
            assert not other.enter(0.0)
        assert other.enter(0.0)
        other.leave()
        with pytest.raises(ZeroDivisionError), connection.write():
            raise ZeroDivisionError
        assert other.enter(0.0)
        other.close()
