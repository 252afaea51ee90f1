"""Flows and children through `kill -9`: nothing starts early, nothing is created or paid for twice, nothing stays parked."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

AGENT = """
def agent(ctx):
    plan = ctx.complete("Make a plan.", step="plan").text
    parts = [{"type": "chat", "data": {"prompt": f"Part {n} of the plan."}} for n in range(3)]
    found = ctx.children(parts)
    merged = " ".join(child.result["text"] for child in found)
    return ctx.complete(f"Merge these. {plan} {merged}", step="merge").text
"""
PROMPTS = ("Make a plan.", "Part 0", "Part 1", "Part 2", "Merge these.")


def prompts(simulator: Any) -> list[str]:
    return [entry["body"]["messages"][-1]["content"] for entry in simulator.journal()]


def agent_config(world: Any, simulator: Any, **settings: Any) -> tuple[Any, dict[str, Any]]:
    (Path(world.directory) / "scripted_agent.py").write_text(AGENT)
    config = world.config(simulator, handlers={"agent": "scripted_agent:agent"}, **settings)
    return config, {"env": {"PYTHONPATH": str(world.directory)}}


@pytest.mark.soak
def test_an_agent_killed_after_every_step_comes_to_the_same_end_and_pays_once(world: Any) -> None:
    simulator = world.simulate(latency=0.02)
    # One runner: of several in flight, one would die with its process so often that it is convicted, which is tested elsewhere.
    config, options = agent_config(world, simulator, lease_ttl=30.0, runners=1)
    reference = world.queue.add("agent", max_attempts=1)
    undisturbed = world.start(config, **options, options=["--once"])
    assert undisturbed.wait(60) == 0, undisturbed.log
    expected = reference.result
    assert len(prompts(simulator)) == 5

    job = world.queue.add("agent", max_attempts=1)
    seen = set()
    for _ in range(12):
        before = world.rows("SELECT max(id) FROM llm_job_transitions")[0][0]
        worker = world.start(config, **options)
        # The next step that is on disk: a completion, children, an end.
        paid = completed_calls(world)
        world.until(
            lambda paid=paid, before=before: completed_calls(world) > paid or steps_after(world, before),
            "the next step is on disk",
        )
        worker.kill()
        seen.add((completed_calls(world), str(job.refresh().state)))
        if job.state == "completed":
            break
        if (
            job.state == "failed"
        ):  # killed twice before, it ran alone, and was killed again: convicted, and sent back by a person
            assert job.error["class"] == "poison", job.error
            assert job.retry()
    last = world.start(config, **options, options=["--once"])
    assert last.wait(60) == 0, last.log
    assert job.result == expected
    assert len(seen) >= 3, seen
    assert len(job.children()) == 3
    assert job.row().failures == 0
    ledger = world.rows("SELECT job_id, step, count(*) FROM llm_calls WHERE state = 'completed' GROUP BY 1, 2")
    assert all(count == 1 for *_, count in ledger)
    assert len(ledger) == 10
    # What was sent again had been cut off by a kill before its completion was committed: its row says so.
    sent = Counter(next(start for start in PROMPTS if prompt.startswith(start)) for prompt in prompts(simulator)[5:])
    cut_off = world.rows("SELECT count(*) FROM llm_calls WHERE state = 'unknown'")[0][0]
    assert set(sent) == set(PROMPTS)
    assert sum(sent.values()) <= 5 + cut_off
    world.assert_sound()


def completed_calls(world: Any) -> int:
    return int(world.rows("SELECT count(*) FROM llm_calls WHERE state = 'completed'")[0][0])


def steps_after(world: Any, transition: int) -> bool:
    """Whether a job has begun to wait for children, or has ended."""
    ends = "('waiting_children', 'completed', 'failed')"
    return bool(
        world.rows(f"SELECT 1 FROM llm_job_transitions WHERE id > ? AND to_state IN {ends} LIMIT 1", transition)
    )


def random_flow(dice: random.Random, prefix: str) -> dict[str, Any]:
    jobs: dict[str, Any] = {}
    for n in range(dice.randint(5, 30)):
        needs = dice.sample(range(n), min(n, dice.choice([0, 1, 1, 2, 3])))
        jobs[f"n{n}"] = {
            "type": "chat",
            "data": {"prompt": f"{dice.choice(['BROKEN', *['Plain'] * 6])} sentence {n} of flow {prefix}. {{results}}"},
            "needs": [(f"n{need}", dice.choice(["fail", "ignore", "continue"])) for need in needs],
            "quorum": dice.choice(["all", "all", "any"]) if needs else "all",
        }
    return jobs


def run_dags(world: Any, *, dags: int, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    simulator = world.simulate(
        latency=0.01, faults=({"match": {"contains": "BROKEN"}, "fault": {"kind": "status", "status": 400}},)
    )
    config = world.config(simulator, lease_ttl=30.0, runners=6)
    for number in range(dags):
        world.queue.add_flow(random_flow(dice, f"F{number}"))
    cancelled = dice.choice(world.queue.list(state="waiting_children")).id
    for _ in range(kills):
        worker = world.start(config)
        worker.wait_ready()
        seen = len(simulator.journal())
        count = dice.randint(2, 12)
        simulator.wait_for(lambda journal, most=seen + count: len(journal) >= most or ended(world), 30.0)
        worker.kill()
        world.queue.cancel_tree(cancelled)
        assert_nothing_early(world)
    last = world.start(config)
    world.wait_all_ended(90)
    assert last.stop() == 0
    assert_nothing_early(world)
    world.assert_sound()
    states = dict(world.rows("SELECT state, count(*) FROM llm_jobs GROUP BY 1"))
    assert {"completed", "failed", "cancelled"} <= states.keys(), states
    assert (
        world.rows("SELECT job_id FROM llm_calls WHERE state = 'completed' GROUP BY job_id, step HAVING count(*) > 1")
        == []
    )


def ended(world: Any) -> bool:
    return not world.rows("SELECT 1 FROM llm_jobs WHERE state NOT IN ('completed', 'failed', 'cancelled') LIMIT 1")


def assert_nothing_early(world: Any) -> None:
    drifted = world.rows(
        "SELECT id FROM llm_jobs WHERE pending <> (SELECT count(*) FROM llm_job_edges WHERE job_id = id AND state = 'open')"
    )
    assert drifted == []
    early = world.rows(
        """SELECT edge.job_id, edge.depends_on FROM llm_job_edges AS edge WHERE edge.state IN ('met', 'failed') AND
        (SELECT min(id) FROM llm_job_transitions WHERE job_id = edge.job_id AND to_state = 'active') <
        (SELECT min(id) FROM llm_job_transitions WHERE job_id = edge.depends_on AND to_state IN ('completed', 'failed', 'cancelled'))"""
    )
    assert early == []
    started_open = world.rows(
        "SELECT id FROM llm_jobs JOIN llm_job_edges AS edge ON job_id = id WHERE llm_jobs.state IN ('active', 'waiting') AND edge.state = 'open'"
    )
    assert started_open == []


def test_random_dags_through_kills(world: Any) -> None:
    run_dags(world, dags=5, kills=3, seed=3)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_hundred_random_dags_through_many_kills(world: Any) -> None:
    run_dags(world, dags=100, kills=30, seed=4)
