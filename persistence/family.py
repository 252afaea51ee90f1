"""Flows and children as they are added, read and cancelled: the jobs that belong together, by what they wait on and by who created them.

The writing functions are called inside the caller's write transaction; the reading ones may run anywhere.
"""

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from . import flows, host_store, ledger
from .engine import Connection
from .errors import InvalidJobError
from .flow_plan import Node
from .flows import TURN_STEP, Need
from .lifecycle import TERMINAL_STATES, JobState
from .model import JobRow, Lease
from .sql import Prepared

_KNOWN = Prepared("flows.KNOWN")
_ENROL = Prepared("flows.ENROL")
_SPAWN = Prepared("flows.SPAWN")
_PARENT = Prepared("flows.PARENT")
_CHILDREN = Prepared("flows.CHILDREN")
_DEPENDENCIES = Prepared("flows.DEPENDENCIES")
_DEPENDENTS = Prepared("flows.DEPENDENTS")
_WAITS_ON = Prepared("flows.WAITS_ON")
_EDGE_COUNTS = Prepared("flows.EDGE_COUNTS")
_BELOW = Prepared("flows.BELOW")
_NEEDS_OF = Prepared("flows.NEEDS_OF")
_WAITERS_OF = Prepared("flows.WAITERS_OF")
_ROWS = Prepared("flows.ROWS")
_LAST_ID = Prepared("host_store.LAST_ID")

_STATE_AT = [field.name for field in fields(JobRow)].index("state")
CANCEL_CHUNK = 500
"""Jobs of a tree cancelled in one transaction."""

Rows = tuple[dict[str, Any], dict[str, Any]]


class Child(NamedTuple):
    """A child to be created: its rows without ids, and the columns that it takes from its parent."""

    row: dict[str, Any]
    body: dict[str, Any]
    inherits: frozenset[str]
    policy: str


def add_flow(c: Connection, nodes: Sequence[Node], rows: Sequence[Rows], now: int) -> list[int]:
    """Add the jobs of a flow, each after what it needs. Their ids; a key or name that a job already has gives that job, without new edges.

    Raises InvalidJobError, which names the field, if one waits on a job that does not exist.
    """
    _refuse_unknown(c, nodes)
    newest = int(c.run(_LAST_ID)[0][0])
    ids: list[int] = []
    by_name: dict[str, int] = {}
    added: set[int] = set()
    ended_perhaps: list[int] = []
    for node, (row, body) in zip(nodes, rows, strict=True):
        if node.needs and row["run_at"] is None:
            row["state"] = str(JobState.WAITING_CHILDREN)
        job_id = host_store.add(c, row, body)
        ids.append(job_id)
        if node.name is not None:
            by_name[node.name] = job_id
        if job_id <= newest:
            continue
        newest = job_id
        added.add(job_id)
        needs = {}
        for need in node.needs:  # two names may have come to one job, by its key
            target = by_name[need.target] if isinstance(need.target, str) else need.target
            needs[target] = Need(target, need.target if isinstance(need.target, str) else None, need.policy)
        if needs:
            _enrol(c, job_id, None, list(needs.values()), node.quorum, "host")
            flows.add_edges(c, job_id, list(needs.values()))
            if not needs.keys() <= added:
                ended_perhaps.append(job_id)
    if ended_perhaps:
        flows.recheck(c, ended_perhaps, now, "host")
    return ids


def _refuse_unknown(c: Connection, nodes: Sequence[Node]) -> None:
    outside = [need for node in nodes for need in node.needs if isinstance(need.target, int)]
    if not outside:
        return
    known = {job_id for (job_id,) in c.run(_KNOWN, {"ids": json.dumps([need.target for need in outside])})}
    for need in outside:
        if need.target not in known:
            raise InvalidJobError(need.field, f"is {need.target}, but there is no such job on {c.database.name}")


def _enrol(
    c: Connection, job_id: int, parent: int | None, needs: Sequence[Need], quorum: int | None, actor: str
) -> None:
    needed = None if quorum is None else min(quorum, len(needs))
    params = {"new_id": job_id, "parent": parent, "open": len(needs), "needed": needed, "actor": actor}
    c.change(_ENROL, params)


def spawn(
    c: Connection, lease: Lease, step: str, children: Sequence[Child], quorum: int | None, now: int, actor: str
) -> bool:
    """A running job creates children and waits for them, without its lease and with nothing counted. False if the lease is lost.

    Their ids are kept as the step's value, in the same transaction: the step never creates them again.
    """
    parents = c.run(_PARENT, {"job_id": lease.job_id, "epoch": lease.epoch})
    if not parents:
        return False
    given = dict(zip(("queue", "model", "priority", "tag"), parents[0], strict=True))
    needs = []
    for child in children:
        row = {**child.row, **{name: given[name] for name in child.inherits}, "changed_by": actor}
        job_id = host_store.add(c, row, child.body)
        _enrol(c, job_id, lease.job_id, (), None, actor)
        needs.append(Need(job_id, None, child.policy))
    ledger.save_step(c, lease, step, [need.depends_on for need in needs], now)
    flows.add_edges(c, lease.job_id, needs, step)
    params = {
        "job_id": lease.job_id,
        "epoch": lease.epoch,
        "children": len(needs),
        "needed": quorum,
        "reason": f"waits for {len(needs)} children of step {step!r}",
        "now": now,
        "actor": actor,
    }
    return c.change(_SPAWN, params) == 1


# --- reading -----------------------------------------------------------------------------------------------------------------------------


def _job_rows(rows: Iterable[Sequence[Any]]) -> list[JobRow]:
    found = []
    for row in rows:
        values = list(row)
        values[_STATE_AT] = JobState(values[_STATE_AT])
        found.append(JobRow(**dict(zip(JobRow.__dataclass_fields__, values, strict=True))))
    return found


def children(c: Connection, job_id: int) -> list[JobRow]:
    """The jobs that this one created while it ran, oldest first."""
    return _job_rows(c.run(_CHILDREN, {"wanted": job_id}))


def dependencies(c: Connection, job_id: int) -> list[JobRow]:
    """The jobs that this one waits on or has waited on, in the order of its needs."""
    return _job_rows(
        list(dict.fromkeys(c.run(_DEPENDENCIES, {"wanted": job_id})))
    )  # a turn may have two edges to one job


def dependents(c: Connection, job_id: int) -> list[JobRow]:
    """The jobs that wait on this one or have waited on it, oldest first."""
    return _job_rows(
        list(dict.fromkeys(c.run(_DEPENDENTS, {"wanted": job_id})))
    )  # a turn may have two edges to one job


def waits_on(c: Connection, row: JobRow, *, shown: int = 5) -> str:
    """What a job waits on, in words."""
    open_edges = c.run(_WAITS_ON, {"wanted": row.id, "limit": shown})
    counts: dict[str, dict[str, int]] = {}
    for step, state, count in c.run(_EDGE_COUNTS, {"wanted": row.id}):
        counts.setdefault(step, {})[state] = count
    parts: list[str] = []
    batched = 0
    for step, by_state in counts.items():
        still = by_state.get("open", 0)
        if not still:
            continue
        if step == TURN_STEP:
            parts.append("the turn before it")
            continue
        if step.startswith("@"):
            batched += still
            continue
        total = sum(by_state.values())
        noun = "children" if step else "jobs"
        needed = f", {row.quorum} needed" if row.quorum is not None else ""
        parts.append(f"{still} of {total} {noun}{needed}, {by_state.get('met', 0)} done")
    if batched:
        parts.append(f"{batched} {'request' if batched == 1 else 'requests'} that others' go with")
    told = ", ".join(f"job {target}{f' ({name})' if name else ''} {state}" for _, target, name, state, _ in open_edges)
    more = sum(by_state.get("open", 0) for by_state in counts.values()) - len(open_edges)
    return f"{' and '.join(parts) or 'nothing'}{f': {told}' if told else ''}{f' and {more} more' if more > 0 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How one job of a family belongs to another: `job_id` waits on `other_id` (its `edge` says how that stands), or created it, or both."""

    job_id: int
    other_id: int
    child: bool
    name: str | None = None
    policy: str | None = None
    edge: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """A job with everything below it: what it waits on and what it created, and theirs. `truncated`: there was more than was asked for."""

    root: int
    rows: Mapping[int, JobRow]
    below: Mapping[int, Sequence[Relation]]
    truncated: bool


def family_of(c: Connection, root: int, *, limit: int = 500) -> Family:
    """A job and everything below it, breadth first, about `limit` jobs at most."""
    below: dict[int, list[Relation]] = {}
    seen = {root}
    level = [root]
    while level and len(seen) < limit:
        ids = {"ids": json.dumps(level)}
        found: dict[tuple[int, int], Relation] = {}
        for job_id, other, _, name, policy, edge, _ in c.run(_NEEDS_OF, ids):
            found[job_id, other] = Relation(
                job_id=job_id, other_id=other, child=False, name=name, policy=policy, edge=edge
            )
        for parent, child, _ in c.run(_BELOW, ids):
            known = found.get((parent, child))
            found[parent, child] = Relation(
                job_id=parent,
                other_id=child,
                child=True,
                policy=known.policy if known else None,
                edge=known.edge if known else None,
            )
        for relation in found.values():
            below.setdefault(relation.job_id, []).append(relation)
        level = list(dict.fromkeys(relation.other_id for relation in found.values() if relation.other_id not in seen))
        seen.update(level)
    rows = {row.id: row for row in _job_rows(c.run(_ROWS, {"ids": json.dumps(sorted(seen))}))}
    return Family(root, rows, below, truncated=bool(level))


def tree_of(c: Connection, root: int) -> list[int]:
    """What cancelling this job as a tree cancels, each before what it created or waits on, and none that has ended.

    That is: the job; everything it created, and what that created, and so on; and whatever these wait on, if no other live job waits on it,
    with what that created. Turns of a conversation are nobody's but their host's.
    """
    state = {row.id: str(row.state) for row in _job_rows(c.run(_ROWS, {"ids": json.dumps([root])}))}
    members = dict.fromkeys(state)
    ended = {str(terminal) for terminal in TERMINAL_STATES}
    level = deque(members)
    while level:
        ids = {"ids": json.dumps(list(level))}
        level.clear()
        candidates = set()
        found = [(child, its_state) for _, child, its_state in c.run(_BELOW, ids)]
        for job_id, target, step, _, _, edge, its_state in c.run(_NEEDS_OF, ids):
            if not step.startswith("@") and edge == "open" and its_state not in ended and state[job_id] not in ended:
                candidates.add(target)
                state[target] = its_state
        for child, its_state in found:
            if child not in members:
                members[child] = None
                state[child] = its_state
                level.append(child)
        waited_for: dict[int, set[int]] = {target: set() for target in candidates - members.keys()}
        for target, waiter, its_state in c.run(_WAITERS_OF, {"ids": json.dumps(sorted(waited_for))}):
            if its_state not in ended and waiter not in members:
                waited_for[target].add(waiter)
        for target, others in waited_for.items():
            if not others:
                members[target] = None
                level.append(target)
    return [job_id for job_id in members if state[job_id] not in ended]
