"""A key that is easy to recognise goes through a whole company, and is then looked for everywhere: it must be nowhere.

Every provider here echoes what it was sent wherever it can: in errors, in headers, in the names that it gives to answers.
"""

import base64
import contextlib
import json
import logging
import os
import pickle
import stat
from pathlib import Path
from urllib.parse import quote

import pytest
from fault_bodies import NAMES, TEXT, WIRES, whole
from fault_server import FaultServer

from callboard import Config, JobQueue, Supervisor
from callboard.__main__ import run
from callboard.actors.batch_settings import BatchSettings
from callboard.actors.messages import provider_name
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings, RetrySettings
from callboard.simulator import Simulator, SimulatorConfig

KEYS = ("PLANTED7f3a9c0d5e8b", "sk-ant-PLANTED7f3a9c0d5e8b", "AIzaPLANTED7f3a9c0d5e8b0123456789abcdef")
"""One that is shaped like no key, and two that are."""
TRACE = "7f3a9c0d5e8b"
PATIENCE = 30.0
JSON = "content-type: application/json"


def head_of(peer):
    return peer.head.decode("latin-1")


def key_in(peer):
    return next(key for key in reversed(KEYS) if key in head_of(peer))


def headers(peer):
    """Every header that anything is read from."""
    key = key_in(peer)
    names = (
        "x-request-id",
        "request-id",
        "retry-after",
        "x-ratelimit-limit-requests",
        "anthropic-ratelimit-tokens-reset",
    )
    return [JSON, *(f"{name}: {key}" for name in names)]


def error(peer, **more):
    told = {"message": head_of(peer), "type": key_in(peer), "code": key_in(peer), "status": key_in(peer), **more}
    return json.dumps({"type": "error", "request_id": key_in(peer), "error": told}).encode()


async def good(peer, wire):
    """An answer that names itself, and its model, by the key."""
    named = json.dumps(key_in(peer)).encode()
    body = whole(wire)
    for told in (b'"id": "r"', b'"responseId": "r"', b'"model": "m1"', b'"modelVersion": "m1"'):
        body = body.replace(told, told.partition(b" ")[0] + b" " + named)
    await peer.stream(wire, body, headers=headers(peer)[1:])


async def tools(peer, wire):
    await peer.stream(wire, WIRES[wire].calls_stream([("call_1", "add", {"a": 2})]), headers=headers(peer)[1:])


def refuses(status):
    async def act(peer, wire):
        await peer.reply(error(peer), status, headers(peer))

    return act


async def page(peer, wire):
    await peer.reply(b"<pre>" + peer.head + b"</pre>", "502 Bad", ["content-type: text/html"])


async def redirect(peer, wire):
    await peer.reply(b"", "302 Found", [f"location: https://example.org/?key={key_in(peer)}"])


async def in_stream(peer, wire):
    await peer.open(wire)
    await peer.chunk(b"event: error\n" + (b"" if wire == "ollama" else b"data: ") + error(peer) + b"\n\n")
    await peer.send(b"0\r\n\r\n")


async def nonsense(peer, wire):
    """No HTTP: libraries like to quote what they could not read."""
    await peer.send(peer.head)
    peer.close()


async def broken_json(peer, wire):
    await peer.stream(
        wire, b'data: {"a": ' + key_in(peer).encode() + b"\n\n", headers=[f"x-request-id: {key_in(peer)}"]
    )


ACTS = {
    "good": good,
    "tools": tools,
    "401": refuses("401 No"),
    "400": refuses("400 No"),
    "404": refuses("404 No"),
    "429": refuses("429 Slow"),
    "500": refuses("500 Oh"),
    "502": page,
    "302": redirect,
    "stream": in_stream,
    "nonsense": nonsense,
    "json": broken_json,
}
ENDS_WAITING = ("401", "429")
ENDED = ("completed", "failed")


def forms(key):
    """The key as it might be written down."""
    raw = key.encode()
    return {
        raw,
        base64.b64encode(raw).rstrip(b"=")[:-1],
        raw.hex().encode(),
        quote(key).encode(),
        repr(raw).encode()[2:-1],
    }


def fails(job, ctx):
    raise RuntimeError(f"a host that puts its key into an exception: Authorization: Bearer {KEYS[1]}")


@pytest.fixture
def umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def company(tmp_path, monkeypatch, umask):
    """A company whose every provider echoes, and what it needs."""
    server = FaultServer({f"{wire}.{name}": acting(act, wire) for wire in NAMES for name, act in ACTS.items()}, {})
    providers, models = {}, {}
    for number, wire in enumerate(NAMES):
        for name in ACTS:
            told = f"{wire}.{name}"
            providers[told] = ProviderSettings(
                name=told,
                wire=wire,
                base_url=f"http://127.0.0.1:{server.ports['http']}/{told}{WIRES[wire].BASE}",
                key_env=f"PLANTED_{number % len(KEYS)}",
            )
            models[told] = ModelSettings(provider=told, model="m", max_output=100)
    for number, key in enumerate(KEYS):
        monkeypatch.setenv(f"PLANTED_{number}", key)
    with Simulator(SimulatorConfig(batch_seconds=0.3)) as simulator:
        providers["sim"] = ProviderSettings(
            name="sim", wire="openai-chat", base_url=f"{simulator.url}/v1", key_env="PLANTED_0"
        )
        models["sim"] = ModelSettings(provider="sim", model="m-1")
        yield Config(
            database=f"sqlite:///{tmp_path}/board.db",
            providers=providers,
            models=models,
            default_model="sim",
            retries=RetrySettings(base=0.001, cap=0.002),
            batch=BatchSettings(max_age=0.05, poll=0.02, poll_cap=0.05, find_after=0.2),
            poll_interval=0.02,
            park_after=0.2,
        )
    server.close()


def acting(act, wire):
    async def run(peer):
        await act(peer, wire)

    return run


def test_the_key_is_nowhere(company, tmp_path, caplog, capfd, monkeypatch, until):
    for name in ("", "callboard", "asyncio", "pykka", "httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, name)
    printed, searched, modes = [], {}, {}
    with JobQueue(company.database, poll_interval=0.01) as board:
        jobs = {
            name: board.add("chat", chat(name), model=name, max_attempts=2) for name in company.models if name != "sim"
        }
        others = [
            board.add("embed", {"input": "some text"}, model="sim:embedder"),
            *(board.add("chat", {"prompt": "hi"}, model="sim", options={"latency": "batch"}) for _ in range(2)),
            board.add("fails", {}, max_attempts=1),
        ]
        supervisor = Supervisor(company, handlers={"fails": fails})
        supervisor.start()
        try:
            # Files of batches come and go: whatever is seen of them is kept.
            until(lambda: keep(tmp_path, searched, modes) or all(job.row().state in ENDED for job in others))
            for name, job in jobs.items():
                if name.partition(".")[2] not in ENDS_WAITING:
                    job.wait(PATIENCE)
            until(lambda: all(ended(jobs[f"{wire}.{name}"]) for wire in NAMES for name in ENDS_WAITING))
            spilled = [pickle.dumps(company), repr(company).encode(), repr(supervisor.__dict__).encode()]
            crash(supervisor, provider_name("sim"), until)
            assert [job.row().state for job in others] == ["completed"] * 3 + ["failed"]
            assert jobs["openai-chat.good"].result["text"] == TEXT
            # While everything is open, the write-ahead log too.
            keep(tmp_path, searched, modes, everything=True)
            told = [
                json.dumps([job.row().state, job.error, [str(call) for call in job.calls()]], default=str)
                for job in jobs.values()
            ]
        finally:
            supervisor.stop(0.0)
        printed += commands(
            tmp_path,
            company,
            [
                jobs[f"{wire}.{name}"].id
                for wire, name in zip(NAMES, ("401", "500", "good", "stream", "302"), strict=True)
            ],
            capfd,
            monkeypatch,
        )
    logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records) + caplog.text
    assert "board.db-wal" in searched
    assert any(name.endswith(".jsonl") for name in searched), "the files of batches were seen too"
    assert len(printed) > 5
    places = {
        **searched,
        "log": logged.encode(),
        "jobs": "\n".join(told).encode(),
        "commands": "\n".join(printed).encode(),
        **{f"object {number}": data for number, data in enumerate(spilled)},
    }
    found = sorted(
        (place, quoted(data, form))
        for place, data in places.items()
        for key in KEYS
        for form in forms(key)
        if form in data
    )
    assert not found, "\n".join(map(str, found))
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def quoted(data, form):
    at = data.index(form)
    return data[max(0, at - 80) : at + len(form) + 20]


def chat(name):
    given = {"prompt": "Say something."}
    if name.endswith(".tools"):
        given["tools"] = [{"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}]
    return given


def keep(path, searched, modes, *, everything=False):
    """Note what is in the folder: the content and the mode of each file, and the mode of each folder."""
    for folder, folders, files in os.walk(path):  # which passes over what is gone by the time it is looked at
        for name in (*folders, *files):
            found = Path(folder) / name
            with contextlib.suppress(FileNotFoundError):
                modes[name] = stat.S_IMODE(found.stat().st_mode)
                if name in files and (everything or not name.startswith("board.db")):
                    searched[name] = found.read_bytes()


def ended(job):
    return any(call.state != "open" for call in job.calls())


def crash(supervisor, name, until):
    """An unknown message is a bug, and crashes its receiver, whose mailbox and state are then logged."""
    life = supervisor._system.directory.find(name)
    supervisor._system.tell(name, object())
    until(lambda: life.over)


def commands(path, company, ids, capfd, monkeypatch):
    """What the commands print about all of it."""
    monkeypatch.chdir(path)
    lines = [f'database = "{company.database}"', 'default_model = "openai-chat.good:m"']
    for name in ("openai-chat.good", "gemini.401", "anthropic-messages.500"):
        told = company.providers[name]
        lines += [
            f'[providers."{name}"]',
            f'wire = "{told.wire}"',
            f'base_url = "{told.base_url}"',
            f'key_env = "{told.key_env}"',
        ]
    (path / "callboard.toml").write_text("\n".join(lines))
    printed = []
    capfd.readouterr()
    for arguments in (
        ["doctor"],
        ["list", "--all"],
        ["stats"],
        ["limits"],
        ["costs"],
        ["events"],
        *(["show", str(one)] for one in ids),
    ):
        run(arguments)
        printed.append("".join(capfd.readouterr()))
    return printed
