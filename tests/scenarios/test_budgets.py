"""Budgets that hold against real workers, judged by the provider's own journal of what it was asked and what it answered."""

from typing import Any

from callboard.actors.settings import BudgetSettings, ModelSettings, PriceSettings

CENT = 10_000_000
"""In nano-dollars."""
PER_INPUT, PER_OUTPUT = 2_500, 5_000
"""Nano-dollars a token, at the prices below."""
PRICED = ModelSettings(provider="sim", model="model-1", price=PriceSettings(input=2.5, output=5))


def billed(simulator: Any) -> int:
    """What the provider would bill, in nano-dollars: every request it admitted, also those whose caller died."""
    return sum(
        entry["usage"]["input_tokens"] * PER_INPUT + entry["usage"]["output_tokens"] * PER_OUTPUT
        for entry in simulator.journal()
        if entry["status"] == 200
    )


def budget(world: Any, name: str) -> Any:
    (found,) = [standing for standing in world.queue.budgets() if standing.budget == name]
    return found


def test_a_cent_with_fifty_calls_in_flight(world: Any) -> None:
    # The first forty are held until all forty are there; what comes after finds more in flight than is left.
    simulator = world.simulate(latency=0.1, faults=({"match": {}, "fault": {"kind": "barrier", "n": 40}, "times": 40},))
    ids = [world.queue.add("chat", {"prompt": world.prompt_of(n), "max_output": 16}).id for n in range(160)]
    config = world.config(simulator, runners=50, budgets={"cent": BudgetSettings(dollars=0.01)})
    config.models["m"] = PRICED
    worker = world.start(config, options=["--once"])
    assert worker.wait(60) == 0, worker.log
    assert simulator.stats()["in_flight_max"] >= 40
    cost = billed(simulator)
    standing = budget(world, "cent")
    print(f"{world.completed()} of {len(ids)} calls, {cost / CENT:.1%} of a cent")
    assert 0.9 * CENT < cost <= CENT
    assert (standing.spent, standing.reserved) == (cost, 0)
    assert world.rows("SELECT sum(cost) FROM llm_calls") == [(cost,)]
    refused = world.rows(
        "SELECT count(*) FROM llm_job_results JOIN llm_jobs ON id = job_id WHERE state = 'failed' AND error ->> 'class' = 'budget'"
    )
    assert refused == [(len(ids) - world.completed(),)]
    assert 0 < refused[0][0] < 100
    world.assert_sound()
    world.assert_paid_once(simulator)


def test_a_cent_shared_by_two_workers_through_a_kill(world: Any) -> None:
    simulator = world.simulate(latency=0.1)
    for n in range(160):
        world.queue.add("chat", {"prompt": world.prompt_of(n), "max_output": 16})
    rule = BudgetSettings(dollars=0.01, action="pause")
    config = world.config(simulator, runners=25, budgets={"cent": rule})
    config.models["m"] = PRICED
    victim = world.start(config)
    world.until(lambda: world.rows("SELECT 1 FROM llm_calls"), "the first of two is at work")
    owner = world.rows("SELECT lease_owner FROM llm_jobs WHERE state = 'active'")[0][0]
    other = world.start(config)
    simulator.wait_for(lambda journal: len(journal) >= 40, 30.0)
    in_flight = """SELECT count(*) FROM llm_calls JOIN llm_jobs ON llm_jobs.id = job_id
        WHERE llm_calls.state = 'open' AND lease_owner = ?"""
    world.until(lambda: world.rows(in_flight, owner)[0][0] >= 3, "it has calls under way")
    victim.kill()
    heir = world.start(config)
    heir.wait_ready()
    at_work = """SELECT count(*) FROM llm_jobs WHERE state IN ('active', 'delayed')
        OR (state = 'waiting' AND (held_by IS NOT 'budget cent' OR held_until < ?))"""
    world.until(
        lambda: world.rows(at_work, world.now_ms() + 3_600_000) == [(0,)],
        "all that is left waits for the budget",
    )
    assert (other.stop(), heir.stop()) == (0, 0)
    cost, standing = billed(simulator), budget(world, "cent")
    unknown = world.rows("SELECT count(*), coalesce(sum(reserved_cost), 0) FROM llm_calls WHERE state = 'unknown'")[0]
    print(f"{world.completed()} answers, {cost / CENT:.1%} of a cent billed, {unknown[0]} calls of the dead unknown")
    assert unknown[0] > 0
    assert cost <= CENT
    assert standing.spent + standing.reserved <= CENT
    assert standing.reserved == unknown[1]  # what the dead may have spent is not spent again
    assert standing.left < 200_000  # less than one more call
    left = world.rows("SELECT count(*) FROM llm_jobs WHERE state = 'waiting'")[0][0]
    assert left + world.completed() == 160
    world.assert_sound()
    world.assert_paid_once(simulator)
