"""The client for asyncio: the loop never blocks, waiting costs no thread, and nothing is left behind."""

import asyncio
import gc
import inspect
import threading
from contextlib import aclosing

import pytest

from callboard.persistence import claims, job_store
from callboard.persistence.async_queue import AsyncJob, AsyncJobQueue
from callboard.persistence.engine import open_database
from callboard.persistence.errors import DatabaseError, JobNotFoundError, WaitTimeoutError
from callboard.persistence.job import Job
from callboard.persistence.job_queue import JobQueue

# What a host of asyncio gets in another shape, or does by `queue.sync` in a thread of its own.
OTHERWISE = {
    "on",
    "chunks_after",
    "event_page",
    "ended_of",
    "change_mark",
    "closed",
    "watches",
    "name",
    "events",
    "close",
    "conversation",
    "add_flow",
}
JOB_OTHERWISE = {
    "id",
    "state",
    "result",
    "error",
    "data",
    "description",
    "wait",
    "stream",
    "refresh",
    "pieces",
    "children",
    "dependencies",
    "dependents",
    "duplicate",
}


class Worker:
    """Does to the board what a worker would, in the same thread."""

    def __init__(self, path):
        self.database = open_database(f"sqlite:///{path}", synchronous="NORMAL")
        self.c = self.database.connect()

    def claim(self, slots=1):
        with self.c.write():
            return claims.claim(
                self.c, owner="w", slots=slots, quotas={lane.lane: slots for lane in claims.lanes(self.c)},
                lease_until=2**50, now=1, actor="store",
            )  # fmt: skip

    def finish(self, job, result="done"):
        with self.c.write():
            assert job_store.complete(self.c, job.lease, result, 2, "runner")

    def write(self, job, seq, text):
        with self.c.write():
            assert job_store.append_chunks(self.c, job.lease, [(seq, "main", text)], 2)

    def close(self):
        self.c.close()
        self.database.close()


@pytest.fixture
def board_path(path, empty_board):
    path.write_bytes(empty_board.read_bytes())
    return path


@pytest.fixture
def worker(board_path):
    worker = Worker(board_path)
    yield worker
    worker.close()


async def until(holds):
    while not holds():  # noqa: ASYNC110  # what is waited for belongs to others, who set no event for a test
        await asyncio.sleep(0.0005)


def asynchronous(board_path, body, **options):
    """Run `body(queue)` on a loop of its own, and see that no thread and no task outlives it."""
    before = set(threading.enumerate())

    async def main():
        async with (
            asyncio.timeout(30),
            AsyncJobQueue(board_path, synchronous="NORMAL", poll_interval=0.002, **options) as queue,
        ):
            result = await body(queue)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return result

    result = asyncio.run(main())
    assert set(threading.enumerate()) == before
    return result


def test_awaiting_a_job_gives_the_finished_job(board_path, worker):
    async def body(queue):
        job = await queue.add("chat", {"a": 1}, key="k")
        assert isinstance(job, AsyncJob)
        assert await job.state() == "waiting"
        waiting = asyncio.ensure_future(job)
        await asyncio.sleep(0)
        assert not waiting.done()
        worker.finish(worker.claim()[0], {"text": "hello"})
        done = await waiting
        assert done is job
        assert await done.state() == "completed"
        assert await (await queue.get(job.id)) is not job  # ended already: no wait at all
        assert await job.data() == {"a": 1}
        return await done.result()

    assert asynchronous(board_path, body) == {"text": "hello"}


def test_a_thousand_waits_hold_no_thread_and_one_task_looks(board_path, worker):
    async def body(queue):
        ids = await queue.add_many([{"type": "chat"}] * 1000)
        jobs = [await queue.get(job_id) for job_id in ids]
        looks = 0
        real = queue.sync.change_mark

        def counted():
            nonlocal looks
            looks += 1
            return real()

        queue.sync.change_mark = counted
        waits = [asyncio.ensure_future(job) for job in jobs]
        await until(lambda: looks >= 3)
        threads = [t for t in threading.enumerate() if t.name.startswith("callboard-async")]
        assert len(threads) <= 3
        assert len(asyncio.all_tasks()) == 1000 + 2
        assert await queue.cancel_where("type:chat") == 1000
        assert [job.id for job in await asyncio.gather(*waits)] == ids

    asynchronous(board_path, body, threads=3)


def test_the_loop_goes_on_while_the_database_is_held_by_another(board_path, worker):
    async def body(queue):
        await queue.counts()
        worker.c.script("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(queue.add("chat"))
        for _ in range(100):
            await asyncio.sleep(0.0005)  # the loop takes its turns
        assert not adding.done()
        worker.c.script("COMMIT")
        return (await adding).id

    assert asynchronous(board_path, body) == 1


def test_cancelling_the_task_that_waits_leaves_the_job_running(board_path, worker):
    async def body(queue):
        job = await queue.add("chat")
        (claimed,) = worker.claim()
        waiting = asyncio.ensure_future(job)
        other = asyncio.ensure_future(job)
        await until(lambda: queue.watch._ends)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await job.state() == "active"
        worker.finish(claimed)
        assert await other is job

    asynchronous(board_path, body)


def test_a_timeout_and_a_deleted_job_are_told(board_path, worker):
    async def body(queue):
        job = await queue.add("chat")
        with pytest.raises(WaitTimeoutError, match=r"still waiting after 0\.01 s"):
            await job.wait(timeout=0.01)
        waiting = asyncio.ensure_future(job)
        await until(lambda: queue.watch._ends)
        worker.c.script("DELETE FROM llm_jobs")
        with pytest.raises(JobNotFoundError):
            await waiting
        assert queue.watch._ends == {}

    asynchronous(board_path, body)


def test_a_wait_outlives_an_end_that_was_taken_back(board_path, worker):
    async def body(queue):
        job = await queue.add("chat")
        with worker.c.write():
            worker.c.script("UPDATE llm_jobs SET state = 'cancelled', updated_at = 1, finished_at = 1")
            worker.c.script("UPDATE llm_jobs SET state = 'waiting', updated_at = 1, finished_at = NULL")
        waiting = asyncio.ensure_future(job)
        while queue.watch.changes < 2:
            worker.c.script("UPDATE llm_jobs SET tag = 'x'")
            await asyncio.sleep(0.001)
        assert not waiting.done()
        await job.cancel()
        assert await (await waiting).state() == "cancelled"

    asynchronous(board_path, body)


def test_a_database_that_fails_is_told_to_everybody_who_waits(board_path, monkeypatch):
    async def body(queue):
        jobs = [await queue.add("chat") for _ in range(3)]
        waits = [asyncio.ensure_future(job) for job in jobs]
        await until(lambda: len(queue.watch._ends) == 3)

        def broken():
            raise DatabaseError("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr(queue.sync, "change_mark", broken)
            found = await asyncio.gather(*waits, return_exceptions=True)
        assert [str(error) for error in found] == ["the disk is gone"] * 3
        again = asyncio.ensure_future(jobs[0])
        await jobs[0].cancel()
        assert await again is jobs[0]

    asynchronous(board_path, body)


def test_a_stream_follows_without_blocking_and_tells_restarts(board_path, worker):
    async def body(queue):
        job = await queue.add("chat")
        (claimed,) = worker.claim()
        worker.write(claimed, 1, "one ")
        got = []
        async for chunk in job.stream():
            got.append((chunk.epoch, chunk.text, chunk.restarted))
            if len(got) == 1:
                worker.write(claimed, 2, "two ")
            elif len(got) == 2:
                with worker.c.write():
                    job_store.release(worker.c, claimed.lease, cause="handback", reason="r", now=1, actor="a")
                (claimed,) = worker.claim()
                worker.write(claimed, 1, "three ")
            elif len(got) == 3:
                worker.write(claimed, 2, "four")
                worker.finish(claimed)
        assert [text for _, text, _ in got] == ["one ", "two ", "three ", "four"]
        assert [restarted for _, _, restarted in got] == [False, False, True, False]
        assert [chunk.text async for chunk in job.stream()] == ["three ", "four"]
        stuck = await queue.add("chat")
        with pytest.raises(WaitTimeoutError):
            [chunk async for chunk in stuck.stream(timeout=0.01)]

    asynchronous(board_path, body)


def test_events_are_followed_without_a_thread(board_path):
    async def body(queue):
        await queue.add_many([{"type": "chat"}] * 3)
        assert [event.job_id async for event in queue.events()] == [1, 2, 3]
        seen = []
        async with aclosing(queue.events(await queue.cursor(), follow=True, types=["chat"])) as events:
            async for event in events:
                seen.append(event.job_id)
                if event.job_id == 6:
                    break
        return seen

    async def both(queue):
        following = asyncio.ensure_future(body(queue))
        await until(lambda: queue.watch._any)
        for kind in ("chat", "noise", "chat"):
            await queue.add(kind)
        return await following

    assert asynchronous(board_path, both) == [4, 6]


def test_following_events_ends_after_its_time(board_path):
    async def body(queue):
        await queue.add("chat")
        return [event.job_id async for event in queue.events(follow=True, timeout=0.02)]

    assert asynchronous(board_path, body) == [1]


def test_the_ordinary_job_can_be_awaited(board_path, worker):
    before = set(threading.enumerate())

    async def main():
        with JobQueue(board_path, poll_interval=0.002) as queue:
            job = queue.add("chat")
            waiting = asyncio.ensure_future(job)
            await asyncio.sleep(0.005)
            assert not waiting.done()
            worker.finish(worker.claim()[0], 7)
            assert (await waiting).result == 7
            assert (await job) is job
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})  # the one that looked ends by itself

    for _ in range(2):  # a second loop watches by itself
        asyncio.run(main())
    assert set(threading.enumerate()) == before


def test_closing_waits_for_what_is_running_and_cancels_who_waits(board_path, worker):
    async def main():
        queue = AsyncJobQueue(board_path, poll_interval=0.002)
        job = await queue.add("chat")
        waiting = asyncio.ensure_future(job)
        await until(lambda: queue.watch._ends)
        worker.c.script("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(queue.add("chat"))
        await until(lambda: queue._running)
        closing = asyncio.ensure_future(queue.close())
        await asyncio.sleep(0.005)
        worker.c.script("COMMIT")
        await closing
        await queue.close()
        assert (await adding).id == 2
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


def test_it_has_every_verb_of_the_ordinary_client():
    def verbs(kind):
        return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}

    missing = verbs(JobQueue) - verbs(AsyncJobQueue) - OTHERWISE
    assert not missing, f"give AsyncJobQueue these verbs (one line each), or say in OTHERWISE why not: {missing}"
    missing = verbs(Job) - verbs(AsyncJob) - JOB_OTHERWISE
    assert not missing, missing
    for name in verbs(JobQueue) & verbs(AsyncJobQueue) - {"close", "events"}:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (AsyncJobQueue, JobQueue))
        assert list(ours.parameters) == list(theirs.parameters), name


def test_what_changed_since_is_told_without_waiting_for_more(board_path):
    async def body(queue):
        job = asyncio.ensure_future(await queue.add("chat"))
        await until(lambda: queue.watch.changes > 0)
        queue.sync.sleep = None
        now = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(queue.watch.changed(queue.watch.changes - 1, now), 5)
        assert not await queue.watch.changed(queue.watch.changes, now)  # its time is over
        await queue.cancel_where("")
        await job

    asynchronous(board_path, body)


def test_a_lost_hint_costs_time_only_and_no_task_is_collected(board_path, worker):
    async def body(queue):
        job = await queue.add("chat")
        queue.sync.change_mark = lambda: "nothing ever changes"
        waiting = asyncio.ensure_future(job)
        await until(lambda: queue.watch.changes > 0)
        gc.collect()
        worker.c.script("UPDATE llm_jobs SET state = 'cancelled', updated_at = 1, finished_at = 1")
        assert await waiting is job

    asynchronous(board_path, body)
