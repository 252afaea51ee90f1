"""Calls that the provider goes on with: a worker killed in the middle of one, and the next takes it up instead of paying again."""

import json
import signal
import urllib.request
from typing import Any

import pytest

from callboard.actors.providers.settings import ProviderSettings

PROMPT = "Cats sleep all the day long, and in the night they sit on the wall and sing to the moon."
PACE = 20.0
"""Tokens a second: the answer of this prompt takes a second."""


def provider(simulator: Any, **more: Any) -> ProviderSettings:
    return ProviderSettings(
        name="sim", wire="openai-responses", base_url=f"{simulator.url}/v1", background=True, **more
    )


def asked(simulator: Any) -> list[tuple[str, str]]:
    """What the provider was asked: (path, answered or how it ended)."""
    return [(entry["path"], entry["outcome"]) for entry in simulator.journal()]


def posts(simulator: Any) -> int:
    return sum(entry["path"] == "/v1/responses" for entry in simulator.journal())


def ledger(world: Any) -> list[Any]:
    return world.rows("SELECT state, origin, requests, input_uncached > 0, cost > 0 FROM llm_calls ORDER BY id")


def wait_for_handle(world: Any) -> str:
    """Until the call can be taken up, and some of its text was seen."""
    found = world.until(
        lambda: world.rows(
            "SELECT handle FROM llm_calls WHERE handle IS NOT NULL AND EXISTS (SELECT 1 FROM llm_job_chunks)"
        ),
        "a handle and a piece of the answer are on disk",
    )
    return str(json.loads(found[0][0])["ref"])


@pytest.mark.parametrize("on_unknown", ["park", pytest.param("retry", marks=pytest.mark.soak)])
def test_a_worker_killed_in_the_middle_pays_once(world: Any, on_unknown: str) -> None:
    simulator = world.simulate(tokens_per_second=PACE)
    config = world.config(provider(simulator), lease_ttl=30.0)
    job = world.queue.add(
        "chat", {"prompt": PROMPT, "max_output": 100}, options={"on_unknown": on_unknown, "budget": 0.001}
    )
    worker = world.start(config)
    ref = wait_for_handle(world)
    worker.kill()
    assert ledger(world)[0][0] == "open"

    again = world.start(config)
    world.wait_all_ended()
    assert again.stop() == 0
    assert job.refresh().state == "completed", job.error
    assert job.result["text"] == PROMPT
    assert posts(simulator) == 1
    assert asked(simulator) == [("/v1/responses", "aborted_by_client"), (f"/v1/responses/{ref}", "completed")]
    assert ledger(world) == [("completed", "resumed", 1, 1, 1)]
    # What was reserved for it stayed so through the kill, and is settled once.
    cost = world.rows("SELECT cost FROM llm_calls")[0][0]
    assert world.rows("SELECT DISTINCT spent, reserved FROM llm_budget_usage") == [(cost, 0)]
    epochs = world.rows(
        "SELECT epoch, group_concat(text, '') FROM (SELECT * FROM llm_job_chunks ORDER BY seq) GROUP BY epoch"
    )
    assert epochs[-1][1] == PROMPT  # a reader of the second attempt has it whole
    world.assert_sound()


@pytest.mark.soak
def test_one_that_the_provider_forgot_is_made_anew(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=PACE)
    config = world.config(provider(simulator))
    job = world.queue.add("chat", {"prompt": PROMPT})
    worker = world.start(config)
    ref = wait_for_handle(world)
    worker.kill()
    forget = urllib.request.Request(f"{simulator.url}/v1/responses/{ref}", method="DELETE")
    urllib.request.urlopen(forget).close()

    again = world.start(config)
    world.wait_all_ended()
    assert again.stop() == 0
    assert job.refresh().result["text"] == PROMPT
    assert posts(simulator) == 2
    assert [row[0] for row in ledger(world)] == ["unknown", "completed"]  # the first may have been billed
    assert world.rows("SELECT failures FROM llm_jobs") == [(0,)]  # no attempt of the job was used up by it
    world.assert_sound()


def test_a_worker_that_is_stopped_leaves_it_to_the_next(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=PACE)
    config = world.config(provider(simulator), drain_timeout=0.05)
    job = world.queue.add("chat", {"prompt": PROMPT})
    worker = world.start(config)
    wait_for_handle(world)
    assert worker.stop() == 0
    assert world.rows("SELECT state, error_class FROM llm_calls") == [("unknown", "cancelled")]

    again = world.start(config)
    world.wait_all_ended()
    assert again.stop() == 0
    assert job.refresh().result["text"] == PROMPT
    assert posts(simulator) == 1
    assert not any(path.endswith("/cancel") for path, _ in asked(simulator))
    assert ledger(world) == [("completed", "resumed", 1, 1, 1)]


def test_a_job_that_is_cancelled_ends_it_at_the_provider(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=PACE)
    job = world.queue.add("chat", {"prompt": PROMPT})
    worker = world.start(world.config(provider(simulator)))
    ref = wait_for_handle(world)
    job.cancel("not wanted any more")
    simulator.wait_for(lambda _: (f"/v1/responses/{ref}/cancel", "completed") in asked(simulator))
    assert worker.stop() == 0
    assert posts(simulator) == 1


@pytest.mark.soak
def test_a_worker_that_slept_over_its_lease_spoils_nothing(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=PACE / 3)
    config = world.config(provider(simulator), lease_ttl=1.0)
    job = world.queue.add("chat", {"prompt": PROMPT})
    sleeper = world.start(config)
    wait_for_handle(world)
    sleeper.signal(signal.SIGSTOP)
    other = world.start(config)
    world.until(lambda: world.rows("SELECT 1 FROM llm_calls WHERE origin = 'resumed'"), "the other has taken it up")
    sleeper.signal(signal.SIGCONT)
    world.wait_all_ended()
    assert (sleeper.stop(), other.stop()) == (0, 0)
    assert job.refresh().result["text"] == PROMPT
    assert posts(simulator) == 1
    assert not any(path.endswith("/cancel") for path, _ in asked(simulator))
    assert ledger(world) == [("completed", "resumed", 1, 1, 1)]
    world.assert_sound()
