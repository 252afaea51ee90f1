"""A dead process is known to be dead; a living one is never taken for dead."""

import os
import stat
import subprocess
import sys

import pytest

from callboard.persistence import liveness
from callboard.persistence.liveness import OwnerLock, dead_owners, is_dead, lock_path, remove_dead

HOLDS = """
import sys, pathlib
from callboard.persistence.liveness import OwnerLock
lock = OwnerLock(pathlib.Path(sys.argv[1]), "child")
print("held", flush=True)
sys.stdin.read()
"""


def test_held_then_closed(path):
    lock = OwnerLock(path, "me")
    assert lock.held
    assert is_dead(path, "me") is False
    assert lock.path == lock_path(path, "me")
    assert lock.path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    assert not remove_dead(path, "me")
    lock.close()
    lock.close()
    assert is_dead(path, "me") is None
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_killed_process_is_dead_at_once(path):
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        assert is_dead(path, "child") is False
        assert dead_owners(path) == []
        child.kill()
        child.wait(30)
        assert is_dead(path, "child") is True
        assert dead_owners(path) == ["child"]
        assert remove_dead(path, "child")
        assert is_dead(path, "child") is None
    finally:
        child.kill()
        child.communicate()


def test_nothing_is_said_without_a_file_or_without_locks(path, monkeypatch):
    assert is_dead(path, "nobody") is None
    assert is_dead(None, "nobody") is None
    assert is_dead(path, "../x") is None
    monkeypatch.setattr(liveness, "_fcntl", None)
    lock = OwnerLock(path, "me")
    assert not lock.held
    assert is_dead(path, "me") is None
    lock.close()
    assert not OwnerLock(None, "me").held


@pytest.mark.parametrize("owner", ["", "a/b", "a\0b"])
def test_an_owner_is_a_file_name(path, owner):
    with pytest.raises(ValueError, match="file name"):
        OwnerLock(path, owner)
