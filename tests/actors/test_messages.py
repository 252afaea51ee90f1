"""The contract of messages: values that cannot change on their way, told and never asked."""

import ast
import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

import callboard.actors
from callboard.actors import messages
from callboard.persistence.model import Lease

ACTORS = Path(callboard.actors.__file__).resolve().parent
MODULES = [
    *(
        f"callboard.actors.messages.{actor}"
        for actor in ("names", "store", "answers", "limiter", "dispatcher", "runner", "provider")
    ),
    "callboard.actors.kernel.messages",
    "callboard.actors.supervisor.messages",
    "callboard.actors.dispatcher",
    "callboard.actors.store",
    "callboard.actors.claim_desk",
    "callboard.actors.runner.actor",
    "callboard.actors.runner.work",
    "callboard.actors.runner.effects",
    "callboard.actors.runner.handlers",
    "callboard.actors.providers.model",
]
MUTABLE = {"Call", "Looking", "Work"}
"""Records an actor keeps to itself."""


def classes():
    for name in MODULES:
        module = importlib.import_module(name)
        for label, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == name and dataclasses.is_dataclass(kind) and label not in MUTABLE:
                yield pytest.param(kind, id=f"{name.rpartition('actors.')[2]}.{label}")


@pytest.mark.parametrize("kind", list(classes()))
def test_every_message_is_frozen_slotted_and_documented(kind):
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)
    assert "__dict__" not in dir(kind)
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_every_class_of_the_protocol_is_looked_at():
    told = [getattr(messages, name) for name in messages.__all__ if inspect.isclass(getattr(messages, name))]
    assert len(told) > 50
    assert [kind for kind in told if not dataclasses.is_dataclass(kind)] == [
        messages.CallRef,
        messages.Charge,
        messages.ClaimPart,
    ]


def sources():
    return sorted(path for path in ACTORS.rglob("*.py") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ACTORS)))
def test_no_actor_asks_or_waits_for_another(path):
    """`ask` is for the edge. Inside, it would block a mailbox, and no simulation could run it."""
    edge = path.is_relative_to(ACTORS / "kernel")  # its own functions for the edge live there
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.endswith("kernel.ask"):
            assert [alias.name for alias in node.names] == ["ReplyTo"], f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not edge:
            called = node.func.attr
            assert called not in {"wait_ready", "wait_ended", "proxy"}, f"{path.name}:{node.lineno} calls {called}"


def test_messages_about_a_lease_compare_by_value():
    lease = Lease(1, 2)
    assert messages.RevokeJob(lease) == messages.RevokeJob(Lease(1, 2))
    assert messages.CallRef(1, 2, 3).lease == lease
