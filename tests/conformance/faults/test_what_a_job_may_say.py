"""Whoever adds a job decides what is asked, and nothing about where it goes, as whom, or with which headers."""

import json

import pytest
from fault_acts import answers
from fault_bodies import NAMES, WIRES
from fault_server import FaultServer

from callboard import Config, JobQueue, Supervisor
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import RetrySettings

KEY = "sk-planted-0123456789abcdef"
PATIENCE = 30.0


@pytest.fixture
def servers():
    """The provider's, which writes down what it is sent, and one where a job would like to send it."""
    heads = {}

    def acting(wire):
        async def act(peer):
            heads.setdefault(wire, []).append((peer.head.decode(), json.loads(peer.body)))
            await answers(peer, wire)

        return act

    good = FaultServer({wire: acting(wire) for wire in NAMES}, {})
    other = FaultServer({}, {})
    yield good, other, heads
    good.close()
    other.close()


def test_a_job_chooses_no_address_header_or_key(servers, tmp_path, monkeypatch, until):
    good, other, heads = servers
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", "sk-other-0123456789abcdef")
    elsewhere = f"http://127.0.0.1:{other.ports['http']}/{NAMES[0]}/v1"
    providers = {
        wire: ProviderSettings(
            name=wire,
            wire=wire,
            base_url=f"http://127.0.0.1:{good.ports['http']}/{wire}{WIRES[wire].BASE}",
            key_env="THE_KEY",
        )
        for wire in NAMES
    }
    config = Config(
        database=f"sqlite:///{tmp_path}/board.db",
        providers=providers,
        retries=RetrySettings(base=0.001, cap=0.002),
        poll_interval=0.02,
    )
    tried = {
        "base_url": elsewhere,
        "api_base": elsewhere,
        "api_key": "sk-mine-0123456789abcdef",
        "key_env": "OTHER_KEY",
        "headers": {"x-mine": "1"},
        "extra_headers": {"x-mine": "1"},
        "proxy": elsewhere,
        "wire": "ollama",
        "timeout": 0,
    }
    models = [
        f"{wire}:{name}" for wire in NAMES for name in ("m", "../../x", "m?alt=x&key=y#z", "m\r\nx-mine: 1", elsewhere)
    ]
    with JobQueue(config.database, poll_interval=0.01) as board:
        jobs = [board.add("chat", {"prompt": "hi", "extra": tried}, model=model, max_attempts=1) for model in models]
        refused = [
            board.add("chat", {"prompt": "hi", name: value}, model="ollama:m", max_attempts=1)
            for name, value in tried.items()
        ]
        nowhere = board.add("chat", {"prompt": "hi"}, model=f"{elsewhere}:m", max_attempts=1)
        with Supervisor(config):
            for job in (*jobs, *refused):
                job.wait(PATIENCE)
            until(lambda: "is not configured" in (nowhere.row().held_by or ""))
        assert {job.row().state for job in refused} == {"failed"}, "a field that is not known is refused"
        assert jobs[0].row().state == "completed"
    assert sorted(heads) == sorted(NAMES)
    for wire, told in heads.items():
        for head, body in told:
            assert head.split(" ")[1].partition("?")[0].startswith(f"/{wire}/"), head
            assert ".." not in head.split(" ")[1]
            assert KEY in head
            assert "sk-mine" not in head
            assert "sk-other" not in head + json.dumps(body)
            assert "x-mine" not in [line.partition(":")[0].lower() for line in head.split("\r\n")]
    assert sum(other.seen.values()) == 0
