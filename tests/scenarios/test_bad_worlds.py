"""Databases and providers that cannot be used: the worker says what is wrong and where, and no job is lost."""

import json
import os
import resource
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from callboard.actors.providers.settings import ProviderSettings
from callboard.persistence.engine import driver

EXIT_CONFIG = 78
PLAIN_USER = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search,-fowner",
    "--inh-caps=-dac_override,-dac_read_search,-fowner",
]
"""Root may write what is read-only; without these capabilities it may not."""


def read_only_file(world: Any) -> None:
    world.queue.counts()
    world.queue.close()
    world.path.chmod(0o400)


def read_only_directory(world: Any) -> None:
    world.queue.counts()
    world.queue.close()
    world.directory.chmod(0o500)


def directory_without_a_database(world: Any) -> None:
    world.directory.chmod(0o500)


def no_directory(world: Any) -> None:
    world.path = world.directory / "missing" / "board.db"


def not_a_database(world: Any) -> None:
    world.path.write_text("Dear diary, today I was not a database. " * 100)


def damaged(world: Any) -> None:
    world.add_chats(20)
    world.queue.close()
    with closing(driver.connect(str(world.path))) as board:
        board.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with world.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xaa" * 4000)


def newer(world: Any) -> None:
    world.queue.counts()
    world.queue.close()
    with closing(driver.connect(str(world.path), isolation_level=None)) as board:
        board.execute("UPDATE llm_schema_version SET version_num = '9999'")


def no_version(world: Any) -> None:
    with closing(driver.connect(str(world.path), isolation_level=None)) as board:
        board.execute("CREATE TABLE llm_jobs (id INTEGER PRIMARY KEY)")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (read_only_file, "may not be written by this user"),
        pytest.param(read_only_directory, "may not be written by this user", marks=pytest.mark.soak),
        (directory_without_a_database, "no permission to create"),
        pytest.param(no_directory, "is not a directory", marks=pytest.mark.soak),
        (not_a_database, "is not a database or is damaged"),
        pytest.param(damaged, "is not a database or is damaged", marks=pytest.mark.soak),
        (newer, "tables of version 9999, this release knows up to"),
        pytest.param(no_version, "not a board, or a damaged one", marks=pytest.mark.soak),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_database_that_cannot_be_used_is_named_with_the_reason(
    world: Any, spoil: Callable[[Any], None], says: str
) -> None:
    spoil(world)
    before = world.path.read_bytes() if world.path.exists() else None
    wrapper = PLAIN_USER if os.geteuid() == 0 else []
    try:
        worker = world.start(world.config(world.simulate()), wrapper=wrapper)
        code = worker.wait()
    finally:
        world.directory.chmod(0o700)
    assert code == EXIT_CONFIG, worker.log
    assert len(worker.log) == 1, worker.log
    assert worker.log[0].startswith("callboard: error: ")
    assert says in worker.log[0]
    assert str(world.path if says != "is not a directory" else world.path.parent) in worker.log[0]
    assert (world.path.read_bytes() if world.path.exists() else None) == before


def test_a_board_that_a_stranger_has_locked_is_waited_for(world: Any) -> None:
    simulator = world.simulate()
    world.add_chats(3)
    with closing(driver.connect(str(world.path), isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        worker = world.start(world.config(simulator))
        worker.wait_ready()
        assert simulator.journal() == []
        stranger.execute("COMMIT")
    world.wait_all_ended()
    assert worker.stop() == 0
    assert not worker.sees("locked")
    world.assert_sound()


@pytest.mark.soak
def test_a_board_locked_for_longer_than_the_busy_timeout_is_reported_and_waited_for(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "barrier", "n": 3}},))
    world.add_chats(3)
    worker = world.start(world.config(simulator))
    with closing(driver.connect(str(world.path), isolation_level=None)) as stranger:
        worker.wait_ready()
        stranger.execute("BEGIN IMMEDIATE")
        line = worker.wait_for("has been locked by another program for 10 s")
        assert str(world.path) in line
        stranger.execute("COMMIT")
    worker.wait_for("the database works again; nothing was lost")
    world.wait_all_ended()
    assert worker.stop() == 0
    assert world.completed() == 3
    world.assert_sound()
    world.assert_paid_once(simulator)


def test_a_disk_that_is_full_for_a_while_loses_nothing(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "barrier", "n": 4}, "times": 4},))
    world.add_chats(12)
    worker = world.start(world.config(simulator, runners=4))
    simulator.wait_for(lambda journal: len(journal) == 3 or len(journal) == 4, 30.0)
    unlimited = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))  # every write to a file now fails
    simulator.clear_faults()
    line = json.loads(worker.wait_for("waiting for it to work again, nothing is lost meanwhile"))
    assert str(world.path) in line["message"]
    world.until(lambda: simulator.stats()["in_flight"] == 0, "the calls in flight have been answered")
    assert world.completed() < 12
    assert len(simulator.journal()) <= 4  # without its ledger it makes no call
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, unlimited)
    worker.wait_for("the database works again; nothing was lost")
    world.wait_all_ended()
    assert world.completed() == 12
    assert len(simulator.journal()) == 12  # also the answers that arrived meanwhile were kept
    assert world.rows("SELECT sum(failures), sum(losses) FROM llm_jobs") == [(0, 0)]
    assert worker.stop() == 0
    world.assert_sound()
    world.assert_paid_once(simulator)


@pytest.mark.soak
def test_a_worker_stopped_while_the_disk_is_full_ends_and_the_next_takes_over(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "barrier", "n": 5}, "times": 4},))
    world.add_chats(8)
    worker = world.start(world.config(simulator, runners=4, drain_timeout=0.5, lease_ttl=3.0))
    simulator.wait_for(lambda journal: len(journal) == 4, 30.0)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    worker.wait_for("waiting for it to work again")
    assert worker.stop() == 0
    assert world.rows("SELECT state, count(*) FROM llm_jobs GROUP BY state") == [("active", 4), ("waiting", 4)]
    simulator.clear_faults()
    heir = world.start(world.config(simulator), options=["--once"])
    assert heir.wait() == 0, heir.log
    assert world.completed() == 8
    reasons = world.rows("SELECT reason FROM llm_job_transitions WHERE from_state = 'active' AND to_state = 'waiting'")
    assert all(reason.startswith("the process that ran it died") for (reason,) in reasons)  # at once, not by its lease
    assert world.rows("SELECT sum(losses), sum(failures) FROM llm_jobs") == [(4, 0)]
    world.assert_sound()
    world.assert_paid_once(simulator)


def closed_port(world: Any) -> str:
    simulator = world.simulate()
    simulator.stop()
    return simulator.url


def test_a_provider_that_cannot_be_reached_fails_the_job_with_its_name(world: Any) -> None:
    provider = ProviderSettings(name="nowhere", wire="openai-chat", base_url=closed_port(world) + "/v1")
    job = world.queue.add("chat", {"prompt": "Is anybody there?"}, max_attempts=2)
    worker = world.start(world.config(provider), options=["--once"])
    assert worker.wait() == 0, worker.log
    row = job.row()
    assert (row.state, row.failures, row.attempt) == ("failed", 2, 2)
    assert job.error["class"] == "connect"
    assert "provider 'nowhere'" in job.error["message"]
    assert provider.base_url.split("/")[2] in job.error["message"]
    world.assert_sound()


@pytest.mark.parametrize("key", [None, "sk-invented-for-this-test-0123456789"], ids=["missing", "wrong"])
def test_without_the_right_key_a_job_waits_and_says_which_variable_is_meant(world: Any, key: str | None) -> None:
    simulator = world.simulate(keys=("right",))
    provider = ProviderSettings(
        name="locked", wire="openai-chat", base_url=f"{simulator.url}/v1", key_env="SCENARIO_KEY"
    )
    job = world.queue.add("chat", {"prompt": "May I come in?"}, max_attempts=1)
    config = world.config(provider, park_after=0.2)
    worker = world.start(config, env={} if key is None else {"SCENARIO_KEY": key})
    held = world.until(lambda: (row := job.row()).held_by and row, "the job is held")
    assert (held.state, held.failures, held.losses) == ("waiting", 0, 0)
    assert held.deferrals >= 1
    why = job.why()
    assert "provider 'locked'" in why
    assert "environment variable SCENARIO_KEY" in why
    assert len(simulator.journal()) == (0 if key is None else 1)  # it does not knock again and again
    assert worker.stop() == 0
    assert not worker.sees("sk-invented")
    assert b"sk-invented" not in world.path.read_bytes()
    world.assert_sound()
