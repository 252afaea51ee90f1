"""docs/sql-contract.md by the `sqlite3` shell: every statement of it, as it stands, and what it promises about them."""

import pytest

from callboard import JobState
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.version import SCHEMA_VERSION


def test_every_statement_of_the_document_does_what_it_says(board, document):
    connecting, stamped = document["Connecting"]
    add, ask, later = document["Adding a job"]
    where, answer, cost, version = document["Where a job is"]
    (stream,) = document["Reading an answer while it is written"]
    (cancel,) = document["Cancelling"]
    (events,) = document["Events"]
    (counts,) = document["How many"]
    assert sum(map(len, document.values())) == 13, "a statement was added to the document: run it here"

    assert board.shell(connecting) == [{"timeout": 30000}]
    assert board.shell(stamped) == [{"version_num": SCHEMA_VERSION}]
    assert board.shell(add + later) == []
    assert board.shell(ask) == [{"id": 1, "state": "waiting"}]
    (row,) = board.shell(where)
    assert (row["state"], row["result"], row["error"]) == ("waiting", None, None)
    board.work()
    (row,) = board.shell(where)
    assert (row["state"], row["attempt"], row["failures"], row["error"]) == ("completed", 1, 0, None)
    assert board.shell(answer) == [{"answer": "Say hello."}]
    (money,) = board.shell(cost)
    assert money["dollars"] > 0
    assert money["without_price"] == 0
    assert "".join(row["text"] for row in board.shell(stream)) == "Say hello."
    assert board.shell(cancel) == []
    assert board.shell(version)[0].keys() == {"data_version"}
    assert [(e["job_id"], e["from_state"], e["to_state"]) for e in board.shell(events)] == [
        (1, None, "waiting"),
        (2, None, "delayed"),
        (1, "waiting", "active"),
        (1, "active", "completed"),
        (2, "delayed", "cancelled"),
    ]
    assert [
        e["actor"] for e in board.shell(events) if e["from_state"] != "waiting" and e["to_state"] != "completed"
    ] == ["sql"] * 3
    assert board.shell(counts) == [
        {"type": "chat", "state": "cancelled", "jobs": 1},
        {"type": "chat", "state": "completed", "jobs": 1},
    ]
    with JobQueue(board.path) as queue:
        assert queue.check() == []
        assert queue.get(2).row().reason == "no longer wanted"


def test_a_job_that_was_added_by_sql_is_the_same_as_one_of_the_client(board):
    board.shell("""
        INSERT INTO llm_inbox (type, data, model, queue, priority, "key", unique_key, tag, description, max_attempts, group_key, group_limit, options)
        VALUES ('chat', '{"a":1}', 'm', 'q', 5, 'k', 'u', 't', 'd', 4, 'g', 2, '{"on_unknown":"park"}')
    """)
    with JobQueue(board.path) as queue:
        fields = {"model": "m", "queue": "q", "priority": 5, "tag": "t", "description": "d", "max_attempts": 4}
        more = {"group": "g", "group_limit": 2, "options": {"on_unknown": "park"}}
        queue.add("chat", {"a": 1}, **fields, **more)
        assert queue.add("chat", key="k").id == 1
        assert queue.add("chat", unique="u").id == 1
        unlike = "id", "key", "unique_key", "created_at", "updated_at", "changed_by"
        (names,) = ([row["name"] for row in board.shell("SELECT name FROM pragma_table_xinfo('llm_jobs')")],)
        columns = ", ".join(f'"{name}"' for name in names if name not in unlike)
        first, second = board.shell(f"SELECT {columns} FROM llm_jobs ORDER BY id")
        assert first == second
        assert queue.body(1) == queue.body(2)
        added = board.shell("SELECT created_at, updated_at FROM llm_jobs")
        assert all(abs(row[name] - queue.clock()) < 60_000 for row in added for name in row)


def test_a_key_is_given_once_and_a_unique_key_while_its_job_lives(board):
    once = """INSERT INTO llm_inbox (type, data, "key") VALUES ('chat', '{"n": 1}', 'k')"""
    board.shell(f"{once}; {once}; INSERT OR REPLACE INTO llm_inbox (type, \"key\") VALUES ('embed', 'k')")
    assert board.shell("SELECT type, data FROM llm_inbox") == [{"type": "chat", "data": '{"n": 1}'}]
    live = "INSERT INTO llm_inbox (type, unique_key) VALUES ('chat', 'u')"
    board.shell(f"{live}; {live}")
    assert len(board.shell("SELECT id FROM llm_jobs")) == 2
    with JobQueue(board.path) as queue:
        queue.cancel(2)
    board.shell(live)
    assert len(board.shell("SELECT id FROM llm_jobs")) == 3
    assert board.shell("SELECT count(*) AS n FROM llm_job_data")[0]["n"] == 3


def test_what_is_rolled_back_never_was_and_what_is_refused_leaves_nothing(board):
    board.shell("BEGIN IMMEDIATE; INSERT INTO llm_inbox (type) VALUES ('chat'), ('chat'); ROLLBACK;")
    for values, complaint in (
        ("(type, data) VALUES ('chat', 'no json')", "data_json"),
        ("(type, priority) VALUES ('chat', 'high')", "priority_range"),
        ("(type) VALUES ('a|b')", "type_name"),
        ("(data) VALUES ('{}')", "NOT NULL"),
        ("(type, \"key\") VALUES ('chat', '')", "key_length"),
        ("(type, max_attempts) VALUES ('chat', 0)", "max_attempts_range"),
        ("(type, options) VALUES ('chat', '{\"on_unknown\": \"hope\"}')", "options_known"),
    ):
        assert complaint in board.shell(f"INSERT INTO llm_inbox {values}", fails=True)
    assert board.shell("SELECT count(*) AS n FROM llm_jobs UNION ALL SELECT count(*) FROM llm_job_transitions") == [
        {"n": 0},
        {"n": 0},
    ]


def test_times_make_a_job_wait_and_a_time_that_has_passed_does_not(board):
    board.shell("INSERT INTO llm_inbox (type, run_at) VALUES ('chat', 1), ('chat', 99999999999999)")
    with JobQueue(board.path) as queue:
        assert [queue.get(n).state for n in (1, 2)] == ["waiting", "delayed"]
        assert queue.row(1).run_at is None


def test_a_turn_of_a_conversation_may_be_added_by_sql(board):
    board.shell("INSERT INTO llm_inbox (type, conversation) VALUES ('chat', 'c'), ('chat', 'c'), ('chat', 'other')")
    rows = board.shell("SELECT id, state FROM llm_jobs")
    assert [row["state"] for row in rows] == ["waiting", "waiting_children", "waiting"]
    assert board.shell("SELECT name FROM llm_conversations") == [{"name": "c"}, {"name": "other"}]


@pytest.mark.parametrize(
    "move",
    [
        "UPDATE llm_jobs SET state = 'completed'",
        "UPDATE llm_jobs SET state = 'gone'",
        "UPDATE llm_jobs SET lease_epoch = lease_epoch - 1",
        "INSERT INTO llm_jobs (type, state) VALUES ('chat', 'completed')",
    ],
)
def test_the_database_refuses_what_the_life_of_a_job_does_not_know(board, move):
    board.shell("INSERT INTO llm_inbox (type) VALUES ('chat')")
    before = board.shell("SELECT * FROM llm_jobs; SELECT * FROM llm_job_transitions")
    board.shell(move, fails=True)
    assert board.shell("SELECT * FROM llm_jobs; SELECT * FROM llm_job_transitions") == before


def test_a_cancel_by_sql_takes_a_job_from_its_runner(board, document):
    (cancel,) = document["Cancelling"]
    board.shell("INSERT INTO llm_inbox (type, \"key\") VALUES ('chat', 'later')")
    board.shell("""UPDATE llm_jobs SET state = 'active', lease_epoch = lease_epoch + 1, attempt = 1, lease_owner = 'w', lease_until = 9e15,
        updated_at = 1, changed_by = 'store'""")
    board.shell(cancel)
    board.shell(cancel)
    with JobQueue(board.path) as queue:
        row = queue.row(1)
        assert (row.state, row.lease_epoch, row.finished) == (JobState.CANCELLED, 2, True)
        assert [t.to_state for t in queue.transitions(1)] == ["waiting", "active", "cancelled"]
        assert queue.check() == []
