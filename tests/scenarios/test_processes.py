"""The database is the only thing processes share: to add, to perform, to read along, each in a process of its own."""

import json
import time
from collections import Counter
from typing import Any

import pytest

ADDER = """
import signal, sys
from callboard import JobQueue
queue = JobQueue(sys.argv[1])
print(*queue.add_many({"type": "chat", "data": {"prompt": line.strip()}} for line in sys.stdin), flush=True)
signal.pause()
"""
READER = """
import json, signal, sys
from callboard import JobQueue
queue = JobQueue(sys.argv[1], create=False)
for job_id in map(int, sys.argv[2:]):
    job = queue.get(job_id).wait(timeout=60)
    print(json.dumps([job_id, job.state, job.result["text"]]), flush=True)
signal.pause()
"""
FOLLOWER = """
import json, signal, sys
from callboard import JobQueue
queue = JobQueue(sys.argv[1], create=False)
for chunk in queue.get(int(sys.argv[2])).stream(timeout=60):
    print(json.dumps([chunk.epoch, chunk.seq, chunk.restarted, chunk.text]), flush=True)
"""


def test_one_process_adds_another_performs_a_third_reads_and_the_worker_needs_neither(world: Any) -> None:
    simulator = world.simulate(faults=({"match": {"contains": "late"}, "fault": {"kind": "barrier", "n": 9}},))
    worker = world.start(world.config(simulator))
    adder = world.run(
        ADDER, world.path, given="".join(f"Item {n}. A sentence about it.\n" for n in range(5)) + "A late one.\n"
    )
    *ids, late = map(int, adder.read(1)[0].split())
    reader = world.run(READER, world.path, *ids)
    read = [json.loads(line) for line in reader.read(len(ids))]
    assert [(job_id, state) for job_id, state, _ in read] == [(job_id, "completed") for job_id in ids]
    assert [text for _, _, text in read] == [world.queue.get(job_id).result["text"] for job_id in ids]
    assert len({adder.process.pid, reader.process.pid, worker.pid}) == 3
    simulator.wait_for(lambda journal: len(journal) == 6)
    adder.kill()
    reader.kill()
    simulator.clear_faults()
    world.until(lambda: world.queue.get(late).state == "completed", "the worker goes on without the others")
    assert worker.stop() == 0
    world.assert_sound()


def test_two_workers_share_one_file_each_job_is_done_once(world: Any) -> None:
    simulator = world.simulate(latency=0.02)
    config = world.config(simulator, runners=8)
    workers = [world.start(config) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    world.add_chats(200)
    world.wait_all_ended(60)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert world.completed() == 200
    assert set(Counter(world.requests_by_prompt(simulator)).values()) == {1}
    assert len(simulator.journal()) == 200
    for worker in workers:
        assert [line for line in worker.log if json.loads(line)["level"] != "info"] == []
    world.assert_sound()
    world.assert_paid_once(simulator)


def test_three_workers_may_create_the_same_board_at_once(world: Any) -> None:
    simulator = world.simulate()
    workers = [world.start(world.config(simulator)) for _ in range(3)]
    for worker in workers:
        worker.wait_ready()
    world.add_chats(3)
    world.wait_all_ended()
    assert [worker.stop() for worker in workers] == [0, 0, 0]
    assert [len(worker.log) for worker in workers] == [1, 1, 1]
    assert len(simulator.journal()) == 3
    world.assert_sound()


def chunks(lines: list[str]) -> list[list[Any]]:
    return [json.loads(line) for line in lines]


LONG = " ".join(f"The {n}th sentence of a long text says something of its own." for n in range(40))


def test_a_reader_in_another_process_attaches_in_the_middle_and_gets_the_beginning_and_the_rest(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=300)
    job = world.queue.add("chat", {"prompt": LONG})
    worker = world.start(world.config(simulator))
    world.until(lambda: len(job.chunks()) >= 3, "the stream is under way")
    follower = world.run(FOLLOWER, world.path, job.id)
    first = chunks(follower.read(3))
    assert not job.row().finished
    seen = first + chunks(follower.read())
    assert "".join(text for *_, text in seen) == job.result["text"]
    assert [(epoch, seq, restarted) for epoch, seq, restarted, _ in seen] == [
        (1, seq, False) for seq in range(1, len(seen) + 1)
    ]
    assert worker.stop() == 0


def test_a_reader_is_told_when_the_answer_begins_anew_and_never_sees_the_two_mixed(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=250)
    job = world.queue.add("chat", {"prompt": LONG})
    first = world.start(world.config(simulator))
    follower = world.run(FOLLOWER, world.path, job.id)
    before = chunks(follower.read(3))
    first.kill()
    second = world.start(world.config(simulator))
    seen = before + chunks(follower.read())
    assert job.state == "completed"
    restarts = [place for place, (_, _, restarted, _) in enumerate(seen) if restarted]
    assert len(restarts) == 1
    old, new = seen[: restarts[0]], seen[restarts[0] :]
    assert len(old) >= 3
    assert len({epoch for epoch, *_ in old}) == len({epoch for epoch, *_ in new}) == 1
    assert old[0][0] < new[0][0]
    assert "".join(text for *_, text in new) == job.result["text"]
    assert job.result["text"].startswith("".join(text for *_, text in old))  # the simulator says the same again
    assert second.stop() == 0
    late = chunks(world.run(FOLLOWER, world.path, job.id).read())
    assert [line[3] for line in late] == [line[3] for line in new]  # who comes afterwards sees the last answer alone
    world.assert_sound()
    world.assert_paid_once(simulator)


@pytest.mark.soak
def test_a_chunk_is_visible_to_another_process_within_300_ms(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=50)
    job = world.queue.add("chat", {"prompt": LONG})
    worker = world.start(world.config(simulator))
    follower = world.run(FOLLOWER, world.path, job.id)
    delays = []
    for line in iter(lambda: follower.read(1)[0], ""):
        seen = time.time()
        epoch, seq, *_ = json.loads(line)
        at = next(chunk.at for chunk in job.chunks() if (chunk.epoch, chunk.seq) == (epoch, seq))
        delays.append(seen * 1000 - at)
    delays.sort()
    print(f"{len(delays)} chunks seen by another process after {delays[len(delays) // 2]:.0f} ms (median)")
    assert delays[int(len(delays) * 0.95)] <= 300
    assert worker.stop() == 0
