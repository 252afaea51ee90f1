"""Searches: the language, what it finds, what it refuses, and what is done to all that it finds."""

import contextlib
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.persistence import job_store, ledger
from callboard.persistence.errors import InvalidQueryError
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.model import CallIntent, CallOutcome
from callboard.persistence.search import FIELDS, Condition, parse
from callboard.persistence.statements import search as statements

NOW = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
HOUR = 3_600_000
DAY_START = 1_699_920_000_000
HOSTILE = [
    "'; DROP TABLE llm_jobs; --",
    '"',
    "a' OR '1'='1",
    "%",
    "_",
    "*",
    "\\",
    "$.a",
    ":v0",
    "?1",
    "x) OR (1=1",
    "zero\u0000byte",
    "emoji 🎭",
    "line\nbreak",
]


def ids(board, query, **more):
    return sorted(row.id for row in board.queue.search(query, **more))


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def call(board, job, *, cost, tokens=100):
    intent = CallIntent(
        step="main", fingerprint="f", provider="p", model="m", limit_key="k", reserved_tokens=10, reserved_cost=None
    )
    call_id = board.move(ledger.record_intent, job.lease, intent, board.now)
    outcome = CallOutcome(
        state="completed", completion={"text": "x"}, usage={"input_uncached": tokens, "output_visible": 5}, cost=cost
    )
    board.move(ledger.record_outcome, job.lease, call_id, outcome, board.now)


@pytest.fixture
def jobs(board):
    """Seven jobs that differ in everything a search can ask about."""
    board.now = NOW - 30 * HOUR
    old = board.started(data={"customer": 42}, tag="run-1", model=None)  # 1
    call(board, old, cost=250_000_000, tokens=1000)
    board.move(job_store.complete, old.lease, {"text": "fine"}, board.now + 1000, "runner")
    board.now = NOW - 2 * HOUR
    broken = board.started(data={"customer": "42", "a b": {"c": [1, {"d": None}]}}, max_attempts=1)  # 2
    call(board, broken, cost=50_000_000)
    board.move(
        job_store.fail, broken.lease, {"class": "refused", "message": "Bad Prompt"}, board.now, "runner", "it broke"
    )
    board.now = NOW - HOUR
    board.add("embed", data={"customer": 7.5, "vip": True}, queue="slow", priority=50, key="k-3")  # 3
    board.add(
        "embed", data={"vip": False, "name": "Ärger"}, model="fast", tag="run-2", description="quarterly report"
    )  # 4
    board.add("chat", data={"customer": None, "customers": 1}, delay=60, tag="other", priority="user")  # 5
    board.add("chat", data=[{"x": 1}, {"x": 2}], description='said "hello, world"')  # 6
    board.now = NOW
    board.add("chat", data={"customer": 43})  # 7
    board.queue.cancel(7, "customer left")
    return board


FINDS = [
    ("", [1, 2, 3, 4, 5, 6, 7]),
    ("state:failed", [2]),
    ("state:FAILED,cancelled", [2, 7]),
    ("-state:waiting", [1, 2, 5, 7]),
    ("type:embed", [3, 4]),
    ("type:em*", [3, 4]),
    ("type:embed queue:slow", [3]),
    ("model:fast", [4]),
    ("-model:*", [1, 2, 3, 5, 6, 7]),
    ("tag:run-*", [1, 4]),
    ("-tag:run-*", [2, 3, 5, 6, 7]),
    ('tag:"run-*"', []),
    ("tag:*", [1, 4, 5]),
    ("key:k-3", [3]),
    ("id:2..4", [2, 3, 4]),
    ("id:..2", [1, 2]),
    ("id:1,7", [1, 7]),
    ("priority:>=50", [3, 5]),
    ("priority:user", [5]),
    ("priority:<0", []),
    ("attempt:1 failures:0", [1]),
    ("failures:1", [2]),
    ("losses:>0", []),
    ("created:<90m", [3, 4, 5, 6, 7]),
    ("created:>1d", [1]),
    ("created:1h..3h", [2, 3, 4, 5, 6]),
    ("created:2h..", [1, 2]),
    ("created:..1h", [3, 4, 5, 6, 7]),
    ("created:2023-11-14", [2, 3, 4, 5, 6, 7]),
    ("created:<2023-11-14", [1]),
    ("created:<=2023-11-14", [1, 2, 3, 4, 5, 6, 7]),
    ("created:>2023-11-13", [2, 3, 4, 5, 6, 7]),
    ("created:>=2023-11-14T22:13:20", [7]),
    ("created:2023-11-14T21:13", [3, 4, 5, 6]),
    ("created:2023-11-13..2023-11-13", [1]),
    ("created:2023-11-14T23:13+01:00", [7]),
    ("started:*", [1, 2]),
    ("finished:<1d", [2, 7]),
    ("-finished:*", [3, 4, 5, 6]),
    ("cost:>0.1", [1]),
    ("cost:$0.05..$0.25", [1, 2]),
    ("cost:0.05", [2]),
    ("-cost:*", [3, 4, 5, 6, 7]),
    ("tokens:>=1000", [1]),
    ("tokens:105", [2]),
    ("data.customer:42", [1, 2]),
    ('data.customer:"42"', [2]),
    ("data.customer:>10", [1, 7]),
    ("data.customer:7..42", [1, 3]),
    ("data.customer:42,43", [1, 2, 7]),
    ("data.customer:null", [5]),
    ("data.customer:*", [1, 2, 3, 5, 7]),
    ("-data.customer:*", [4, 6]),
    ("-data.customer:42", [3, 4, 5, 6, 7]),
    ("data.vip:true", [3]),
    ("data.vip:false", [4]),
    ("data.vip:1", []),
    ("data.name:Ärger", [4]),
    ("data.name:>A data.name:<Z", []),
    ("data.name:>A", [4]),
    ("data[1].x:2", [6]),
    ("data[1].x:1", []),
    ("reason:BROKE", [2]),
    ("error:prompt", [2]),
    ("error:refused", [2]),
    ("description:report", [4]),
    ("held:true", []),
    ("held:no type:embed", [3, 4]),
    ("left", [7]),
    ("quarterly", [4]),
    ('"hello, world"', [6]),
    (r'"\"hello"', [6]),
    ("-quarterly type:embed", [3]),
    ("group:g", []),
    ("parent:1", []),
    ("conversation:*", []),
    ("conversation:c", []),
    ("type:chat -state:completed data.customer:* created:<1d", [2, 5, 7]),
]


def test_what_a_search_finds(jobs):
    assert {query: ids(jobs, query) for query, _ in FINDS} == dict(FINDS)
    assert {query: jobs.queue.count(query) for query, _ in FINDS} == {query: len(found) for query, found in FINDS}


def test_what_is_kept_in_other_columns_is_found(board):
    parent = board.started()
    children = board.queue.add_many([{"type": "chat"}] * 3)
    board.sql(f"UPDATE llm_jobs SET parent_id = {parent.id} WHERE id = {children[0]}")
    board.sql(f"UPDATE llm_jobs SET group_key = 'tenant|7' WHERE id = {children[1]}")
    board.sql(f"UPDATE llm_jobs SET held_by = 'limit openai', held_until = 1 WHERE id = {children[2]}")
    board.sql("INSERT INTO llm_inbox (type, conversation) VALUES ('chat', 'support 12')")
    assert ids(board, f"parent:{parent.id}") == [children[0]]
    assert ids(board, "group:tenant|7") == [children[1]]
    assert ids(board, "held:yes") == [children[2]]
    assert ids(board, 'held:"limit openai"') == [children[2]]
    assert ids(board, 'conversation:"support 12"') == [children[2] + 1]
    assert ids(board, "conversation:support*") == [children[2] + 1]
    assert ids(board, "-conversation:*") == [parent.id, *children]


def test_newest_first_in_pages(board):
    added = board.queue.add_many([{"type": "chat"}] * 7)
    assert [row.id for row in board.queue.search("type:chat", limit=3)] == added[:-4:-1]
    assert [row.id for row in board.queue.search("type:chat", limit=3, before=added[4])] == [4, 3, 2]


@pytest.mark.parametrize(
    ("query", "marked", "problem"),
    [
        ("stat:failed", "stat", "did you mean 'state'?"),
        ("type:chat statee:x", "statee", "did you mean 'state'?"),
        ("state:faild", "faild", "did you mean 'failed'?"),
        ("see https://example.org", "https", "quote text that has a colon"),
        ("priority:high", "high", "whole number"),
        ("id:99999999999999999999", "99999999999999999999", "whole number"),
        ("priority:1.5", "1.5", "whole number"),
        ("type:>chat", ">chat", "no order"),
        ("state:>failed", ">failed", "no order"),
        ("tag:", "tag:", "needs a value"),
        ("tag:a,", "tag:a,", "needs a value"),
        ('tag:"never closed', '"', "never closed"),
        ('tag:"a"b', "b", "a space or a comma is missing"),
        ("cost:cheap", "cheap", "dollars"),
        ("cost:nan", "nan", "dollars"),
        ("cost:1e300", "1e300", "dollars"),
        ("created:soon", "soon", "is no time"),
        ("created:2023-13-01", "2023-13-01", "is no time"),
        ("created:2h", "2h", "created:<2h (younger)"),
        ("created:1h,2h", "2h", "takes one time"),
        ("created:..", "..", "needs a value"),
        ("data:1", "data", "needs a path"),
        ("data.:1", "data.", "needs a path"),
        ("data.a[x]:1", "data.a[x]", "needs a path"),
        ("type.name:x", "type.name", "only data has"),
        ("data.a:>true", "true", "have an order"),
        ("data.a:1..b", "1..b", "have an order"),
        ("cost:>1,2", "2", "takes one value"),
        ("error:a,b", "b", "quotes"),
        ("-", "-", "missing"),
        ("held:>1", ">1", "no order"),
    ],
)
def test_a_bad_search_says_what_is_wrong_and_where(query, marked, problem):
    with pytest.raises(InvalidQueryError) as raised:
        parse(query, NOW)
    error = raised.value
    assert problem in error.problem
    assert query[error.position : error.position + error.length] == marked
    _, shown, carets = str(error).splitlines()[-3:]
    assert shown[carets.index("^") : carets.rindex("^") + 1] == marked


@given(st.text(max_size=60) | st.text('-:"\\\\.,<>=*[]$ adtcosxe019', max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    with contextlib.suppress(InvalidQueryError):
        parse(text, NOW)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda minus, field, value: f"{minus}{field}:{value}",
            st.sampled_from(["", "-"]),
            st.sampled_from([f for f in FIELDS if f != "data"] + ["data.a", "data[0].b"]),
            st.sampled_from(
                ["*", "1", ">2", "<=3", "1..2", "2h", "<2h", "2023-11-14", "a,b", '"x y"', "a*", "failed", "0.5"]
            ),
        ),
        max_size=4,
    )
)
def test_whatever_can_be_read_can_be_run(search_board, terms):
    try:
        search_board.search(" ".join(terms))
    except InvalidQueryError:
        return


@pytest.fixture(scope="module")
def search_board(tmp_path_factory):
    with JobQueue(tmp_path_factory.mktemp("search") / "b.db") as queue:
        queue.add("chat", {"a": 1})
        yield queue


def test_values_are_bound_and_never_part_of_the_text(board):
    for text in HOSTILE:
        stored = text.replace("\u0000", "")
        board.add(tag=stored, description=stored, data={"v": stored})
        board.sql("DELETE FROM llm_jobs WHERE id < (SELECT max(id) FROM llm_jobs)")
        for query in (
            f"tag:{quoted(stored)}",
            f"description:{quoted(stored)}",
            f"data.v:{quoted(stored)}",
            quoted(stored),
        ):
            assert len(board.queue.search(query)) == 1, query
        for field in ("type", "queue", "model", "key", "group", "conversation", "error", "reason"):
            assert board.queue.search(f"{field}:{quoted(text)}") == []
        conditions = parse(f"tag:{quoted(text)} data.v:{quoted(text)} {quoted(text)}", NOW)
        sql, params = statements.rows_sql(conditions, before=False)
        assert list(params.values()).count(text) == 4  # the word is looked for in two places
        assert sql == statements.rows_sql(parse('tag:"x" data.v:"x" "x"', NOW), before=False)[0]
    board.queue.search('data.a;DROP:"x"')
    with pytest.raises(InvalidQueryError):
        board.queue.search('data."a:1')
    assert board.queue.count() == 1


def test_a_search_uses_an_index_where_there_is_one_and_says_when_not(board):
    # The order of the log of ids would serve any search with a small limit; an index must be preferred where it leads to fewer.
    for query in (
        "state:failed",
        "state:failed type:chat",
        "key:k",
        "tag:t",
        "tag:t*",
        "parent:3",
        "id:5",
        "conversation:c",
    ):
        assert not board.queue.search(query).scanned, query
    for query in ("type:chat", "data.a:1", "cost:>1", "-tag:t", "word", "-id:5"):
        assert board.queue.search(query).scanned, query
    assert not board.queue.search("").scanned


def test_retry_where_sends_back_what_is_found_and_nothing_else(jobs):
    steps = []
    assert jobs.queue.retry_where("type:chat", progress=lambda moved, found: steps.append((moved, found)), chunk=2) == 2
    assert ids(jobs, "state:waiting type:chat") == [2, 6, 7]
    assert [found for _, found in steps] == [2, 4, 5]
    assert steps[-1] == (2, 5)
    assert jobs.queue.retry_where("state:failed") == 0


def test_cancel_where_cancels_what_has_not_ended(jobs):
    assert jobs.queue.cancel_where("-priority:user", reason="cleared") == 3
    assert ids(jobs, "reason:cleared state:cancelled") == [3, 4, 6]
    assert ids(jobs, "state:delayed") == [5]
    assert jobs.queue.counts()["cancelled"] == 4


def test_delete_where_deletes_what_has_ended_with_everything_and_keeps_the_counts_right(jobs):
    assert jobs.queue.delete_where("") == 3
    assert ids(jobs, "") == [3, 4, 5, 6]
    assert jobs.queue.counts() == {
        "waiting": 3, "delayed": 1, "waiting_children": 0, "active": 0, "completed": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    for table in ("llm_job_data", "llm_job_transitions", "llm_job_results", "llm_calls", "llm_call_completions"):
        column = "call_id" if table == "llm_call_completions" else "job_id"
        kept = "SELECT id FROM llm_calls" if column == "call_id" else "SELECT id FROM llm_jobs"
        assert jobs.sql(f"SELECT count(*) FROM {table} WHERE {column} NOT IN ({kept})") == [(0,)]
    assert jobs.queue.check() == []


def test_what_a_live_job_waits_on_is_not_deleted(board):
    done, waiting = board.started(), board.add()
    board.move(job_store.complete, done.lease, 1, board.now, "runner")
    board.sql(f"INSERT INTO llm_job_edges (job_id, depends_on, state) VALUES ({waiting}, {done.id}, 'met')")
    assert board.queue.delete_where("state:completed") == 0
    board.queue.cancel(waiting)
    assert board.queue.delete_where("state:completed") == 1


def test_a_job_that_moved_on_between_the_look_and_the_move_is_left_alone(board, monkeypatch):
    added = board.queue.add_many([{"type": "chat", "tag": "t"}] * 4)
    host = JobQueue(board.database, clock=lambda: board.now)
    real = host._writer
    once = threading.Event()

    def late():
        if not once.is_set():
            once.set()
            board.sql(f"UPDATE llm_jobs SET tag = 'changed' WHERE id = {added[1]}")
            board.add(tag="t")  # it was not there when the search began
        return real()

    monkeypatch.setattr(host, "_writer", late)
    assert host.cancel_where("tag:t") == 3
    assert ids(board, "state:waiting") == [added[1], added[3] + 1]
    host.close()


def test_bulk_moves_are_short_transactions(board):
    board.queue.add_many([{"type": "chat"}] * 1000)
    commits = []
    mark = board.c.data_version()

    def progress(moved, found):
        nonlocal mark
        mark, before = board.c.data_version(), mark
        commits.append((mark != before, moved, found))

    assert board.queue.cancel_where("type:chat", chunk=250, progress=progress) == 1000
    assert commits == [(True, n, n) for n in (250, 500, 750, 1000)]


def test_conditions_are_plain_values():
    assert parse("-tag:a,b", NOW) == (Condition("tag", "is", ("a", "b"), negated=True),)
    assert parse("created:<2h", NOW) == (Condition("created", "range", (NOW - 2 * HOUR + 1, None)),)
    assert parse("created:2023-11-14", NOW) == (Condition("created", "range", (DAY_START, DAY_START + 24 * HOUR - 1)),)
    assert parse("cost:>0.1", NOW) == (Condition("cost", "range", (100_000_000, None), strict=(True, True)),)
    assert (
        json.dumps([c.path for c in parse('data.a.b[3]."c":1'.replace('."c"', ""), NOW)]) == '["$.\\"a\\".\\"b\\"[3]"]'
    )
