"""Conversations on the board: who waits on whom, whoever adds it, and what the log gives and gains."""

import re

import pytest

from callboard.persistence import claims, conversations, flows, job_store
from callboard.persistence.errors import DatabaseRefusedError, InvalidJobError
from callboard.persistence.model import ConversationSettings, NewMessage, Said


def states(board):
    return dict(board.sql("SELECT id, state FROM llm_jobs ORDER BY id"))


def turns(board, count, name="c", **fields):
    return [board.add(conversation=name, data={"prompt": str(n)}, **fields) for n in range(count)]


def finish(board, job, *words, **said):
    conversation = board.queue.conversation(job.history.name)
    messages = tuple(NewMessage(role, text) for role, text in zip(("user", "assistant"), words, strict=False))

    def both(c):
        assert job_store.complete(c, job.lease, "done", board.now, "runner")
        conversations.extend(c, job.id, Said(conversation_id=conversation.id, messages=messages, **said), board.now)

    board.move(both)


def speak(board, count, name="c", words="x"):
    for number in range(count):
        board.add(conversation=name)
        (job,) = board.claim()
        finish(board, job, f"q{number} {words}", f"a{number} {words}")


# --- order


def test_one_turn_in_flight_in_the_order_of_adding(board):
    added = turns(board, 3)
    other = board.add(conversation="other")
    assert [job.id for job in board.claim(9)] == [added[0], other]
    assert states(board) == {
        added[0]: "active",
        added[1]: "waiting_children",
        added[2]: "waiting_children",
        other: "active",
    }
    assert board.queue.why(added[1])
    assert board.claim(9) == []


def test_the_next_turn_is_free_with_the_commit_that_ends_the_one_before(board):
    added = turns(board, 3)
    for job_id in added:
        (job,) = board.claim(9)
        assert job.id == job_id
        finish(board, job, "q", "a")
    assert set(states(board).values()) == {"completed"}


def test_a_higher_priority_does_not_overtake_in_a_conversation(board):
    first, second = turns(board, 1)[0], board.add(conversation="c", priority="user")
    assert [job.id for job in board.claim(9)] == [first]
    assert states(board)[second] == "waiting_children"


def test_a_turn_that_is_tried_again_keeps_its_place(board):
    first, second = turns(board, 2, max_attempts=2)
    (job,) = board.claim()
    board.move(job_store.retry_later, job.lease, {"class": "x"}, board.now + 10, board.now, "runner", "again")
    assert states(board) == {first: "delayed", second: "waiting_children"}
    board.now += 10
    board.move(claims.promote_due, board.now, 10)
    assert [job.id for job in board.claim(9)] == [first]


def test_a_delayed_turn_holds_its_place_and_waits_for_the_one_before(board):
    first = board.add(conversation="c")
    delayed = board.add(conversation="c", delay=5)
    last = board.add(conversation="c")
    board.now += 5000
    board.move(claims.promote_due, board.now, 10)
    assert states(board) == {first: "waiting", delayed: "waiting_children", last: "waiting_children"}
    for job_id in (first, delayed, last):
        (job,) = board.claim(9)
        assert job.id == job_id
        finish(board, job, "q", "a")


@pytest.mark.parametrize(
    "insert",
    [
        "INSERT INTO llm_jobs (type, conversation_id) VALUES ('chat', 1)",
        "INSERT INTO llm_inbox (type, conversation) VALUES ('chat', 'c')",
    ],
)
def test_plain_sql_queues_up_too(board, insert):
    board.queue.conversation("c")
    for _ in range(3):
        board.sql(insert)
    assert list(states(board).values()) == ["waiting", "waiting_children", "waiting_children"]
    (job,) = board.claim(9)
    finish(board, job, "q", "a")
    assert list(states(board).values()) == ["completed", "waiting", "waiting_children"]
    assert board.queue.check() == []
    (job,) = board.claim(9)
    assert [message.content for message in job.history.messages] == ["q", "a"]


def test_many_at_once_queue_up_in_their_order(board):
    ids = board.queue.add_many([{"type": "chat", "conversation": "c"}] * 4 + [{"type": "chat"}])
    assert [states(board)[job_id] for job_id in ids] == ["waiting", *["waiting_children"] * 3, "waiting"]


def test_a_turn_never_changes_its_conversation(board):
    board.queue.conversation("c")
    alone = board.add()
    with pytest.raises(DatabaseRefusedError, match="added to a conversation or never is in it"):
        board.sql(f"UPDATE llm_jobs SET conversation_id = 1 WHERE id = {alone}")


# --- failures


def fail(board, job):
    board.move(job_store.fail, job.lease, {"class": "x"}, board.now, "runner", "broken")


def test_a_failed_turn_is_passed_over(board):
    first, second = turns(board, 2)
    (job,) = board.claim()
    fail(board, job)
    assert states(board) == {first: "failed", second: "waiting"}


def test_or_blocks_what_was_waiting_behind_it(board):
    board.queue.conversation("c", on_failed="block")
    added = turns(board, 3)
    (job,) = board.claim()
    fail(board, job)
    assert list(states(board).values()) == ["failed"] * 3
    assert f"job {added[0]} failed" in board.queue.row(added[1]).reason
    after = board.add(conversation="c")
    assert [job.id for job in board.claim(9)] == [after]


@pytest.mark.parametrize("policy", ["skip", "block"])
def test_a_turn_cancelled_in_the_middle_does_not_let_the_next_one_overtake(board, policy):
    board.queue.conversation("c", on_failed=policy)
    first, second, third = turns(board, 3)
    (job,) = board.claim(9)
    board.queue.cancel(second)
    assert states(board) == {first: "active", second: "cancelled", third: "waiting_children"}
    assert board.claim(9) == []
    finish(board, job, "q", "a")
    assert [job.id for job in board.claim(9)] == [third]


def test_nor_does_one_that_is_deleted(board):
    first, second, third = turns(board, 3)
    board.sql(f"DELETE FROM llm_jobs WHERE id = {second}")
    (job,) = board.claim(9)
    assert board.claim(9) == []
    finish(board, job, "q", "a")
    assert states(board) == {first: "completed", third: "waiting"}


def test_a_turn_that_is_sent_back_goes_to_the_end(board):
    first, second, third = turns(board, 3)
    (job,) = board.claim()
    fail(board, job)
    assert board.queue.retry(first)
    assert states(board) == {first: "waiting_children", second: "waiting", third: "waiting_children"}
    later = board.add(conversation="c")
    order = []
    while claimed := board.claim(9):
        (job,) = claimed
        order.append(job.id)
        finish(board, job, "q", "a")
    assert order == [second, third, first, later]


def test_a_front_turn_cancelled_by_plain_sql_is_found_by_the_repair(board):
    first, second = turns(board, 2)
    board.sql(f"UPDATE llm_jobs SET state = 'cancelled' WHERE id = {first}")
    assert board.claim(9) == []
    board.move(flows.repair, after=0, now=board.now, actor="store")
    assert [job.id for job in board.claim(9)] == [second]


# --- the log


def test_a_lease_that_is_lost_says_nothing(board):
    turns(board, 1)
    (job,) = board.claim()
    board.queue.cancel(job.id)
    board.move(job_store.complete, job.lease, "late", board.now, "runner")
    assert board.queue.conversation("c").messages() == []


def test_a_claim_reads_no_more_of_a_long_log_than_can_be_sent(board):
    board.queue.conversation("c", context_window=1000)
    speak(board, 60, words="word " * 20)
    board.add(conversation="c")
    (job,) = board.claim()
    assert len(board.queue.conversation("c").messages()) == 120
    assert 1000 / 40 < len(job.history.messages) < 40
    assert job.history.messages[-1].content.startswith("a59 ")
    assert len(board.queue.conversation("c").history(budget=50).messages) < 5


def test_a_mark_ends_what_is_read_and_names_the_summary(board):
    speak(board, 4)
    log = board.queue.conversation("c").messages()
    board.add(conversation="c")
    (job,) = board.claim()
    summary = NewMessage("summary", {"covers": [log[0].id, log[1].id], "text": "short"})

    def mark(*messages):
        said = Said(conversation_id=job.history.conversation_id, messages=messages)
        board.move(conversations.extend, job.id, said, board.now)
        return board.queue.conversation("c").history()

    history = mark(summary)
    assert [m.content for m in history.messages] == [m.content for m in log[2:]]
    assert history.summary.content["text"] == "short"
    history = mark(NewMessage("trim", {"covers": [log[0].id, log[3].id], "summary": history.summary.id}))
    assert [m.id for m in history.messages] == [m.id for m in log[4:]]
    assert history.summary.content["text"] == "short"
    newest = mark(NewMessage("trim", {"covers": [log[0].id, history.summary.id], "summary": history.summary.id}))
    assert newest.messages == ()
    assert newest.summary == history.summary
    assert [m.role for m in board.queue.conversation("c").messages()] == ["user", "assistant"] * 4 + ["summary"]


@pytest.mark.parametrize(
    "content", ["1", '"x"', "{}", '{"covers":[]}', '{"covers":["a","b"]}', '{"covers":[1,2],"text":3}']
)
def test_a_mark_that_means_nothing_stops_no_claim(board, content):
    speak(board, 1)
    for role in ("trim", "summary"):
        board.sql(
            "INSERT INTO llm_messages (conversation_id, parent_id, turn, role, content, at) "
            f"SELECT id, head_id, 1, '{role}', '{content}', 1 FROM llm_conversations"
        )
        board.sql("UPDATE llm_conversations SET head_id = (SELECT max(id) FROM llm_messages)")
    board.add(conversation="c")
    (job,) = board.claim()
    assert job.history is not None


def test_a_summary_is_ordered_once_and_takes_after_its_turn(board):
    for _ in range(2):
        board.add(conversation="c", tag="t", model="m", priority=3)
        job = next(job for job in board.claim(9, lane="default|chat|m|") if job.history is not None)
        finish(board, job, "q", "a", summarise={"prompt": "p"}, summary_key="1-2")
    (row,) = [row for row in board.queue.list() if row.key is not None]
    assert (row.key, row.type, row.tag, row.model, row.priority) == ("summary:1:1-2", "chat", "t", "m", 3)
    assert board.queue.get(row.id).data == {"prompt": "p"}


def test_a_deleted_conversation_takes_its_log_and_leaves_its_jobs(board):
    speak(board, 1)
    board.add(conversation="c")
    (job,) = board.claim()
    board.sql("DELETE FROM llm_conversations")
    board.move(conversations.extend, job.id, Said(conversation_id=1, messages=(NewMessage("user", "q"),)), board.now)
    assert board.sql("SELECT count(*) FROM llm_messages") == [(0,)]
    assert board.sql("SELECT count(*) FROM llm_jobs") == [(2,)]


# --- settings and names


def test_settings_are_kept_changed_one_by_one_and_read_forgivingly(board):
    assert board.queue.conversation("c").settings == ConversationSettings()
    board.queue.conversation("c", system="s", context_window=500)
    board.queue.conversation("c", trim_at=0.9)
    assert board.queue.conversation("c").settings == ConversationSettings(system="s", context_window=500, trim_at=0.9)
    assert board.queue.conversation("c", system=None).settings.system is None
    board.sql("""UPDATE llm_conversations SET settings = '{"context_window":"x","later":1,"summarise":true}'""")
    assert board.queue.conversation("c").settings == ConversationSettings(summarise=True)
    board.sql("UPDATE llm_conversations SET settings = '[]'")
    assert board.queue.conversation("c").settings == ConversationSettings()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"context_window": 0}, "conversation.context_window"),
        ({"context_window": True}, "conversation.context_window"),
        ({"trim_at": 1.5}, "conversation.trim_at"),
        ({"trim_to": 0.9}, "conversation.trim_to"),
        ({"on_failed": "fork"}, "conversation.on_failed"),
        ({"system": 5}, "conversation.system"),
        ({"summarise": 1}, "conversation.summarise"),
        ({"colour": 1}, "conversation.colour"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_its_name(board, given, named):
    with pytest.raises(InvalidJobError) as refused:
        board.queue.conversation("c", **given)
    assert refused.value.field == named
    assert board.queue.conversations() == []


def test_names(board):
    with pytest.raises(InvalidJobError, match="conversation"):
        board.add(conversation="")
    with pytest.raises(InvalidJobError, match="conversation"):
        board.queue.conversation("x" * 201)
    with pytest.raises(InvalidJobError, match="debounce"):
        board.add(conversation="c", debounce=("d", 5))
    turns(board, 1, name="a|b'c")
    assert [row.name for row in board.queue.conversations()] == ["a|b'c"]
    assert board.claim(9)[0].history.name == "a|b'c"


def test_a_listing_counts_turns_done_and_live(board):
    speak(board, 2)
    turns(board, 3)
    board.queue.conversation("empty")
    assert [row[1:4] for row in board.queue.conversations()] == [("empty", 0, 0), ("c", 2, 3)]
    assert [row.name for row in board.queue.conversations(limit=1, before=2)] == ["c"]


# --- cost


def plans(board, sql):
    return " ".join(row[3] for row in board.sql(f"EXPLAIN QUERY PLAN {sql}"))


def test_adding_and_reading_do_not_grow_with_what_a_conversation_had(board):
    from callboard.persistence.schema import TURNS as _TURNS
    from callboard.persistence.sql_text import STATEMENTS

    tail = f"SELECT id FROM llm_jobs WHERE conversation_id = 5 AND {_TURNS} ORDER BY id DESC LIMIT 1"
    assert "llm_jobs_turns (conversation_id=?)" in plans(board, tail)
    for name in ("HISTORY", "LIST", "TURNS"):
        found = plans(board, re.sub(r":\w+", "'[1]'", STATEMENTS[f"conversations.{name}"]))
        assert "SCAN llm_jobs" not in found
        assert "SCAN llm_messages" not in found


# --- with needs of its own


def test_a_turn_may_also_need_the_result_of_the_one_before(board):
    first = board.add(conversation="c")
    second = board.add(conversation="c", needs=[first])
    assert states(board)[second] == "waiting_children"
    (job,) = board.claim(9)
    finish(board, job, "q", "a")
    (job,) = board.claim(9)
    assert [(given.job_id, given.result) for given in job.inputs] == [(first, "done")]
    assert [row.id for row in board.queue.get(second).dependencies()] == [first]


def test_a_need_that_fails_ends_the_turn_and_not_those_behind_it(board):
    need = board.add("other")
    front = board.add(conversation="c")
    turn = board.add(conversation="c", needs=[need])
    last = board.add(conversation="c")
    board.queue.cancel(need)
    assert states(board) == {need: "cancelled", front: "waiting", turn: "failed", last: "waiting_children"}
    (job,) = board.claim(9)
    assert board.claim(9) == []
    finish(board, job, "q", "a")
    assert [job.id for job in board.claim(9)] == [last]


def test_a_quorum_does_not_let_a_turn_overtake(board):
    needs = [board.add("other") for _ in range(2)]
    front = board.add(conversation="c")
    turn = board.add(conversation="c", needs=needs, quorum="any")
    board.queue.cancel(needs[0])
    (job,) = board.claim(9, lane="default|other||")
    board.move(job_store.complete, job.lease, "done", board.now, "runner")
    assert states(board)[turn] == "waiting_children"
    (job,) = board.claim(9)
    assert job.id == front
    finish(board, job, "q", "a")
    assert [job.id for job in board.claim(9)] == [turn]
