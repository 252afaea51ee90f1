"""The database itself allows the moves of the lifecycle table and no others, whoever makes them and in whatever language."""

import itertools

import pytest

from callboard.persistence.errors import DatabaseRefusedError
from callboard.persistence.lifecycle import FIRST_STATES, TERMINAL_STATES, TRANSITIONS, JobState, is_legal

COLUMNS = {
    JobState.DELAYED: "run_at = 5, lease_owner = NULL, lease_until = NULL",
    JobState.ACTIVE: "run_at = NULL, lease_owner = 'w', lease_until = 9",
}
OTHERS = "run_at = NULL, lease_owner = NULL, lease_until = NULL"


def shortest_path(to):
    """A legal way for a new job to reach a state."""
    paths = [[first] for first in sorted(FIRST_STATES)]
    while paths:
        path = paths.pop(0)
        if path[-1] == to:
            return path
        paths += [[*path, after] for after in sorted(TRANSITIONS[path[-1]]) if after not in path]
    raise AssertionError(to)


def put_in(board, state):
    first, *rest = shortest_path(state)
    board.sql(
        f"INSERT INTO llm_jobs (type, state, run_at) VALUES ('chat', '{first}', {5 if first == JobState.DELAYED else 'NULL'})"
    )
    (job_id,) = board.sql("SELECT max(id) FROM llm_jobs")[0]
    for after in rest:
        move_to(board, job_id, after)
    return job_id


def move_to(board, job_id, state):
    board.sql(f"UPDATE llm_jobs SET state = '{state}', {COLUMNS.get(state, OTHERS)} WHERE id = {job_id}")


@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_every_pair_of_states(board, before, after):
    job_id = put_in(board, before)
    log = "SELECT from_state, to_state FROM llm_job_transitions WHERE job_id = {} ORDER BY id"
    length = len(board.sql(log.format(job_id)))
    if before == after:
        move_to(board, job_id, after)  # no move, no row
        assert len(board.sql(log.format(job_id))) == length
    elif is_legal(before, after):
        move_to(board, job_id, after)
        assert board.sql(log.format(job_id))[length:] == [(before, after)]
    else:
        with pytest.raises(DatabaseRefusedError, match="illegal transition"):
            move_to(board, job_id, after)
        assert board.sql(f"SELECT state FROM llm_jobs WHERE id = {job_id}") == [(before,)]
        assert len(board.sql(log.format(job_id))) == length


@pytest.mark.parametrize("state", list(JobState))
def test_a_job_is_added_only_in_a_first_state(board, state):
    columns = {JobState.DELAYED: ("run_at", "5"), JobState.ACTIVE: ("lease_owner, lease_until", "'w', 5")}.get(
        state, ("tag", "NULL")
    )
    insert = f"INSERT INTO llm_jobs (type, state, {columns[0]}) VALUES ('chat', '{state}', {columns[1]})"
    if state in FIRST_STATES:
        board.sql(insert)
        assert board.sql("SELECT from_state, to_state, actor FROM llm_job_transitions") == [(None, state, "host")]
    else:
        with pytest.raises(DatabaseRefusedError, match="a job is added as"):
            board.sql(insert)
        assert board.sql("SELECT * FROM llm_jobs") == []


def test_a_lease_epoch_never_falls(board):
    job_id = put_in(board, JobState.ACTIVE)
    board.sql(f"UPDATE llm_jobs SET lease_epoch = 7 WHERE id = {job_id}")
    with pytest.raises(DatabaseRefusedError, match="never falls"):
        board.sql(f"UPDATE llm_jobs SET lease_epoch = 6 WHERE id = {job_id}")


@pytest.mark.parametrize(
    "row",
    [
        "type = ''",
        "type = 'a|b'",
        "queue = 'a|b'",
        "priority = 1000000001",
        "priority = 'high'",
        "progress = 101",
        "max_attempts = 0",
        "failures = -1",
        "state = 'paused'",
        "lease_owner = 'w', lease_until = 5",
        "run_at = 5",
        "key = ''",
    ],
)
def test_values_out_of_bounds_are_refused(board, row):
    job_id = put_in(board, JobState.WAITING)
    with pytest.raises(DatabaseRefusedError):
        board.sql(f"UPDATE llm_jobs SET {row} WHERE id = {job_id}")


@pytest.mark.parametrize(
    "options",
    ["[]", "nonsense", '{"on_unknown": "perhaps"}', '{"job_timeout": "soon"}', '{"first_token_timeout": []}'],
)
def test_options_a_claim_could_not_read_are_refused(board, options):
    job_id = put_in(board, JobState.WAITING)
    with pytest.raises((DatabaseRefusedError, Exception), match=r"options|JSON"):
        board.sql(f"INSERT INTO llm_job_data (job_id, options) VALUES ({job_id}, '{options}')")
    assert board.sql("SELECT * FROM llm_job_data") == []


def test_the_least_a_program_must_insert(board):
    board.sql("INSERT INTO llm_jobs (type) VALUES ('chat')")
    (job,) = board.claim()
    assert job.data == {}
    assert job.options.on_unknown == "retry"


def test_terminal_states_have_no_way_out_but_a_person():
    sent_back = {JobState.WAITING, JobState.WAITING_CHILDREN}
    assert {state for state in JobState if not TRANSITIONS[state] - sent_back} - {JobState.WAITING} == TERMINAL_STATES
