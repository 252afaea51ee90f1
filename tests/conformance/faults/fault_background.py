"""A provider that goes on with calls, byte for byte: a call is made, followed after an event, looked at, and ended. Each may go wrong by itself."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fault_bodies as wires
from fault_kinds import Act

WIRE = "openai-responses"
TOLD = wires.WIRES[WIRE]
EVENTS = wires.events(WIRE, wires.whole(WIRE))
CREATED, SOME = EVENTS[:1], EVENTS[:12]
"""The event that names the call; and that, with the first words."""


def plays(**acts: Act | list[Act]) -> Act:
    """`make`, `follow`, `look`: what is done with the first, second, … request of each kind; the last goes on for ever, and what is not given is good."""

    async def act(peer, wire):
        kind = kind_of(peer)
        peer.kinds[kind] += 1
        given = acts.get(kind, good)
        listed = given if isinstance(given, list) else [given]
        await listed[min(peer.kinds[kind], len(listed)) - 1](peer, wire)

    return act


def kind_of(peer) -> str:
    path = urlsplit(peer.path)
    if peer.method == "POST":
        return "cancel" if path.path.endswith("/cancel") else "make"
    return "follow" if "stream=true" in path.query else "look"


def events_for(peer) -> list[bytes]:
    """What a follower is still to be told."""
    after = parse_qs(urlsplit(peer.path).query).get("starting_after")
    return EVENTS if after is None else [event for event in EVENTS if _number(event) > int(after[0])]


def _number(event: bytes) -> int:
    return json.loads(event.split(b"data: ", 1)[1])["sequence_number"]


async def good(peer, wire):
    kind = kind_of(peer)
    if kind == "look":
        await peer.reply(wires.body(wire))
    elif kind == "cancel":
        await peer.reply(json.dumps(TOLD.response("cancelled", usage=False)).encode())
    else:
        await peer.stream(wire, b"".join(EVENTS if kind == "make" else events_for(peer)))


def told(events: list[bytes] | None = None, *, end: str = "cut", more: bytes = b"") -> Act:
    """These events (None: those that are still to be told), and then the connection ends, is reset, stands still, or all is in good order."""

    async def act(peer, wire):
        await peer.open(wire)
        await peer.chunk(b"".join(events_for(peer) if events is None else events) + more)
        await peer.end(end)

    return act


async def one_more(peer, wire):
    """One event further, and lost again."""
    await peer.open(wire)
    await peer.chunk(events_for(peer)[0])
    peer.close()


async def vanishes(peer, wire):
    peer.close()


async def resets(peer, wire):
    peer.reset()


def stands(status: str, **fields: Any) -> Act:
    """What is said to who looks."""

    async def act(peer, wire):
        await peer.reply(json.dumps({**TOLD.response(status, usage=False), **fields}).encode())

    return act


def event(kind: str, **response: Any) -> bytes:
    """An event that ends the call."""
    return TOLD.sse(
        {
            "type": kind,
            "sequence_number": 9998,
            "response": {**TOLD.response(kind.split(".")[1], usage=False), **response},
        }
    )


def named(value: Any) -> list[bytes]:
    """The events of a call with another name than `r`."""
    return [one.replace(b'"id": "r"', b'"id": ' + json.dumps(value).encode()) for one in EVENTS]


def unnumbered(events: list[bytes]) -> list[bytes]:
    return [one.replace(b'"sequence_number"', b'"of_tomorrow"') for one in events]
