"""What the embeddings endpoints share: what no provider would take, and vectors that come as plain lists in the order of the texts. Pure."""

from array import array
from collections.abc import Callable
from math import isfinite
from typing import Any

from .errors import refused
from .model import CallError, EmbeddingRequest
from .settings import ProviderSettings


def check_inputs(request: EmbeddingRequest, *, max_inputs: int, owned: frozenset[str]) -> CallError | None:
    """Return the refusal of a request that no provider would take, so that no call is spent on it; None if it may go."""
    if not request.inputs:
        return refused("inputs", "there is no text to turn into a vector")
    if len(request.inputs) > max_inputs:
        return refused("inputs", f"{len(request.inputs)} texts are over the limit of {max_inputs} in one request")
    for index, text in enumerate(request.inputs):
        if not text:
            return refused(f"inputs[{index}]", "an empty text has no vector")
    for name in request.extra:
        if name in owned:
            return refused(f"extra.{name}", "this field is decided by the request itself; set it there")
    return None


def choose_options(
    request: EmbeddingRequest, settings: ProviderSettings, *, dimensions: str
) -> dict[str, Any] | CallError:
    """Return the optional fields to send (`dimensions` is what the wire calls them) without the unsupported ones, or the refusal."""
    chosen = {name: value for name, value in request.extra.items() if name not in settings.unsupported}
    if request.dimensions is not None:
        if "dimensions" not in settings.unsupported:
            chosen[dimensions] = request.dimensions
        elif settings.on_unsupported == "error":
            return refused("dimensions", f"provider {settings.name!r} does not support this field; leave it out")
    return chosen


def read_vectors(items: Any, inputs: int, numbers: Callable[[Any], Any]) -> "tuple[array[float], ...] | str":
    """Return as many vectors as there were texts, or what is wrong with them. `numbers`: from an item to its list of numbers."""
    if not isinstance(items, list):
        return "the reply holds no vectors"
    if len(items) != inputs:
        return f"{len(items)} vectors for {inputs} inputs"
    found: list[array[float]] = []
    for place, item in enumerate(items):
        values = numbers(item)
        try:
            vector = array("f", values if isinstance(values, list) else [])
        except (TypeError, ValueError, OverflowError):
            return f"vector {place} is not a list of numbers"
        if not vector:
            return f"vector {place} is empty, or is not a list of numbers"
        if not all_finite(vector):
            return f"vector {place} holds what is no finite 32-bit number"
        found.append(vector)
    if len({len(vector) for vector in found}) > 1:
        return "the vectors are of different lengths"
    return tuple(found)


def all_finite(vector: "array[float]") -> bool:
    """Whether there is no NaN and no infinity in it: neither can be compared with another vector, nor written as JSON.

    One sum tells: no number of finite 32-bit ones comes near the largest 64-bit one.
    """
    return isfinite(sum(vector))
