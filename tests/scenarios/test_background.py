"""Calls that the provider goes on with: a worker killed in the middle of one, and the next takes it up instead of paying again."""

import json
from typing import Any

import pytest

from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import PriceSettings

PROMPT = "Cats sleep all the day long, and in the night they sit on the wall and sing to the moon."
PACE = 40.0
"""Tokens a second: the answer of this prompt takes half a second."""


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
        lambda: world.rows("SELECT handle FROM llm_calls WHERE handle IS NOT NULL AND EXISTS (SELECT 1 FROM llm_job_chunks)"),
        "a handle and a piece of the answer are on disk",
    )
    return str(json.loads(found[0][0])["ref"])


@pytest.mark.parametrize("on_unknown", ["retry", "park"])
def test_a_worker_killed_in_the_middle_pays_once(world: Any, on_unknown: str) -> None:
    simulator = world.simulate(tokens_per_second=PACE)
    config = world.config(provider(simulator), lease_ttl=30.0)
    job = world.queue.add("chat", {"prompt": PROMPT}, options={"on_unknown": on_unknown})
    worker = world.start(config)
    ref = wait_for_handle(world)
    worker.kill()
    assert ledger(world)[0][0] == "open"

    again = world.start(config)
    world.wait_all_ended()
    assert again.stop() == 0
    assert job.refresh().state == "completed", (job.error, world.rows("SELECT * FROM llm_job_transitions"))
    assert job.result["text"] == PROMPT
    assert posts(simulator) == 1
    assert asked(simulator) == [("/v1/responses", "aborted_by_client"), (f"/v1/responses/{ref}", "completed")]
    assert ledger(world) == [("completed", "resumed", 1, 1, 1)]
    epochs = world.rows("SELECT epoch, group_concat(text, '') FROM (SELECT * FROM llm_job_chunks ORDER BY seq) GROUP BY epoch")
    assert epochs[-1][1] == PROMPT  # a reader of the second attempt has it whole
    world.assert_sound()
