"""`callboard batches`, and `--batch` of `add` and `map`."""

import json

import pytest

from callboard import JobQueue, Supervisor
from callboard.config import load_config


def test_batches_are_listed_and_shown_with_their_jobs(cli, provider, here):
    config = here / "callboard.toml"
    config.write_text(config.read_text() + "[batch]\nmax_age = 600.0\n")
    assert cli("add", "chat", "--prompt", "Hello. There.", "--batch", "--deadline", 86400 * 7).code == 0
    assert "no batch is under way" in cli("batches").err
    with Supervisor(load_config()), JobQueue("callboard.db", poll_interval=0.01) as queue:
        next(event for event in queue.events(follow=True) if event.job_id == 1 and event.to_state == "waiting_children")
    (listed,) = [json.loads(line) for line in cli("batches", "--json").out.splitlines()]
    assert (listed["kind"], listed["state"], listed["requests"], listed["members"]) == (
        "batch",
        "open",
        1,
        {"waiting": 1},
    )
    assert "open" in cli("batches").out.splitlines()[1]
    shown = json.loads(cli("show", 1, "--json").out)
    assert shown["batches"][0]["batch"] == listed["batch"]
    assert "goes with others" not in shown["why"]
    assert f"batch {listed['batch']} at local is open" in shown["why"]
    assert "step chat: waiting in batch" in cli("show", 1).out


def test_a_deadline_goes_with_a_batch(cli):
    result = cli("add", "chat", "--prompt", "x", "--deadline", 5)
    assert (result.code, "--deadline: goes with --batch" in result.err) == (2, True)


@pytest.mark.soak
def test_rows_are_mapped_by_batch(cli, provider, here):
    config = here / "callboard.toml"
    config.write_text(config.read_text() + "[batch]\nmax_age = 0.2\npoll = 0.05\npoll_cap = 0.05\n")
    (here / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"Row {n}. Is a row."}) for n in range(5)))
    result = cli("map", "rows.jsonl", "--prompt", "{text}", "--batch", "--yes", "-o", "out.jsonl")
    assert result.code == 0, result.err
    assert len((here / "out.jsonl").read_text().splitlines()) == 5
    assert len(provider.batches()) == 1
