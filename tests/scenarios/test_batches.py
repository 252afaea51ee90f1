"""A real worker, killed with -9 at every arrow of a batch's life: each member is answered once, and the provider makes each batch once.

The worker kills itself as soon as an order of the driving job is committed, or the provider has answered one of its requests and nothing of that
is committed yet. Those are the moments between which nothing changes but in the memory that dies.
"""

from collections import Counter
from typing import Any

import pytest

from callboard.actors.batch_settings import BatchSettings, EmbeddingSettings
from callboard.actors.providers.settings import ProviderSettings

DYING = """
import os, signal
from callboard.actors.runner import batch_driver, group_driver
from callboard.actors.runner.effects import Exchange, OrderOnBoard

WANTED = os.environ["DIE_AFTER"]
drive_batch, drive_group = batch_driver.drive_batch, group_driver.drive_group

def name(effect):
    if isinstance(effect, OrderOnBoard):
        state = getattr(effect.order, "state", None)
        return type(effect.order).__name__ + (f" {state}" if type(effect.order).__name__ == "Move" else "")
    return type(effect.operation).__name__ if isinstance(effect, Exchange) else type(effect).__name__

def passed(effect):
    if name(effect) == WANTED:
        os.kill(os.getpid(), signal.SIGKILL)

def dying_batch(job, settings, ask, now_ms, chance):
    def asked(effect):
        result = ask(effect)
        passed(effect)
        return result
    return drive_batch(job, settings, asked, now_ms, chance)

def dying_group(job, settings):
    steps, result = drive_group(job, settings), None
    while True:
        try:
            effect = steps.send(result)
        except StopIteration as stop:
            return stop.value
        result = yield effect
        passed(effect)

batch_driver.drive_batch, group_driver.drive_group = dying_batch, dying_group

def unused(context):
    return None
"""
"""Loaded by the worker with its handlers. Nothing of a batch is replaced: each effect is performed, and then the process dies."""

COMMON = (
    "Seal",
    "Intend",
    "ListMembers",
    "Create",
    "CreateBatch",
    "Move submitted",
    "PollBatch",
    "Move ended",
    "FetchResults",
)
ARROWS = {
    "openai-chat": (
        "UploadFile",
        *COMMON,
        "Move uploaded",
        "Move downloading",
        "Apply",
        "GiveUp",
        "Move applied",
        "DeleteFile",
    ),
    "anthropic-messages": (*COMMON, "Move uploaded", "Move downloading", "Apply", "GiveUp", "Move applied"),
    "gemini": (*COMMON, "Move uploaded", "Move downloading", "Apply", "GiveUp", "Move applied"),
}

AFTER_ANSWERS = ("Apply", "GiveUp", "Move applied", "DeleteFile")


def lane(world: Any, simulator: Any, wire: str, **settings: Any) -> Any:
    base = simulator.url + ("/v1" if wire.startswith("openai") else "")
    (world.directory / "dying_batches.py").write_text(DYING)
    return world.config(
        ProviderSettings(name="sim", wire=wire, base_url=base, allow_private=True),
        handlers={"unused": "dying_batches:unused"},
        batch=BatchSettings(max_age=0.05, poll=0.05, poll_cap=0.05, find_after=0.3),
        sweep_interval=0.1,
        **settings,
    )


def add(world: Any, count: int) -> list[int]:
    return list(world.add_chats(count, options={"latency": "batch"}))


def die(world: Any, config: Any, after: str) -> None:
    worker = world.start(config, env={"PYTHONPATH": str(world.directory), "DIE_AFTER": after})
    assert worker.wait() == -9, "\n".join(worker.log)


def finish(world: Any, config: Any) -> None:
    worker = world.start(config, env={"PYTHONPATH": str(world.directory), "DIE_AFTER": "never"}, options=["--once"])
    assert worker.wait() == 0, "\n".join(worker.log)


def assert_done_once(world: Any, simulator: Any, jobs: list[int], *, made: int = 1, answered: bool = False) -> None:
    """`answered`: members may have had their answers before the kill, and so have been with a runner, which counts as a loss."""
    assert len(simulator.batches()) == made
    states = Counter(world.rows("SELECT type, state FROM llm_jobs"))
    assert states == {("chat", "completed"): len(jobs), ("@batch", "completed"): 1}
    assert Counter(world.rows("SELECT state, origin FROM llm_calls")) == {("completed", "batch"): len(jobs)}
    ((failures, losses),) = world.rows("SELECT max(failures), max(losses) FROM llm_jobs WHERE type = 'chat'")
    assert failures == 0
    assert losses <= answered
    assert simulator.stats()["batch_requests"] == len(jobs) * made, "each request was run once"
    world.assert_sound()
    assert not list(world.directory.glob("*-batches"))


@pytest.mark.parametrize("wire", ["openai-chat", pytest.param("anthropic-messages", marks=pytest.mark.soak)])
def test_a_batch_survives_a_kill_at_its_arrows_one_after_the_other(world: Any, wire: str) -> None:
    simulator = world.simulate(batch_seconds=0.2)
    config = lane(world, simulator, wire)
    jobs = add(world, 5)
    for after in ("CreateBatch", "PollBatch", "Apply"):
        die(world, config, after)
    finish(world, config)
    assert_done_once(world, simulator, jobs, answered=True)


@pytest.mark.soak
@pytest.mark.parametrize(("wire", "after"), [(wire, after) for wire, arrows in ARROWS.items() for after in arrows])
def test_a_batch_survives_a_kill_at_each_arrow(world: Any, wire: str, after: str) -> None:
    simulator = world.simulate(batch_seconds=0.3)
    config = lane(world, simulator, wire)
    jobs = add(world, 20)
    die(world, config, after)
    finish(world, config)
    if (wire, after) != ("anthropic-messages", "Create"):
        assert_done_once(world, simulator, jobs, answered=after in AFTER_ANSWERS)
        return
    # No tag, and no batch that could be it: whether there is one is not certain, so its members went into another, and may be paid for twice.
    assert len(simulator.batches()) == 1
    assert Counter(world.rows("SELECT state, origin FROM llm_calls")) == {
        ("unknown", "batch"): len(jobs),
        ("completed", "batch"): len(jobs),
    }
    world.assert_sound()


def test_a_kill_between_two_looks_resumes_the_same_batch(world: Any) -> None:
    simulator = world.simulate(batch_seconds=float("inf"))
    config = lane(world, simulator, "openai-chat")
    jobs = add(world, 5)
    worker = world.start(config, env={"PYTHONPATH": str(world.directory), "DIE_AFTER": "never"})
    world.until(lambda: world.rows("SELECT 1 FROM llm_batches WHERE polls >= 2"), "it was looked at twice")
    ((batch_id,),) = world.rows("SELECT batch_id FROM llm_batches")
    worker.kill()
    simulator.batches({"do": "end"})
    finish(world, config)
    assert world.rows("SELECT batch_id FROM llm_batches") == [(batch_id,)]
    assert_done_once(world, simulator, jobs)


@pytest.mark.soak
@pytest.mark.parametrize("after", ["Seal", "Adopt", "Embed", "ShareOut", "Move applied"])
def test_a_group_survives_a_kill(world: Any, after: str) -> None:
    simulator = world.simulate()
    # One runner, and a group that is due at once: it has to adopt nearly all.
    config = lane(world, simulator, "openai-chat", runners=1, embeddings=EmbeddingSettings(max_age=0.001))
    world.queue.add_many([{"type": "embed", "data": {"input": f"text {n}"}} for n in range(100)])
    die(world, config, after)
    finish(world, config)
    assert Counter(world.rows("SELECT type, state FROM llm_jobs"))[("embed", "completed")] == 100
    assert world.rows(
        "SELECT count(*) FROM llm_calls WHERE state = 'completed' AND origin = 'group' AND requests = 0"
    ) == [(100,)]
    assert len(simulator.journal()) <= 2, "one request, and one more where the first answer was lost with the process"
    world.assert_sound()
