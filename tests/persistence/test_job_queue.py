"""What a host does: add, read, wait, stream, cancel, ask why."""

import json
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard.persistence import claims, job_store
from callboard.persistence.errors import (
    DatabaseNotFoundError,
    InvalidJobError,
    JobCancelledError,
    JobFailedError,
    JobNotFinishedError,
    JobNotFoundError,
    WaitTimeoutError,
)
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.lifecycle import JobState
from callboard.persistence.new_job import MAX_BODY_BYTES, MAX_DEPTH, NewJob


def test_a_job_is_stored_as_it_was_given(board):
    job = board.queue.add(
        "chat", {"a": 1}, model="m", queue="night", priority="analysis", key="k", tag="t", description="d"
    )
    row = job.row()
    assert (row.type, row.queue, row.model, row.priority, row.key, row.tag) == ("chat", "night", "m", 50, "k", "t")
    assert (row.state, row.created_at, row.max_attempts, row.attempt) == (JobState.WAITING, board.now, 3, 0)
    assert (job.data, job.description) == ({"a": 1}, "d")
    assert board.queue.add("chat").data == {}


def test_times_are_counted_from_the_clock(board):
    row = board.queue.add("chat", delay=1.5, start_within=2).row()
    assert (row.state, row.run_at, row.start_by) == (JobState.DELAYED, board.now + 1500, board.now + 3500)
    assert board.queue.add("chat", run_at=board.now - 1).state == JobState.WAITING


def test_one_job_per_key_for_ever(board):
    first = board.queue.add("chat", {"n": 1}, key="k")
    first.cancel()
    again = board.queue.add("chat", {"n": 2}, key="k")
    assert (again.id, again.data, again.state) == (first.id, {"n": 1}, JobState.CANCELLED)
    assert board.queue.add_many(
        [{"type": "a", "key": "x"}, NewJob(type="b", key="k"), {"type": "c", "key": "x"}, {"type": "d"}]
    ) == [
        first.id + 2,
        first.id,
        first.id + 2,
        first.id + 3,
    ]
    assert sum(board.queue.counts().values()) == 3


def test_many_are_added_in_chunks(board):
    ids = board.queue.add_many(({"type": "chat", "data": {"n": n}} for n in range(25)), chunk=10)
    assert [board.queue.body(i)[1]["n"] for i in ids] == list(range(25))
    assert board.queue.add_many([]) == []
    with pytest.raises(InvalidJobError, match=r"jobs\[12\]\.data\.x"):
        board.queue.add_many([{"type": "late"}] * 12 + [{"type": "late", "data": {"x": {1, 2}}}], chunk=10)
    assert board.queue.counts_by_type()["late"][JobState.WAITING] == 10


REFUSED = {
    "data.a[1].b": {"data": {"a": [0, {"b": float("nan")}]}},
    "data.f": {"data": {"f": float("-inf")}},
    "data.x": {"data": {"x": object()}},
    "data[0]": {"data": [{1: "number"}]},
    "data.n": {"data": {"n": 10**5000}},
    "data": {"data": "x" * MAX_BODY_BYTES},
    "type": {"type": ""},
    "queue": {"queue": "a|b"},
    "priority": {"priority": "urgent"},
    "key": {"key": ""},
    "tag": {"tag": 7},
    "model": {"model": "m" * 201},
    "description": {"description": "\ud83d"},
    "delay": {"delay": -1},
    "run_at": {"run_at": 5, "delay": 5},
    "start_within": {"start_within": float("nan")},
    "max_attempts": {"max_attempts": True},
    "options.job_timeout": {"options": {"job_timeout": 0}},
    "options.on_unknown": {"options": {"on_unknown": "maybe"}},
    "options.retries": {"options": {"retries": 5}},
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_refusal_names_the_field(board, field):
    with pytest.raises(InvalidJobError) as caught:
        board.queue.add(**{"type": "chat", **REFUSED[field]})
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert board.sql("SELECT * FROM llm_jobs") == []


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded_where_every_reader_can_follow(board):
    board.queue.add("chat", nested(MAX_DEPTH - 1))
    assert board.claim()[0].data == nested(MAX_DEPTH - 1)
    with pytest.raises(InvalidJobError, match="nested deeper"):
        board.queue.add("chat", nested(MAX_DEPTH))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([2**53 + 1, -(2**200)])
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=[])),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(exclude_categories=[])), inner, max_size=4)
        ),
        max_leaves=12,
    ).map(lambda value: {"v": value})
)
def test_json_comes_back_exactly(board, value):
    job = board.queue.add("chat", value)
    (claimed,) = board.claim()
    board.move(job_store.complete, claimed.lease, value, board.now, "r")
    for found in (job.data, claimed.data, job.refresh().result):
        assert json.dumps(found) == json.dumps(value)  # as text, so that 1 is not 1.0 or True


def test_results_and_how_they_are_missing(board):
    job = board.queue.add("chat", max_attempts=1)
    with pytest.raises(JobNotFinishedError, match="is waiting"):
        _ = job.result
    (claimed,) = board.claim()
    board.move(
        job_store.retry_later,
        claimed.lease,
        {"class": "server", "message": "503"},
        board.now,
        board.now,
        "r",
        "503 twice",
    )
    with pytest.raises(JobFailedError, match="503 twice") as caught:
        _ = job.result
    assert caught.value.error == job.error == {"class": "server", "message": "503"}
    other = board.queue.add("chat")
    assert other.cancel("not needed")
    with pytest.raises(JobCancelledError, match="not needed"):
        _ = other.result
    with pytest.raises(JobNotFoundError, match="no job 999"):
        board.queue.get(999)


def test_cancel_fences_off_whoever_works_on_it(board):
    job = board.started()
    handle = board.queue.get(job.id)
    assert handle.cancel()
    assert not handle.cancel()
    assert (handle.row().lease_epoch, handle.row().finished_at) == (job.lease.epoch + 1, board.now)
    assert claims.lost(board.c, [job.lease]) == [job.lease]
    delayed = board.queue.add("chat", delay=5)
    assert delayed.cancel()
    with pytest.raises(JobNotFoundError):
        board.queue.cancel(999)


def test_a_failed_job_can_be_sent_back(board):
    job = board.started()
    handle = board.queue.get(job.id)
    assert not handle.retry()
    board.move(job_store.fail, job.lease, {}, board.now, "r", "no")
    assert handle.state == JobState.FAILED
    assert handle.retry("fixed it")
    assert (handle.state, handle.row().failures, handle.row().finished_at) == (JobState.WAITING, 0, None)
    assert handle.transitions()[-1].reason == "fixed it"


class Pause:
    """Stands in for sleeping: each pause does the next thing the worker would do meanwhile, on the worker's own connection."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.at = 0.0

    def sleep(self, seconds):
        self.at += seconds
        if self.steps:
            self.steps.pop(0)()

    def monotonic(self):
        return self.at


@pytest.fixture
def follow(board, path):
    """A queue of another process, as it were, with the worker acting whenever it pauses."""
    queues = []

    def make(*steps):
        pause = Pause(*steps)
        queues.append(JobQueue(path, sleep=pause.sleep, monotonic=pause.monotonic))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close()


def chunk(board, job, *numbers):
    return lambda: board.move(job_store.append_chunks, job.lease, [(n, "main", f"{n} ") for n in numbers], board.now)


def test_a_late_reader_gets_the_prefix_and_follows_to_the_end(board, follow):
    job = board.started()
    chunk(board, job, 1, 2)()

    def ends():
        chunk(board, job, 4, 5)()
        board.move(job_store.complete, job.lease, "done", board.now, "r")

    handle = follow(lambda: None, chunk(board, job, 3), lambda: None, ends).get(job.id)
    pieces = list(handle.stream())
    assert [p.seq for p in pieces] == [1, 2, 3, 4, 5]
    assert not any(p.restarted for p in pieces)
    assert handle.result == "done"
    assert [p.seq for p in handle.stream(after=pieces[2])] == [4, 5]


def test_a_reader_is_told_of_a_restart(board, follow):
    job = board.started()
    chunk(board, job, 1, 2)()
    later = []

    def restarts():
        board.move(job_store.release, job.lease, cause="loss", reason="r", now=board.now, actor="x")
        later.extend(board.claim())

    def ends():
        chunk(board, later[0], 1)()
        board.move(job_store.fail, later[0].lease, {}, board.now, "r", "no")

    handle = follow(restarts, ends).get(job.id)
    assert [(p.epoch, p.seq, p.restarted) for p in handle.stream()] == [(1, 1, False), (1, 2, False), (3, 1, True)]
    assert [(p.epoch, p.seq, p.restarted) for p in handle.stream()] == [(3, 1, False)]
    assert len(handle.chunks()) == 3


def test_more_chunks_than_one_look_brings(board):
    job = board.started()
    chunk(board, job, *range(1200))()
    board.move(job_store.complete, job.lease, None, board.now, "r")
    assert [p.seq for p in board.queue.get(job.id).stream()] == list(range(1200))


def test_wait_returns_the_ended_job_or_says_how_long(board, follow):
    job = board.started()
    done = follow(lambda: None, lambda: board.move(job_store.fail, job.lease, {}, board.now, "r", "no")).get(job.id)
    assert done.wait(5).state == JobState.FAILED
    other = follow().get(board.add())
    with pytest.raises(WaitTimeoutError, match=r"still waiting after 0\.5 s"):
        other.wait(0.5)
    with pytest.raises(TimeoutError):
        list(other.stream(timeout=0.5))


def test_a_lost_hint_costs_time_only(board, follow):
    job = board.started()
    queue = follow(lambda: board.move(job_store.complete, job.lease, 1, board.now, "r"))
    queue.change_mark = lambda: "always the same"
    assert queue.get(job.id).wait(30).result == 1


def test_an_own_commit_is_seen_by_an_own_reader(board, path):
    with JobQueue(path) as queue:
        job = queue.add("chat")
        queue.sleep = lambda _: job.cancel()
        assert job.wait(30).state == JobState.CANCELLED


def test_lists_and_counts(board):
    ids = board.queue.add_many({"type": f"t{n % 2}", "tag": "a" if n < 4 else None, "queue": "q"} for n in range(6))
    board.queue.cancel(ids[1])
    found = board.queue.list
    assert [row.id for row in found(limit=2)] == [ids[5], ids[4]]
    assert [row.id for row in found(before=ids[4], limit=2)] == [ids[3], ids[2]]
    assert [row.id for row in found(tag="a", type="t1", state="waiting", queue="q")] == [ids[3]]
    with pytest.raises(ValueError, match="nonsense"):
        found(state="nonsense")
    counts = board.queue.counts()
    assert (counts["waiting"], counts["cancelled"], counts["failed"]) == (5, 1, 0)


def test_why(board):
    first, second = board.add(), board.add()
    assert board.queue.why(second) == "waiting for a free runner, 1 like it ahead"
    (job,) = board.claim()
    assert job.id == first
    assert "worker-a" in board.queue.why(first)
    board.move(
        job_store.release,
        job.lease,
        cause="deferral",
        reason="r",
        now=board.now,
        actor="x",
        held_by="openai/gpt",
        held_until=board.now + 5000,
    )
    assert board.queue.why(first).startswith("held by openai/gpt until 2023-11-14T22:13:25+00:00")
    assert board.queue.why(board.queue.add("chat", delay=5)).startswith("not before 2023")
    board.queue.cancel(second, "enough")
    assert board.queue.why(second) == "cancelled: enough"


def test_check_finds_what_is_wrong(board):
    job = board.started()
    board.move(job_store.complete, job.lease, {}, board.now, "r")
    board.add()
    assert board.queue.check() == []
    board.sql("DELETE FROM llm_job_results")
    board.sql("UPDATE llm_job_transitions SET to_state = 'failed' WHERE to_state = 'completed'")
    assert board.queue.check() == [
        f"job {job.id} is completed, but its log ends in failed",
        f"job {job.id} is completed without a result",
    ]


def test_a_queue_that_may_not_create(path):
    with pytest.raises(DatabaseNotFoundError), JobQueue(path, create=False) as queue:
        queue.counts()
    assert not path.exists()


def test_a_closed_queue_says_so(board, path):
    queue = JobQueue(path)
    queue.add("chat")
    queue.close()
    queue.close()
    with pytest.raises(RuntimeError, match="closed"):
        queue.add("chat")


def test_threads_share_a_queue_beside_a_writer(board, path):
    faults = []
    stop = threading.Event()

    def adds():
        try:
            for _ in range(25):
                queue.add("chat", {"a": 1})
                queue.counts()
        except BaseException as error:
            faults.append(error)

    def works():
        try:
            while not stop.is_set():
                for job in board.claim(10):
                    board.move(job_store.complete, job.lease, {}, board.now, "r")
        except BaseException as error:
            faults.append(error)

    with JobQueue(path, synchronous="NORMAL") as queue:
        worker = threading.Thread(target=works)
        hosts = [threading.Thread(target=adds) for _ in range(4)]
        for thread in (worker, *hosts):
            thread.start()
        for thread in hosts:
            thread.join(60)
        stop.set()
        worker.join(60)
        assert faults == []
        assert sum(queue.counts().values()) == 100


CLAIMS = """
import sys
from callboard.persistence import claims, job_store
from callboard.persistence.engine import open_database
c = open_database(sys.argv[1], synchronous="NORMAL").connect()
print("ready", flush=True)
sys.stdin.readline()
while True:
    with c.write():
        jobs = claims.claim(c, owner=sys.argv[2], slots=3, quotas={"default|chat||": 3}, lease_until=10**13, now=1, actor=sys.argv[2])
        for job in jobs:
            assert job_store.complete(c, job.lease, sys.argv[2], 1, sys.argv[2])
    if not jobs:
        break
    print(*(job.id for job in jobs))
"""


def test_two_processes_never_claim_the_same_job(board, url):
    ids = board.queue.add_many({"type": "chat"} for _ in range(300))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMS, url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        taken = [[int(i) for i in worker.communicate(timeout=60)[0].split()] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(10)
    assert sorted(taken[0] + taken[1]) == ids
    assert board.sql("SELECT max(attempt), count(*) FROM llm_jobs WHERE state = 'completed'") == [(1, 300)]
    assert board.queue.check() == []


def test_importing_the_queue_loads_no_database_library():
    code = "import sys, callboard.persistence.job_queue; print([m for m in ('sqlalchemy', 'alembic', 'sqlite3', 'pykka', 'httpx') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


def test_a_field_that_does_not_exist_is_named(board):
    with pytest.raises(InvalidJobError, match=r"jobs\[1\]\.colour: is not a field"):
        board.queue.add_many([{"type": "chat"}, {"type": "chat", "colour": "red"}])
    with pytest.raises(InvalidJobError, match=r"jobs\[0\]\.type: is missing"):
        board.queue.add_many([{"data": 1}])


def test_a_worker_loads_only_what_its_memory_allows():
    heavy = (
        "sqlalchemy.orm",
        "alembic",
        "rich",
        "click",
        "multiprocessing",
        "unittest",
        "pydantic",
        "callboard.persistence.host_store",
    )
    code = f"""
import sys
from callboard.persistence import claims, engine, job_store, ledger, liveness
engine.open_database("sqlite://").connect()
print([m for m in {heavy} if m in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
