"""A job's tree as `callboard show` draws it: what it waits on and what it created, and theirs. Pure."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .text import plain

if TYPE_CHECKING:
    from callboard.persistence.family import Family, Relation

MAX_LINES = 200


def family_lines(family: "Family") -> Iterator[tuple[int, str, str]]:
    """One line for each place in the tree: how deep it is, what it says, and the job's state. A job is drawn below once, and named after that."""
    drawn = {family.root}
    pending: list[tuple[int, Relation]] = [(1, relation) for relation in reversed(family.below.get(family.root, ()))]
    yield 0, f"job {family.root} {plain(family.rows[family.root].type)}", str(family.rows[family.root].state)
    lines = 1
    while pending:
        depth, relation = pending.pop()
        row = family.rows.get(relation.other_id)
        if row is None:
            continue
        if lines == MAX_LINES:
            yield depth, f"and {len(pending) + 1} more below", ""
            return
        lines += 1
        again = row.id in drawn and row.id in family.below
        yield (
            depth,
            f"{_how(relation)} job {row.id} {plain(row.type)}{' (drawn above)' if again else ''}",
            str(row.state),
        )
        if row.id not in drawn:
            drawn.add(row.id)
            pending += [(depth + 1, below) for below in reversed(family.below.get(row.id, ()))]
    if family.truncated:
        yield 1, "and more below", ""


def _how(relation: "Relation") -> str:
    kind = "child" if relation.child else "needs"
    name = f" {plain(relation.name)!r}" if relation.name else ""
    notes = [note for note in (relation.policy, relation.edge) if note not in (None, "fail", "open", "met")]
    return f"{kind}{name}{' [' + ', '.join(map(str, notes)) + ']' if notes else ''}"


def family_json(family: "Family") -> dict[str, Any]:
    """The tree for programs: the jobs, and how they belong together."""
    return {
        "jobs": [
            {"id": row.id, "type": row.type, "state": str(row.state), "pending": row.pending, "quorum": row.quorum}
            for row in family.rows.values()
        ],
        "edges": [
            {
                "job": relation.job_id,
                "on": relation.other_id,
                "child": relation.child,
                "name": relation.name,
                "policy": relation.policy,
                "state": relation.edge,
            }
            for relations in family.below.values()
            for relation in relations
        ],
        "truncated": family.truncated,
    }
