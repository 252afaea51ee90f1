"""The table of faults of the batch APIs, second half: what may be wrong with a batch's results."""

import json

import fault_bodies as wires
from fault_acts import HTML, redirects, replies, says
from fault_batch_ends import ANSWERED_AGAIN, MALFORMED_ONE, WELL, again, row
from fault_batches import NAMES, answered, dumped, failed, plays, untried, with_lines
from fault_lane import BatchEnd


def fetch(name, does, end, acts, **more):
    return row(f"fetch-{name}", "Its results", does, end, plays(fetch=acts), **more)


def results(name, does, end, change, tail=b"\n", **more):
    return row(f"line-{name}", "Its results", does, end, plays(fetch=[with_lines(change, tail)]), **more)


def first_as(make):
    """The first request's line is another; the others are as they should be."""
    return lambda wire, ids: [make(wire, ids[0]), *(answered(wire, one) for one in ids[1:])]


FETCHED_TWICE = BatchEnd(fetch=2)
ONE_FAILED = BatchEnd(1, 1)
FILES = NAMES[:2]
FETCHED = [
    fetch("500", "500, once", FETCHED_TWICE, [says("500 Oh", "server")]),
    fetch("429", "429, `retry-after: 0.05`, once", FETCHED_TWICE, [says("429 Slow", "rate", "retry-after: 0.05")]),
    fetch("401", "401", again("fetch", create=1, poll=1), says("401 No", "auth")),
    fetch("404-once", "404, once", FETCHED_TWICE, [says("404 No", "path")]),
    fetch(
        "404",
        "404, six times: they are gone",
        BatchEnd(create=2, poll=2, fetch=7, maybe=2, upload=2),
        [says("404 No", "path")] * 6,
    ),
    fetch("redirect", "307 to another address, once", FETCHED_TWICE, [redirects]),
    fetch("html", "a page, once", FETCHED_TWICE, [replies(HTML, "200 OK", "content-type: text/html")]),
    fetch(
        "cut",
        "they break off in the middle of a line, once",
        FETCHED_TWICE,
        [replies(b'{"custom_id": "1-', "200 OK", length=1000)],
    ),
    fetch(
        "half-line",
        "they end in the middle of a line, and say that this is all, once",
        FETCHED_TWICE,
        [replies(b'{"custom_id": "1-1", "resp', "200 OK")],
    ),
    results("empty", "there are none", ANSWERED_AGAIN, lambda wire, ids: []),
    results(
        "one-missing",
        "one of them is missing",
        ANSWERED_AGAIN,
        lambda wire, ids: [answered(wire, one) for one in ids[1:]],
    ),
    results("order", "in another order", WELL, lambda wire, ids: [answered(wire, one) for one in reversed(ids)]),
    results("twice", "each twice", WELL, lambda wire, ids: [answered(wire, one) for one in (*ids, *ids)]),
    results(
        "twice-differs",
        "one twice: an answer, and an error. The answer counts",
        WELL,
        lambda wire, ids: [*(answered(wire, one) for one in ids), failed(wire, ids[0], "invalid", 400)],
    ),
    results(
        "unknown-id",
        "one more, of an unknown id",
        WELL,
        lambda wire, ids: [*(answered(wire, one) for one in ids), answered(wire, "999999-999999")],
    ),
    results(
        "other-id",
        "ids that are none of ours",
        ANSWERED_AGAIN,
        lambda wire, ids: [answered(wire, "request one"), answered(wire, "../../x")],
    ),
    results(
        "other-job",
        "an id that names our request and another job",
        ANSWERED_AGAIN,
        lambda wire, ids: [answered(wire, "999999-" + one.partition("-")[2]) for one in ids],
    ),
    results(
        "no-id",
        "one without an id",
        ANSWERED_AGAIN,
        first_as(lambda wire, one: answered(wire, one).replace(b'"custom_id"', b'"x"').replace(b'"key"', b'"x"')),
    ),
    results(
        "broken", "one of broken JSON", ANSWERED_AGAIN, first_as(lambda wire, one: answered(wire, one)[:-9]), only=FILES
    ),
    results(
        "no-object",
        "one that is no object",
        ANSWERED_AGAIN,
        lambda wire, ids: [*(answered(wire, one) for one in ids[1:]), b"[1]"],
    ),
    results(
        "spaces",
        "empty lines, and ends of CR LF",
        WELL,
        lambda wire, ids: [b"", *(answered(wire, one) + b"\r" for one in ids), b""],
        only=FILES,
    ),
    results(
        "no-end",
        "no end of line at the end",
        WELL,
        lambda wire, ids: [answered(wire, one) for one in ids],
        b"",
        only=FILES,
    ),
    results(
        "400",
        "an error in one: 400",
        BatchEnd(1, 1, "invalid"),
        first_as(lambda wire, one: failed(wire, one, "invalid", 400)),
    ),
    results("429", "an error in one: 429", ANSWERED_AGAIN, first_as(lambda wire, one: failed(wire, one, "rate", 429))),
    results(
        "500", "an error in one: 500", ANSWERED_AGAIN, first_as(lambda wire, one: failed(wire, one, "server", 500))
    ),
    results(
        "context",
        "an error in one: the prompt is too long",
        BatchEnd(1, 1, "context"),
        first_as(lambda wire, one: failed(wire, one, "context", 400)),
    ),
    results(
        "expired",
        "one was not tried before the batch expired",
        ANSWERED_AGAIN,
        first_as(lambda wire, one: untried(wire, one, "expired")),
    ),
    results(
        "cancelled",
        "one was not tried before the batch was cancelled",
        ANSWERED_AGAIN,
        first_as(lambda wire, one: untried(wire, one, "cancelled")),
    ),
    fetch(
        "never",
        "none was tried in any of three batches: they are asked for by themselves",
        BatchEnd(create=3, poll=3, fetch=3, alone=2, upload=3),
        with_lines(lambda wire, ids: [untried(wire, one, "expired") for one in ids]),
    ),
    results(
        "neither",
        "one with neither an answer nor an error",
        MALFORMED_ONE,
        first_as(lambda wire, one: json.dumps({"custom_id": one, "metadata": {"key": one}, "result": {}}).encode()),
    ),
    results(
        "other-body",
        "an answer of another shape",
        MALFORMED_ONE,
        first_as(lambda wire, one: answered(wire, one, {"hello": [1]})),
    ),
    results(
        "null-body",
        "an answer that is `null`",
        MALFORMED_ONE,
        first_as(
            lambda wire, one: answered(wire, one).replace(dumped(wires.WIRES[wire].text_body(wires.TEXT)), b"null")
        ),
    ),
    results(
        "unknown-fields",
        "fields that nobody knows",
        WELL,
        first_as(lambda wire, one: answered(wire, one)[:-1] + b', "of_tomorrow": [1]}'),
    ),
    results(
        "no-usage",
        "an answer without usage",
        WELL,
        first_as(lambda wire, one: answered(wire, one, wires.WIRES[wire].text_body(wires.TEXT, False))),
    ),
    row(
        "delete-500",
        "Its results",
        "all is well, but nothing can be deleted (500)",
        WELL,
        plays(delete=says("500 Oh", "server")),
    ),
    row(
        "delete-404",
        "Its results",
        "all is well, and what is to be deleted is gone",
        WELL,
        plays(delete=says("404 No", "path")),
    ),
]
