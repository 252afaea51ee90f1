"""What jobs wait on: edges are settled in the transaction that ends a job, whatever ended it.

A job that waits is in `waiting_children` (or still `delayed`), and `pending` is the number of its open edges. When a job ends, each open edge to
it becomes `met` (it completed, or the edge's policy is `ignore` or `continue`) or `failed`. Whoever waited on it goes to waiting when all it
needs is met, and fails at once when that is out of reach, which settles the edges to it in turn: breadth first, never by recursion, and at most
`EDGES_PER_PASS` edges in one transaction. What is left then is in `Connection.unsettled`, for its owner to go on with after the commit
(`settle_more`); if its owner dies, `repair` finds it, as it finds what plain SQL has ended. An edge once settled stays settled, except when a
person sends the waiting job itself back.

Every function is called inside the caller's write transaction.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

from .engine import Connection, Row
from .json_text import clean, dumps, loads
from .ledger import STORE_RESULT
from .lifecycle import JobState
from .model import JobInput
from .sql import Prepared

_EDGE = Prepared("flows.EDGE")
_OPEN_ON = Prepared("flows.OPEN_ON")
_OPEN_OF = Prepared("flows.OPEN_OF")
_SETTLE = Prepared("flows.SETTLE")
_LESS_PENDING = Prepared("flows.LESS_PENDING")
_GROUPS = Prepared("flows.GROUPS")
_FAILED_NEEDS = Prepared("flows.FAILED_NEEDS")
_MOOT_STEP = Prepared("flows.MOOT_STEP")
_MOOT_ALL = Prepared("flows.MOOT_ALL")
_SET_PENDING = Prepared("flows.SET_PENDING")
_READY = Prepared("flows.READY")
_FAIL_WAITER = Prepared("flows.FAIL_WAITER")
_PARKED = Prepared("flows.PARKED")
_PARKED_WRONG = Prepared("flows.PARKED_WRONG")
_REOPEN = Prepared("flows.REOPEN")
_WAIT_AGAIN = Prepared("flows.WAIT_AGAIN")
_OPEN_COUNT = Prepared("flows.OPEN_COUNT")
_INPUTS = Prepared("flows.INPUTS")

TURN_STEP = "@turn"
"""The step of the edge between turns of a conversation (`schema` makes it by trigger). No quorum touches a step that begins with '@'."""
EDGES_PER_PASS = 300
"""Edges settled in one transaction: a cascade through thousands of jobs must not hold the write lock for more than some 50 ms."""

_COMPLETED = str(JobState.COMPLETED)
_WAITS = (str(JobState.WAITING_CHILDREN), str(JobState.DELAYED))


class Need(NamedTuple):
    """One edge of a job to be added: the id it waits on, what the flow calls that, and what its failure means."""

    depends_on: int
    name: str | None
    policy: str


class Group(NamedTuple):
    """The edges a job has of one step, counted."""

    step: str
    open: int
    met: int
    edges: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a job that waits: `satisfied` steps no longer need their open edges; `failed` if a step can no longer be satisfied."""

    pending: int
    satisfied: tuple[str, ...]
    failed: bool


def decide(quorum: int | None, groups: Iterable[Group]) -> Decision:
    """Pure. Of the steps that are still undecided, every edge must be met, or as many as the quorum says."""
    pending, satisfied, failed = 0, [], False
    for group in groups:
        needed = group.edges if quorum is None or group.step.startswith("@") else quorum
        if group.met >= needed:
            if group.open:
                satisfied.append(group.step)
            continue
        failed = failed or group.met + group.open < needed
        pending += group.open
    return Decision(pending, tuple(satisfied), failed)


def add_edges(c: Connection, job_id: int, needs: Sequence[Need], step: str = "") -> None:
    """Let a job wait on others. Its row must say so: `waiting_children` or `delayed`, and `pending`."""
    c.change_many(
        _EDGE,
        [
            {
                "job_id": job_id,
                "depends_on": need.depends_on,
                "step": step,
                "name": need.name,
                "place": place,
                "policy": need.policy,
            }
            for place, need in enumerate(needs)
        ],
    )


# --- settling ----------------------------------------------------------------------------------------------------------------------------


def settle_dependents(
    c: Connection, job_ids: Iterable[int], now: int, actor: str, *, limit: int = EDGES_PER_PASS
) -> None:
    """Tell whoever waits on these jobs that they ended; ids of jobs that have not ended are passed over.

    At most `limit` edges; the jobs whose dependents are then still to be told are in `c.unsettled`.
    """
    frontier = list(job_ids)
    while frontier:
        edges = c.run(_OPEN_ON, {"ids": json.dumps(frontier), "limit": limit}) if limit > 0 else []
        if limit > 0 and not edges:
            return
        if not edges:
            c.unsettled += frontier
            return
        limit -= len(edges)
        failed = _settle(c, edges, now, actor)
        frontier = failed if limit > 0 else [*frontier, *failed]


def settle_more(c: Connection, now: int, actor: str, *, limit: int = EDGES_PER_PASS) -> None:
    """Go on with what earlier transactions of this connection left over."""
    left, c.unsettled = c.unsettled, []
    settle_dependents(c, left, now, actor, limit=limit)


def _settle(c: Connection, edges: Sequence[Row], now: int, actor: str) -> list[int]:
    """Settle these edges and move those who waited. Returns who failed by it."""
    counted: Counter[int] = Counter()
    broken: dict[int, tuple[int, str | None, str]] = {}
    settled = []
    touched = set()
    for waiter, target, step, policy, name, state in edges:
        touched.add((waiter, step))
        met = state == _COMPLETED or policy != "fail"
        settled.append({"waiter": waiter, "target": target, "of_step": step, "settled": "met" if met else "failed"})
        counted[waiter] += 1
        if not met:
            broken.setdefault(waiter, (target, name, state))
    c.change_many(_SETTLE, settled)
    ready, failing, unclear = [], [], []
    for waiter, count in counted.items():
        state, quorum, pending = c.run(_LESS_PENDING, {"waiter": waiter, "settled": count})[0]
        if state not in _WAITS:
            continue
        if quorum is not None:
            unclear.append(waiter)
        elif waiter in broken:
            failing.append((waiter, *_blame([broken[waiter]], None)))
        elif pending == 0:
            ready.append(waiter)
    c.change_many(_READY, [{"waiter": waiter, "now": now, "actor": actor} for waiter in ready])
    failed = _fail(c, failing, now, actor)
    return failed + _evaluate(c, unclear, touched, now, actor) if unclear else failed


def _evaluate(
    c: Connection, job_ids: Sequence[int], touched: AbstractSet[tuple[int, str]], now: int, actor: str
) -> list[int]:
    """Decide anew, from their edges, about jobs that wait. Returns who failed by it.

    Steps without an open edge that were not just `touched` were decided before, perhaps by another quorum, and count no more.
    """
    groups: dict[int, list[Group]] = {}
    rows: dict[int, tuple[int | None, int]] = {}
    for job_id, state, quorum, pending, step, is_open, met, edges in c.run(_GROUPS, {"ids": json.dumps(job_ids)}):
        if state in _WAITS:
            rows[job_id] = quorum, pending
            undecided = groups.setdefault(job_id, [])
            if is_open or (job_id, step) in touched:
                undecided.append(Group(step, is_open, met, edges))
    ready, failing = [], []
    for job_id, (quorum, pending) in rows.items():
        decision = decide(quorum, groups[job_id])
        if decision.failed:
            failing.append((job_id, *_blame(c.run(_FAILED_NEEDS, {"waiter": job_id}), quorum)))
            continue
        c.change_many(_MOOT_STEP, [{"waiter": job_id, "of_step": step} for step in decision.satisfied])
        if decision.pending == 0:
            ready.append(job_id)
        if decision.pending != pending:
            c.change(_SET_PENDING, {"waiter": job_id, "open": decision.pending})
    c.change_many(_READY, [{"waiter": job_id, "now": now, "actor": actor} for job_id in ready])
    return _fail(c, failing, now, actor)


def _blame(needs: Sequence[tuple[int, str | None, str]], quorum: int | None) -> tuple[dict[str, Any], str]:
    """Error and reason of a job that fails for what it waited on."""
    told = ", ".join(f"job {job_id}{f' ({name})' if name else ''} {state}" for job_id, name, state in needs)
    message = f"what it waits on did not complete: {told or 'too few are left'}"
    if quorum is not None:
        message += f"; {quorum} had to"
    return {"class": "dependency", "message": message, "jobs": [job_id for job_id, _, _ in needs]}, message


def _fail(c: Connection, failing: Sequence[tuple[int, dict[str, Any], str]], now: int, actor: str) -> list[int]:
    if not failing:
        return []
    c.change_many(
        _FAIL_WAITER,
        [{"waiter": job_id, "reason": clean(reason), "now": now, "actor": actor} for job_id, _, reason in failing],
    )
    c.change_many(
        STORE_RESULT, [{"job_id": job_id, "result": None, "error": dumps(error)} for job_id, error, _ in failing]
    )
    failed = [job_id for job_id, _, _ in failing]
    abandon(c, failed)
    return failed


def abandon(c: Connection, job_ids: Iterable[int]) -> None:
    """These jobs have ended and no longer wait on anything."""
    c.change_many(_MOOT_ALL, [{"waiter": job_id} for job_id in job_ids])


# --- repair ------------------------------------------------------------------------------------------------------------------------------


class Repaired(NamedTuple):
    """One pass of the repair: the jobs put right, and where the next pass begins (0: from the start)."""

    jobs: list[int]
    after: int


def repair(c: Connection, *, after: int, now: int, actor: str, limit: int = 500) -> Repaired:
    """Put right jobs that wait on nothing any more: what they waited on ended or went by other hands, or their counter is off.

    Looks at the next `limit` jobs of those that wait, from the id `after` on, so that its cost is bounded and every one gets its turn.
    """
    window = {"after": after, "limit": limit}
    last, looked_at = c.run(_PARKED, window)[0]
    if not looked_at:
        return Repaired([], 0)
    wrong = [job_id for (job_id,) in c.run(_PARKED_WRONG, window)]
    if wrong:
        recheck(c, wrong, now, actor)
    return Repaired(wrong, last if looked_at == limit else 0)


def let_go(c: Connection, waiter: int, target: int, step: str, now: int, actor: str) -> None:
    """This edge of a job that waits counts as done, though what it waits on goes on; the edge must be open."""
    settle_dependents(c, _settle(c, [(waiter, target, step, "ignore", None, _COMPLETED)], now, actor), now, actor)


def recheck(c: Connection, job_ids: Sequence[int], now: int, actor: str) -> None:
    """Settle what these jobs wait on that has ended already, and decide about them."""
    edges = c.run(_OPEN_OF, {"ids": json.dumps(job_ids)})
    c.change_many(
        _SETTLE,
        [
            {
                "waiter": waiter,
                "target": target,
                "of_step": step,
                "settled": "met" if state == _COMPLETED or policy != "fail" else "failed",
            }
            for waiter, target, step, policy, _, state in edges
        ],
    )
    touched = {(edge[0], edge[2]) for edge in edges}
    settle_dependents(c, _evaluate(c, job_ids, touched, now, actor), now, actor)


def wait_again(c: Connection, job_id: int, now: int) -> None:
    """A person has sent this job back to waiting: what failed before it counts as done, and what is live again is waited for."""
    if c.change(_REOPEN, {"waiter": job_id}):
        waits_on = c.run(_OPEN_COUNT, {"waiter": job_id})[0][0]
        if waits_on:
            c.change(_WAIT_AGAIN, {"waiter": job_id, "open": waits_on, "now": now, "actor": "host"})


# --- what was waited on is given --------------------------------------------------------------------------------------------------------


def inputs(c: Connection, job_ids: Iterable[int]) -> dict[int, list[JobInput]]:
    """What these jobs waited on, each in the order of its needs; jobs without edges are not in the answer. Turns are left out."""
    found: dict[int, list[JobInput]] = {}
    for job_id, step, target, name, policy, edge, state, result, error, reason in c.run(
        _INPUTS, {"ids": json.dumps(list(job_ids))}
    ):
        if step != TURN_STEP:
            given = JobInput(
                job_id=target,
                name=name,
                step=step,
                policy=policy,
                counted=edge == "met",
                state=JobState(state),
                result=None if result is None else loads(result),
                error=_error(edge, state, error, reason),
            )
            found.setdefault(job_id, []).append(given)
    return found


def _error(edge: str, state: str, error: str | None, reason: str | None) -> dict[str, Any] | None:
    if error is not None:
        stored: dict[str, Any] = loads(error)
        return stored
    if edge != "moot" and state == JobState.CANCELLED:
        return {"class": "cancelled", "message": reason or "cancelled"}
    return None
