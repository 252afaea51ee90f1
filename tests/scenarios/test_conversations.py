"""Many conversations over four worker processes, one of them killed in the middle: what each request carried, by the provider's own journal."""

import itertools
from collections import defaultdict
from typing import Any

import pytest

from callboard.simulator.extractive import extract

OUTPUT = 60
WINDOW = 450
SYSTEM = "Answer in one sentence."


def prompt_of(talk: int, turn: int) -> str:
    return f"Talk {talk:02d} turn {turn:03d} begins here. This is what is said in turn {turn:03d} of talk {talk:02d}."


def place_of(prompt: str) -> tuple[int, int]:
    words = prompt.split()
    return int(words[1]), int(words[3])


def spoken(talk: int, turns: int) -> list[tuple[str, str]]:
    """What must have been said in the first turns."""
    prompts = [prompt_of(talk, turn) for turn in range(turns)]
    return [said for text in prompts for said in (("user", text), ("assistant", extract(text, OUTPUT).text))]


def converse(world: Any, *, talks: int, turns: int, runners: int, kill_after: int, timeout: float) -> None:
    simulator = world.simulate(latency=0.01)
    for talk in range(talks):
        small = {"context_window": WINDOW} if talk % 2 else {}
        world.queue.conversation(f"talk-{talk:02d}", system=SYSTEM, **small)
    world.queue.add_many(
        {
            "type": "chat",
            "data": {"prompt": prompt_of(talk, turn), "max_output": OUTPUT},
            "conversation": f"talk-{talk:02d}",
        }
        for turn in range(turns)
        for talk in range(talks)
    )
    config = world.config(simulator, runners=runners)
    workers = [world.start(config) for _ in range(4)]
    world.until(lambda: world.completed() >= kill_after, "the talk is under way", timeout)
    victim = max(workers, key=lambda worker: len(held_by(world, worker)))
    victim.kill()
    workers.remove(victim)
    world.wait_all_ended(timeout)
    assert [worker.stop() for worker in workers] == [0, 0, 0]

    assert world.completed() == talks * turns, "nothing lost"
    for talk in range(talks):
        log = world.queue.conversation(f"talk-{talk:02d}").messages()
        assert [(message.role, message.content) for message in log] == spoken(talk, turns), "in order, nothing doubled"
    check_requests(world, simulator)
    check_turns(world)
    world.assert_sound()


def held_by(world: Any, worker: Any) -> list[Any]:
    """Its lock file says which owner a process is; what that holds now."""
    owners = [
        path.name.removeprefix(f"{world.path.name}.worker-").removesuffix(".lock")
        for path in world.directory.glob("*.lock")
        if path.read_text().strip() == str(worker.pid)
    ]
    return [row for owner in owners for row in world.rows("SELECT id FROM llm_jobs WHERE lease_owner = ?", owner)]


def check_requests(world: Any, simulator: Any) -> None:
    requests: dict[int, list[Any]] = defaultdict(list)
    for entry in simulator.journal():
        messages = [(message["role"], message["content"]) for message in entry["body"]["messages"]]
        talk, turn = place_of(messages[-1][1])
        past = spoken(talk, turn)
        assert messages[0] == ("system", SYSTEM)
        carried = messages[1:-1]
        assert carried == past[len(past) - len(carried) :], (
            f"talk {talk} turn {turn} was not sent what was said before it"
        )
        assert messages[-1] == ("user", prompt_of(talk, turn))
        assert messages[1][0] == "user"
        if talk % 2 == 0:
            assert len(carried) == len(past)
        requests[talk].append((turn, entry["at"], entry["ended_at"], len(past) - len(carried)))
    for talk, sent in requests.items():
        order = [turn for turn, *_ in sent]
        assert order == sorted(order), "a turn was sent before the one ahead of it had ended"
        for (turn, _, ended, cut), (after, at, _, next_cut) in itertools.pairwise(sent):
            assert turn == after or ended <= at, "two turns of one conversation were in flight"
            assert next_cut >= cut
        assert (max(cut for *_, cut in sent) > 0) == (talk % 2 == 1)
    budget = WINDOW - OUTPUT - WINDOW * 0.02
    sizes = world.rows("""
        SELECT input_uncached + cache_read + cache_write FROM llm_calls JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id
        JOIN llm_conversations ON llm_conversations.id = llm_jobs.conversation_id
        WHERE json_extract(settings, '$.context_window') IS NOT NULL AND llm_calls.state = 'completed'
        """)
    assert max(size for (size,) in sizes) <= budget
    assert max(size for (size,) in sizes) > budget / 2, "not trimmed to nothing"


def check_turns(world: Any) -> None:
    """By the log of transitions: of each conversation one turn at a time is active, in the order they were added."""
    active: dict[int, int] = {}
    last: dict[int, int] = {}
    for conversation, job_id, before, after in world.rows("""
        SELECT conversation_id, job_id, from_state, to_state FROM llm_job_transitions AS log JOIN llm_jobs ON llm_jobs.id = job_id
        ORDER BY log.id
        """):
        if before == "active":
            assert active.pop(conversation) == job_id
        if after == "active":
            assert conversation not in active
            assert job_id >= last.get(conversation, 0)
            active[conversation] = last[conversation] = job_id


def test_every_turn_of_many_conversations_over_four_processes_and_a_kill(world: Any) -> None:
    converse(world, talks=8, turns=12, runners=4, kill_after=30, timeout=60)


@pytest.mark.soak
def test_twenty_conversations_of_fifty_turns(world: Any) -> None:
    converse(world, talks=20, turns=50, runners=8, kill_after=400, timeout=300)
