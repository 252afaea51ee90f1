"""A flow as a host describes it, checked: names, what waits on what, and the order to add it in. Pure: no database, no clock.

queue.add_flow({
"plan":  {"type": "chat", "data": {"prompt": "…"}},
"left":  {"type": "chat", "data": {"prompt": "… {results}"}, "needs": ["plan"]},
"right": {"type": "chat", "data": {"prompt": "… {results}"}, "needs": ["plan"]},
"merge": {"type": "chat", "data": {"prompt": "… {results}"}, "needs": ["left", ("right", "continue")]},
})
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from .errors import InvalidJobError
from .json_text import storable
from .new_job import NewJob, as_new_job

POLICIES = ("fail", "ignore", "continue")
"""What the failure of a job means for one that waits on it: it fails too, it goes on as if it had completed, or it goes on and is told."""
MAX_FLOW = 10_000
"""Jobs of one flow or children of one step: they are added in one transaction, which holds the write lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowJob(NewJob):
    """A job of a flow: a `NewJob`, what the flow calls it, and what it waits on.

    `needs`: names of the flow, or ids of jobs that are on the board; each alone or with a policy of its own, as `("plan", "continue")`.
    `policy`: that of the needs which name none. `quorum`: how many of them must be met: "all", "any", or a number.
    """

    name: str
    needs: Sequence[Any] = ()
    policy: str = "fail"
    quorum: int | str = "all"


class NamedNeed(NamedTuple):
    """One need, resolved: a name of the flow or a job's id, its policy, and the field to name if it is refused."""

    target: str | int
    policy: str
    field: str


@dataclass(frozen=True, slots=True)
class Node:
    """A job of a flow, checked. `quorum`: how many of its needs must be met, None: all. `field`: how errors call it."""

    name: str | None
    job: NewJob
    needs: tuple[NamedNeed, ...]
    quorum: int | None
    field: str


@dataclass(slots=True)
class _Given:
    name: str | None
    job: NewJob
    field: str
    needs: Any = ()
    policy: Any = "fail"
    quorum: Any = "all"


_EDGE_FIELDS = ("needs", "policy", "quorum")
_NEW_JOB_FIELDS = [each.name for each in fields(NewJob)]


def flow_nodes(jobs: Mapping[str, Any] | Iterable[Any]) -> list[Node]:
    """The jobs of a flow in an order in which each comes after what it needs. Raises InvalidJobError, which names the field."""
    if isinstance(jobs, Mapping):
        given = [_given(f"jobs.{name}", job, name) for name, job in jobs.items()]
    else:
        given = [_given(f"jobs[{place}]", job, None) for place, job in enumerate(jobs)]
    if len(given) > MAX_FLOW:
        raise InvalidJobError("jobs", f"are {len(given)}, more than the {MAX_FLOW} one flow may have")
    nodes: dict[str, Node] = {}
    for one in given:
        if not isinstance(one.name, str) or not 1 <= len(one.name) <= 100 or not storable(one.name):
            raise InvalidJobError(f"{one.field}.name", f"must be text of 1 to 100 characters, not {one.name!r:.200}")
        if one.name in nodes:
            raise InvalidJobError(
                f"{one.field}.name", f"is {one.name!r}, which {nodes[one.name].field} is called already"
            )
        nodes[one.name] = _node(one)
    for node in nodes.values():
        for need in node.needs:
            if isinstance(need.target, str) and need.target not in nodes:
                raise InvalidJobError(need.field, f"is {need.target!r}, which is no job of this flow")
    return _in_order(nodes)


def single_node(job: NewJob, needs: Sequence[Any], policy: Any, quorum: Any) -> Node:
    """A job that waits on jobs which are on the board. Raises InvalidJobError, which names the field."""
    node = _node(_Given(None, job, "", needs, policy, quorum))
    for need in node.needs:
        if isinstance(need.target, str):
            raise InvalidJobError(need.field, f"must be the id of a job, not {need.target!r}; names are for add_flow")
    return node


def check_policy(where: str, policy: Any) -> str:
    """Raises InvalidJobError if there is no such policy."""
    if policy not in POLICIES:
        raise InvalidJobError(where, f"must be one of {', '.join(POLICIES)}, not {policy!r:.200}")
    return str(policy)


def check_quorum(where: str, quorum: Any, among: int) -> int | None:
    """How many of that many must be met, None: all. Raises InvalidJobError."""
    if quorum == "all" or quorum is None:
        return None
    if quorum == "any":
        quorum = 1
    if not isinstance(quorum, int) or isinstance(quorum, bool) or not 1 <= quorum <= among:
        raise InvalidJobError(where, f"must be 'all', 'any' or a number from 1 to {among}, not {quorum!r:.200}")
    return quorum


def _given(where: str, job: Any, name: str | None) -> _Given:
    if isinstance(job, FlowJob):
        plain = NewJob(**{name: getattr(job, name) for name in _NEW_JOB_FIELDS})
        return _Given(name or job.name, plain, where, job.needs, job.policy, job.quorum)
    if isinstance(job, NewJob):
        return _Given(name, job, where)
    if not isinstance(job, Mapping):
        raise InvalidJobError(where, f"must be a NewJob, a FlowJob or a mapping of their fields, not {job!r:.200}")
    rest = dict(job)
    said = rest.pop("name", None)
    if name is not None and said not in (None, name):
        raise InvalidJobError(f"{where}.name", f"is {said!r}, but the flow calls it {name!r}")
    edges = {key: rest.pop(key) for key in _EDGE_FIELDS if key in rest}
    try:
        plain = as_new_job(rest)
    except InvalidJobError as error:
        raise InvalidJobError(f"{where}.{error.field}", error.problem) from error
    return _Given(name or said, plain, where, **edges)


def _node(given: _Given) -> Node:
    inside = f"{given.field}." if given.field else ""
    policy = check_policy(f"{inside}policy", given.policy)
    needs = given.needs
    if isinstance(needs, str | bytes | Mapping) or not isinstance(needs, Iterable):
        raise InvalidJobError(f"{inside}needs", f"must be a list of names or ids, not {needs!r:.200}")
    found: dict[str | int, NamedNeed] = {}
    for place, need in enumerate(needs):
        where = f"{inside}needs[{place}]"
        target, its_policy = need, policy
        if isinstance(need, list | tuple):
            if len(need) != 2:
                raise InvalidJobError(where, f"must be a name, or a pair of a name and a policy, not {need!r:.200}")
            target, its_policy = need[0], check_policy(where, need[1])
        target = getattr(target, "id", target)  # a Job
        if not isinstance(target, str | int) or isinstance(target, bool):
            raise InvalidJobError(
                where, f"must be the name of a job of the flow or the id of a job, not {target!r:.200}"
            )
        if target in found:
            raise InvalidJobError(where, f"is {target!r} a second time")
        found[target] = NamedNeed(target, its_policy, where)
    quorum = check_quorum(f"{inside}quorum", given.quorum, len(found)) if given.quorum != "all" else None
    return Node(given.name, given.job, tuple(found.values()), quorum, given.field)


def _in_order(nodes: Mapping[str, Node]) -> list[Node]:
    """Kahn's algorithm, first come first; raises for what is left: a cycle."""
    open_needs = {name: sum(isinstance(need.target, str) for need in node.needs) for name, node in nodes.items()}
    needed_by: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for need in node.needs:
            if isinstance(need.target, str):
                needed_by.setdefault(need.target, []).append(name)
    order = [name for name, count in open_needs.items() if count == 0]
    free = deque(order)
    while free:
        for waiting in needed_by.get(free.popleft(), ()):
            open_needs[waiting] -= 1
            if open_needs[waiting] == 0:
                order.append(waiting)
                free.append(waiting)
    left = {name for name, count in open_needs.items() if count}  # on a circle, or in need of one that is
    if left:
        ring = _cycle(nodes, left)
        raise InvalidJobError(f"{nodes[ring[0]].field}.needs", f"go round in a circle: {' needs '.join(ring)}")
    return [nodes[name] for name in order]


def _cycle(nodes: Mapping[str, Node], left: AbstractSet[str]) -> list[str]:
    """A circle among those left, found by going from need to need until a name comes again."""
    name = next(name for name in nodes if name in left)
    places: dict[str, int] = {}
    while name not in places:
        places[name] = len(places)
        name = next(str(need.target) for need in nodes[name].needs if need.target in left)
    return [*list(places)[places[name] :], name]
