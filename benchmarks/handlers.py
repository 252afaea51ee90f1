"""Handlers that do nothing but come back, in the form of the built-in types: what is measured is what surrounds them."""

import time
from collections.abc import Generator
from typing import Any

from callboard.actors.runner.effects import Effect
from callboard.persistence.model import ClaimedJob


def noop(_: ClaimedJob) -> Generator[Effect, Any, dict[str, int]]:
    yield from ()
    return {"n": 1}


def moment(_: ClaimedJob) -> Generator[Effect, Any, dict[str, int]]:
    """When it was called, in epoch nanoseconds."""
    yield from ()
    return {"at": time.time_ns()}


HANDLERS = {"noop": "benchmarks.handlers:noop", "moment": "benchmarks.handlers:moment"}
