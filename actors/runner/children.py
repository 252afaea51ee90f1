"""What a handler says of children it creates, checked. Pure."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ...persistence.errors import InvalidJobError
from ...persistence.family import Child
from ...persistence.flow_plan import MAX_FLOW, check_policy, check_quorum
from ...persistence.new_job import NewJob, as_new_job, rows_of
from .effects import SpawnChildren
from .handlers import Answer

INHERITED = ("queue", "model", "priority", "tag")
"""What a child takes from its parent unless it says otherwise."""

_DEFAULTS = {field.name: field.default for field in fields(NewJob)}
# A child is made once, by its step; and in a conversation it could come to wait for its own parent.
_REFUSED = ("key", "unique", "debounce", "throttle", "conversation")


def children_of(effect: SpawnChildren, now_ms: int) -> tuple[tuple[Child, ...], int | None]:
    """The children's rows, and how many must be met (None: all). Raises InvalidJobError, which names the field."""
    if not isinstance(effect.step, str) or not effect.step or effect.step.startswith("@"):
        raise InvalidJobError("step", f"must be text that does not begin with '@', not {effect.step!r:.200}")
    policy = check_policy("policy", effect.policy)
    given = list(effect.jobs)
    if len(given) > MAX_FLOW:
        raise InvalidJobError("jobs", f"are {len(given)}, more than the {MAX_FLOW} one step may create")
    made = []
    for place, child in enumerate(given):
        try:
            made.append(_child(child, policy, now_ms))
        except InvalidJobError as error:
            raise InvalidJobError(f"jobs[{place}].{error.field}", error.problem) from error
    quorum = check_quorum("quorum", effect.quorum, len(made)) if made else None
    return tuple(made), quorum


def _child(given: NewJob | Mapping[str, Any], policy: str, now_ms: int) -> Child:
    if not isinstance(given, NewJob):
        own = {**given}
        policy = check_policy("policy", own.pop("policy", policy))
        said = set(own)
        job = as_new_job(own)
    else:
        job = given  # of which only what differs from the default can be known to have been said
        said = {name for name in _DEFAULTS if getattr(job, name) != _DEFAULTS[name]}
    for name in _REFUSED:
        if getattr(job, name, None) is not None:
            raise InvalidJobError(name, "cannot be given to a child")
    row, body = rows_of(job, now_ms)
    return Child(row, body, frozenset(name for name in INHERITED if name not in said), policy)


class AnswerInstead:
    """Gives what was decided before, whatever it is given; for a step whose value goes by another name than its effect's result."""

    def __init__(self, answer: Answer, value: Any) -> None:
        self._answer, self._value = answer, value

    def give(self, _: Any) -> None:
        """Give the value decided on."""
        self._answer.give(self._value)

    def refuse(self, error: BaseException) -> None:
        """The effect raises."""
        self._answer.refuse(error)
