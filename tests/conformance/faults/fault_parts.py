"""What is asked of a provider in each part of the table, and how it answers where nothing is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import fault_acts
import fault_background
import fault_bodies as wires
import fault_own
import fault_vectors
from fault_kinds import Act


@dataclass(frozen=True)
class Part:
    """One kind of call at one wire format. `whole`: whether a job's result is all that was said."""

    name: str
    wire: str
    job: str
    data: Mapping[str, Any]
    good: Act
    whole: Callable[[Any, Any], bool]
    base: str
    background: bool = False


def _told(result, says):
    return result["text"] == says


CHATS = tuple(
    Part(wire, wire, "chat", {"prompt": "Say something."}, fault_acts.answers, _told, wires.WIRES[wire].BASE)
    for wire in wires.NAMES
)
EMBEDDINGS = tuple(
    Part(
        name,
        wire,
        "embed",
        {"inputs": list(fault_vectors.TEXTS)},
        fault_vectors.embeds,
        fault_vectors.whole,
        wires.WIRES[wire].BASE,
    )
    for name, wire in fault_vectors.WIRES.items()
)
OWN = Part("own", "own", "chat", {"prompt": "Say something."}, fault_own.answers, fault_own.whole, "")
BACKGROUND = Part(
    "background",
    fault_background.WIRE,
    "chat",
    {"prompt": "Say something."},
    fault_background.good,
    _told,
    wires.WIRES[fault_background.WIRE].BASE,
    background=True,
)
PARTS = {part.name: part for part in (*CHATS, *EMBEDDINGS, OWN, BACKGROUND)}
