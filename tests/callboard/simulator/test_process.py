"""The simulator as a process: it announces itself, ends when told, never outlives its parent, and its journal survives."""

import os
import select
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from callboard.simulator import Simulator, SimulatorConfig, read_journal, spawn_simulator
from callboard.simulator.arguments import config_from, parser, to_arguments

CALL = {"model": "m-1", "messages": [{"role": "user", "content": "Cats sleep."}]}
COMMAND = [sys.executable, "-m", "callboard.simulator"]


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


def test_a_child_answers_and_stops_with_code_0(tmp_path):
    with spawn_simulator(SimulatorConfig(rpm=7, keys=("k",))) as child:
        assert child.pid != os.getpid()
        reply = httpx.post(f"{child.url}/v1/chat/completions", json=CALL, headers={"authorization": "Bearer k"})
        assert reply.headers["x-ratelimit-limit-requests"] == "7"
        assert child.stop() == 0
    assert child.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0_in_the_middle_of_a_stream(number):
    process = subprocess.Popen([*COMMAND, "--fault=stall:n=0"], stdout=subprocess.PIPE)
    url = first_line(process).strip()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json={**CALL, "stream": True}):
        process.send_signal(number)
        assert process.wait(10) == 0
    assert process.communicate()[0] == b""


def test_it_ends_with_its_parent_however_that_dies():
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from callboard.simulator import spawn_simulator; child = spawn_simulator(); print(child.pid, flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    pid = int(first_line(parent))
    watched = os.pidfd_open(pid)
    try:
        parent.kill()
        parent.communicate()
        ready, _, _ = select.select([watched], [], [], 10)
        assert ready, "the simulator outlived its parent"
    finally:
        os.close(watched)


def test_a_taken_port_and_a_wrong_setting_are_errors_with_a_reason():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [*COMMAND, f"--port={taken.getsockname()[1]}"], capture_output=True, text=True, check=False, timeout=20
        )
    assert done.returncode == 2
    assert "address already in use" in done.stderr.lower()
    done = subprocess.run([*COMMAND, "--rpm=0"], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'rpm' must be above 0" in done.stderr


def test_a_child_that_cannot_start_is_reported(capfd):
    with pytest.raises(RuntimeError, match="exit code 2"):
        spawn_simulator(SimulatorConfig(faults=({"fault": {"kind": "no"}},)))
    assert "fault.kind" in capfd.readouterr().err


def test_a_port_that_is_taken_is_an_error_in_a_thread_too():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Simulator(SimulatorConfig(port=taken.getsockname()[1])).start()


def test_the_journal_file_tells_the_arrival_of_a_request_whose_server_was_killed(tmp_path):
    path = tmp_path / "journal.jsonl"
    process = subprocess.Popen([*COMMAND, f"--journal={path}", "--fault=stall:n=0,after=1"], stdout=subprocess.PIPE)
    url = first_line(process).strip()
    with httpx.Client() as client:
        client.post(f"{url}/v1/chat/completions", json=CALL, headers={"authorization": "Bearer secret-key"})
        with client.stream("POST", f"{url}/v1/chat/completions", json={**CALL, "stream": True}):
            process.kill()
            process.communicate()
    assert "secret-key" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = read_journal(path)
    assert (first["outcome"], first["status"], first["body"], first["run"]) == ("completed", 200, CALL, 1)
    assert (second["n"], second["outcome"], second["ended_at"]) == (2, None, None)
    path.write_bytes(path.read_bytes()[:-5])  # the line that a kill cut short
    assert len(read_journal(path)) == 1
    with Simulator(SimulatorConfig(journal=path)) as again:
        httpx.get(f"{again.url}/v1/models")
    assert [(entry["run"], entry["n"]) for entry in read_journal(path)] == [(1, 1), (2, 1)]


def test_settings_survive_the_way_through_flags(tmp_path):
    config = SimulatorConfig(
        port=1,
        keys=("a", "-b"),
        models=("m",),
        rpm=2,
        tpm=3,
        input_tpm=4,
        output_tpm=5,
        concurrency=6,
        window_seconds=7.5,
        latency=0.25,
        tokens_per_second=8.5,
        default_max_tokens=9,
        journal=tmp_path / "j",
    )
    assert config_from(parser().parse_args(to_arguments(config))) == config
    rule = {"match": {"model": "m"}, "times": 1, "after": 2, "fault": {"kind": "cut", "n": 3}}
    found = config_from(parser().parse_args(to_arguments(SimulatorConfig(faults=(rule,)))))
    assert found.faults == (rule,)


@pytest.mark.parametrize(
    "settings", [{"rpm": 0}, {"latency": -1}, {"port": 70_000}, {"tokens_per_second": float("inf")}]
)
def test_a_setting_out_of_range_is_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        SimulatorConfig(**settings)
