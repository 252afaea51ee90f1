"""The table of faults of embeddings: the connections and refusals of every call, and what may be wrong with vectors."""

import gzip
import json
from dataclasses import replace

from fault_acts import HTML, JSON, error_in_200, never_answers, not_gzip, replies
from fault_kinds import FIRST_TOKEN, MAX_BODY, NO_PROGRESS, SOON, End, Fault, failed
from fault_rows_http import CONNECTION, STATUS
from fault_vectors import NAMES, TEXTS, VECTORS, WIRES, body, embeds, items, put, reply, spoils, tells

OPENAI = NAMES[:1]
LISTED = NAMES[1:]
"""Where the vectors are plain lists in the order of the texts."""
EMBEDDED = End("completed", "", 1)
MALFORMED = failed("malformed", 2, "maybe")
TRUNCATED = failed("truncated", 2, "maybe")


def _of_vectors(fault: Fault) -> Fault:
    """A row of the chats' table, as it is for embeddings: an answer has no finish."""
    end = replace(fault.end, what="") if fault.end.state == "completed" else fault.end
    act = embeds if fault.name == "tls-good" else fault.act
    only = tuple(name for name, wire in WIRES.items() if wire in fault.only)
    return replace(fault, name=f"{fault.name}", end=end, act=act, only=only)


def _stream(*pieces, end="whole", pace=0.0):
    """A body in pieces, and how it ends."""

    async def act(peer, wire):
        whole = body(wire)
        lines = ["HTTP/1.1 200 OK", JSON, "transfer-encoding: chunked", "", ""]
        await peer.send("\r\n".join(lines).encode())
        for piece in pieces:
            await peer.chunk(piece(whole) if callable(piece) else piece)
        while pace:
            await peer.chunk(pieces[-1])
            await peer.pause(pace)
        await peer.end(end)

    return act


async def _cut(peer, wire):
    whole = body(wire)
    await peer.reply(whole[: len(whole) // 2], length=len(whole))


async def _half(peer, wire):
    whole = body(wire)
    await peer.reply(whole[: len(whole) // 2])


async def _gzipped(peer, wire):
    await peer.reply(gzip.compress(body(wire)), headers=(JSON, "content-encoding: gzip"))


def _headed(*headers):
    async def act(peer, wire):
        await peer.reply(body(wire), headers=headers)

    return act


def _half_of(whole):
    return whole[: len(whole) // 2]


def _rest_of(whole):
    return whole[len(whole) // 2 :]


def _literal(word):
    """A number that JSON has no word for, but Python's and many others' readers take."""

    def make(wire):
        told = reply(wire, ([0.5, -0.25, 12345.0], [0.125, 0.0, -2.0]), pack=False)
        return json.dumps(told).replace("12345.0", word).encode()

    return tells(make)


def row(name, group, does, end, act, **more):
    return Fault(name, group, does, end, act=act, **{"only": NAMES, **more})


BODY = [
    row("200-empty", "Body of a 200", "nothing", MALFORMED, replies(b"", "200 OK", JSON)),
    row("200-html", "Body of a 200", "a page", MALFORMED, replies(HTML, "200 OK", "content-type: text/html")),
    row("200-half", "Body of a 200", "half of it, with a length that says so", MALFORMED, _half),
    row("200-cut", "Body of a 200", "half of it, and then the connection ends", TRUNCATED, _cut),
    row(
        "200-cut-chunks",
        "Body of a 200",
        "half of it in chunks, and then the connection ends",
        TRUNCATED,
        _stream(_half_of, end="cut"),
    ),
    row(
        "200-reset",
        "Body of a 200",
        "half of it in chunks, and then a reset",
        TRUNCATED,
        _stream(_half_of, end="reset"),
    ),
    row("200-chunks", "Body of a 200", "the whole of it in two chunks", EMBEDDED, _stream(_half_of, _rest_of)),
    row(
        "200-spaces",
        "Body of a 200",
        "white space, and then the whole of it",
        EMBEDDED,
        _stream(b" \n" * 50, _half_of, _rest_of),
    ),
    row("200-error", "Body of a 200", "an error of the server's", failed("server", 2, "maybe"), error_in_200),
    row(
        "200-other-json",
        "Body of a 200",
        "JSON of something else",
        MALFORMED,
        replies(b'{"hello": [1]}', "200 OK", JSON),
    ),
    row("200-list", "Body of a 200", "JSON that is no object", MALFORMED, replies(b"[[0.5, 0.25]]", "200 OK", JSON)),
    row("200-huge", "Body of a 200", "more than 64 MB", MALFORMED, replies(b" " * (MAX_BODY + 1), "200 OK", JSON)),
    row(
        "200-not-utf8",
        "Body of a 200",
        "bytes that are no UTF-8",
        MALFORMED,
        replies(b'{"data": "\xff\xfe"}', "200 OK", JSON),
    ),
    row(
        "200-deep",
        "Body of a 200",
        "JSON of ten thousand lists within each other",
        MALFORMED,
        replies(b"[" * 10_000, "200 OK", JSON),
    ),
    row("gzip", "Body of a 200", "gzipped, though it was not asked for", EMBEDDED, _gzipped),
    row("not-gzip", "Body of a 200", "said to be gzipped, and is not", TRUNCATED, not_gzip),
    row(
        "stall-body",
        "Body of a 200",
        "stands still in its middle (`no_progress`)",
        failed("timeout", 2, "maybe", code="no_progress"),
        _stream(_half_of, end="stall"),
        options=NO_PROGRESS,
    ),
    row(
        "spaces-only",
        "Body of a 200",
        "white space for ever (`first_token`)",
        failed("timeout", 2, "maybe", code="first_token"),
        _stream(b" \n", pace=0.02),
        options=FIRST_TOKEN,
    ),
    row(
        "trickle",
        "Body of a 200",
        "a little more of it for ever (`total`)",
        failed("timeout", 2, "maybe", code="total"),
        _stream(b"[1", pace=0.02),
        options=SOON,
    ),
]

VECTOR_ROWS = [
    row("good", "Vectors", "none: the vectors as they should be", EMBEDDED, embeds),
    row(
        "one-less", "Vectors", "one vector less than texts", MALFORMED, spoils(lambda told: items(told).pop() and None)
    ),
    row(
        "one-more",
        "Vectors",
        "one vector more than texts",
        MALFORMED,
        spoils(lambda told: items(told).append(items(told)[0])),
    ),
    row("none", "Vectors", "no vector", MALFORMED, spoils(lambda told: items(told).clear())),
    row(
        "null-vectors",
        "Vectors",
        "`null` in place of the vectors",
        MALFORMED,
        spoils(lambda told: {name: None if isinstance(value, list) else value for name, value in told.items()}),
    ),
    row(
        "null-item",
        "Vectors",
        "`null` in place of one",
        MALFORMED,
        spoils(lambda told: items(told).__setitem__(1, None)),
    ),
    row("null-vector", "Vectors", "`null` for its numbers", MALFORMED, spoils(lambda told: put(told, 1, None))),
    row("no-numbers", "Vectors", "a vector without numbers", MALFORMED, spoils(lambda told: put(told, 1, []))),
    row("words", "Vectors", "words for numbers", MALFORMED, spoils(lambda told: put(told, 1, ["0.5", "x", ""]))),
    row("nested", "Vectors", "lists for numbers", MALFORMED, spoils(lambda told: put(told, 1, [[0.5], [1.0], [0.0]]))),
    row("object", "Vectors", "an object for a vector", MALFORMED, spoils(lambda told: put(told, 1, {"0": 0.5}))),
    row(
        "lengths", "Vectors", "vectors of two lengths", MALFORMED, tells(lambda wire: reply(wire, ([0.5, 1.0], [0.5])))
    ),
    row("nan", "Vectors", "`NaN` among its numbers", MALFORMED, _literal("NaN")),
    row("infinity", "Vectors", "`Infinity` among its numbers", MALFORMED, _literal("-Infinity")),
    row("huge-number", "Vectors", "a number beyond 32 bits (1e39)", MALFORMED, _literal("1e39")),
    row("overflow", "Vectors", "a number beyond any (1e999)", MALFORMED, _literal("1e999")),
    row(
        "whole-numbers",
        "Vectors",
        "whole numbers",
        EMBEDDED,
        tells(lambda wire: reply(wire, ([1, 0, 3], [0, 2, 0]), pack=False)),
        says=([1, 0, 3], [0, 2, 0]),
    ),
    row(
        "zeros",
        "Vectors",
        "nothing but zeros",
        EMBEDDED,
        tells(lambda wire: reply(wire, ([0.0, 0.0], [0.0, 0.0]))),
        says=([0.0, 0.0], [0.0, 0.0]),
    ),
    row(
        "other-dimension",
        "Vectors",
        "vectors of another length than the job asked for: they are taken as they are",
        EMBEDDED,
        embeds,
        data={"dimensions": 2},
    ),
    row(
        "plain-numbers",
        "Vectors",
        "lists of numbers, though base64 was asked for",
        EMBEDDED,
        tells(lambda wire: reply(wire, pack=False)),
        only=OPENAI,
    ),
    row(
        "not-base64",
        "Vectors",
        "text that is no base64",
        MALFORMED,
        spoils(lambda told: put(told, 1, "!!!")),
        only=OPENAI,
    ),
    row(
        "text-vector",
        "Vectors",
        "text in place of a list",
        MALFORMED,
        spoils(lambda told: put(told, 1, "AAAA")),
        only=LISTED,
    ),
    row(
        "odd-base64",
        "Vectors",
        "base64 of three bytes",
        MALFORMED,
        spoils(lambda told: put(told, 1, "AAAA")),
        only=OPENAI,
    ),
    row(
        "nan-base64",
        "Vectors",
        "base64 with NaN in it",
        MALFORMED,
        spoils(lambda told: put(told, 1, "AADAfwAAwH8AAMB/")),
        only=OPENAI,
    ),
    row(
        "other-order",
        "Vectors",
        "in another order, with their indices",
        EMBEDDED,
        spoils(lambda told: items(told).reverse()),
        only=OPENAI,
    ),
    row(
        "no-index",
        "Vectors",
        "without indices: they are taken in their order",
        EMBEDDED,
        spoils(lambda told: [item.pop("index") for item in items(told)] and None),
        only=OPENAI,
    ),
    row(
        "index-twice",
        "Vectors",
        "one index twice",
        MALFORMED,
        spoils(lambda told: items(told)[1].update(index=0)),
        only=OPENAI,
    ),
    row(
        "index-beyond",
        "Vectors",
        "an index beyond the texts",
        MALFORMED,
        spoils(lambda told: items(told)[1].update(index=2)),
        only=OPENAI,
    ),
    row(
        "index-negative",
        "Vectors",
        "an index below 0",
        MALFORMED,
        spoils(lambda told: items(told)[1].update(index=-1)),
        only=OPENAI,
    ),
    row(
        "index-text",
        "Vectors",
        "an index that is text",
        MALFORMED,
        spoils(lambda told: items(told)[1].update(index="1")),
        only=OPENAI,
    ),
    row(
        "index-true",
        "Vectors",
        "an index that is `true`",
        MALFORMED,
        spoils(lambda told: items(told)[1].update(index=True)),
        only=OPENAI,
    ),
    row(
        "unknown-fields",
        "Vectors",
        "fields that nobody knows",
        EMBEDDED,
        spoils(lambda told: told.update(of_tomorrow=[1, {"a": None}])),
    ),
    row("no-usage", "Vectors", "no usage", replace(EMBEDDED, usage=False), tells(lambda wire: reply(wire, usage=None))),
    row("null-usage", "Vectors", "usage that is no number", EMBEDDED, tells(lambda wire: reply(wire, usage="seven"))),
    row(
        "negative-usage",
        "Vectors",
        "negative usage: it counts as 0",
        EMBEDDED,
        tells(lambda wire: reply(wire, usage=-7)),
    ),
    row(
        "absurd-usage",
        "Vectors",
        "absurd usage (1e300): it counts as 0",
        EMBEDDED,
        tells(lambda wire: reply(wire, usage=1e300)),
    ),
    row(
        "model-number",
        "Vectors",
        "a number for the model's name",
        EMBEDDED,
        tells(lambda wire: reply(wire, model=7)),
        only=(NAMES[0], NAMES[2]),
    ),
    row(
        "park-unknown",
        "Vectors",
        'no reply, and the job says `on_unknown = "park"`',
        End("failed", "unknown_outcome", 1, 1, "maybe", "request"),
        never_answers,
        options={**FIRST_TOKEN, "on_unknown": "park"},
    ),
    row(
        "once-malformed",
        "Vectors",
        "a vector less, once",
        replace(EMBEDDED, requests=2, attempts=1),
        spoils(lambda told: items(told).pop() and None),
        once=True,
    ),
]

HEADERS = [
    row("no-type", "Headers", "no content-type", EMBEDDED, _headed()),
    row("other-type", "Headers", "called text/html", EMBEDDED, _headed("content-type: text/html")),
    row(
        "charset",
        "Headers",
        "the charset of something else",
        EMBEDDED,
        _headed("content-type: application/json; charset=utf-16"),
    ),
    row(
        "limits-twice",
        "Headers",
        "rate-limit headers twice, and absurd",
        EMBEDDED,
        _headed(
            JSON,
            *(
                f"{name}: {value}"
                for value in ("-1", "1e99", "NaN", "")
                for name in ("x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens", "retry-after")
            ),
        ),
    ),
    row(
        "headers-64k",
        "Headers",
        "64 KB of headers",
        EMBEDDED,
        _headed(JSON, *(f"x-padding-{n}: {'x' * 1000}" for n in range(64))),
    ),
    row(
        "headers-endless",
        "Headers",
        "more than 100 KB of headers",
        failed("connect", 2, "maybe", "provider"),
        _headed(JSON, *(f"x-padding-{n}: {'x' * 1000}" for n in range(128))),
    ),
    row("header-bytes", "Headers", "a header that is no ASCII", EMBEDDED, _headed(JSON, "x-odd: \xe9\xff")),
    row(
        "no-http",
        "Headers",
        "two lengths that differ",
        failed("connect", 2, "maybe", "provider"),
        replies(b"{}", "200 OK", "content-length: 7"),
    ),
]

assert len(TEXTS) == len(VECTORS)
ROWS = (*map(_of_vectors, (*CONNECTION, *STATUS)), *BODY, *VECTOR_ROWS, *HEADERS)
"""Rows of embeddings, at the three wires that have them."""
