"""What the server does with a request, fault by fault."""

import gzip
from collections.abc import Callable
from email.utils import formatdate

import fault_bodies as wires
from fault_kinds import Act

JSON = "content-type: application/json"
HTML = b"<html><head><title>Bad Gateway</title></head><body><h1>Bad gateway</h1></body></html>"


def says(status: str, what: str, *headers: str) -> Act:
    """A refusal in the provider's own words."""

    async def act(peer, wire):
        await peer.reply(wires.error(wire, what, int(status[:3])), status, (JSON, *headers))

    return act


def replies(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Act:
    async def act(peer, wire):
        await peer.reply(body, status, headers, length=length)

    return act


def streams(make: Callable[[str], bytes | list[bytes]], *headers: str, end: str = "whole") -> Act:
    """A stream, in one piece or in several; and then it ends as HTTP wants it, is cut, reset, or stands still."""

    async def act(peer, wire):
        made = make(wire)
        await peer.open(wire, *headers)
        for piece in made if isinstance(made, list) else [made]:
            await peer.chunk(piece)
        await peer.end(end)

    return act


async def answers(peer, wire):
    await peer.stream(wire, wires.whole(wire))


async def answers_at_once(peer, wire):
    await peer.reply(wires.body(wire))


async def http_date(peer, wire):
    await peer.reply(
        wires.error(wire, "rate", 429),
        "429 Too Many",
        (JSON, f"retry-after: {formatdate(peer.now() + 40, usegmt=True)}"),
    )


async def retry_info(peer, wire):
    body = wires.error(wire, "rate", 429).replace(
        b'"details": []', b'"details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "14s"}]'
    )
    await peer.reply(body, "429 Too Many")


async def redirects(peer, wire):
    if peer.name == "redirected-to":
        return await answers(peer, wire)
    return await peer.reply(b"", "307 Temporary", (f"location: http://{peer.host()}/redirected-to/v1",))


async def keep_alives_only(peer, wire):
    await peer.open(wire)
    for _ in range(3):
        await peer.chunk(wires.WIRES[wire].KEEP_ALIVES)
    await peer.stall()


async def trickles(peer, wire):
    """Text for ever, each piece well within the deadline for progress."""
    await peer.open(wire)
    await peer.chunk(wires.opening(wire))
    while True:
        await peer.chunk(wires.one_text(wire))
        await peer.pause(0.02)


async def never_answers(peer, wire):
    await peer.stall()


async def half_a_head(peer, wire):
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")
    peer.close()


async def gzipped(peer, wire):
    media = "application/x-ndjson" if wire == "ollama" else "text/event-stream"
    await peer.reply(gzip.compress(wires.whole(wire)), headers=(f"content-type: {media}", "content-encoding: gzip"))


async def not_gzip(peer, wire):
    await peer.reply(b"\x1f\x8bno gzip at all", headers=("content-type: text/event-stream", "content-encoding: gzip"))


async def whole_json(peer, wire):
    await answers_at_once(peer, wire)


def typed(*headers: str) -> Act:
    """The stream under other headers than its own."""

    async def act(peer, wire):
        await peer.reply(wires.whole(wire), headers=headers)

    return act


async def error_in_200(peer, wire):
    await peer.reply(wires.error(wire, "server", 500))


async def cut_body(peer, wire):
    body = wires.body(wire)
    await peer.reply(body[: len(body) // 2], length=len(body))


async def short_json(peer, wire):
    body = wires.body(wire)
    await peer.reply(body[: len(body) // 2])


def cr_lf(wire):
    return wires.whole(wire).replace(b"\n", b"\r\n")


def with_unknown(wire):
    made = wires.events(wire, wires.whole(wire))
    return b"".join(wires.unknown_events(wire) + event for event in made)


def separators(wire):
    """U+2028, U+2029 and U+0085 are legal inside JSON strings, and break lines for those who split text instead of bytes."""
    return wires.WIRES[wire].text_stream("a\u2028b\u2029c\u0085d")


async def echoes(peer, wire):
    """A debugging proxy's page: everything that was sent, the key too."""
    await peer.reply(b"<pre>" + peer.head + b"</pre>", "401 No", ("content-type: text/html",))
