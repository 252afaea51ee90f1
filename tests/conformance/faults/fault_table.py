"""The table of faults: what a server does, and what becomes of the job. docs/failures.md is made from it (`make failures`).

A job has two attempts (one where a deadline would have to pass twice), and the fault is there at each request unless it says `once`. Whoever changes a row changes what is promised.
"""

import gzip
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import fault_bodies as wires

Act = Callable[[Any, str], Awaitable[None]]
JSON = "content-type: application/json"
HTML = b"<html><head><title>Bad Gateway</title></head><body><h1>Bad gateway</h1></body></html>"
MAX_EVENT, MAX_BODY = 64 * 1024, 256 * 1024
"""The caps that hold while the table is played: the real ones are 16 MB and 64 MB."""


@dataclass(frozen=True)
class End:
    """What becomes of the job, and of its key.

    `state`: completed, failed, or waiting (its key is on hold, and no attempt is used). `what`: the class of the failure, or the finish of the answer.
    `requests`: how many the server read whole. `attempts`: how many are counted as failed. `billed`: no, maybe, yes, for a failed call.
    `scope`: whom it concerns. `held`: the kind of the hold; `wait`: its seconds, at least (and not much longer). `usage`: whether it is known.
    `text`: whether the answer's text is whole.
    """

    state: str
    what: str
    requests: int
    attempts: int = 0
    billed: str = ""
    scope: str = ""
    held: str = ""
    wait: float = 0.0
    usage: bool = True
    text: bool = True
    code: str = ""


@dataclass(frozen=True)
class Fault:
    """One row. `where`: the port that plays it, `url` a base URL instead. `only`: the wires it is for. `but`: where a wire's end is another one."""

    name: str
    group: str
    does: str
    end: End
    act: Act | None = None
    where: tuple[str, str] = ("http", "http")
    url: str = ""
    once: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = wires.NAMES
    but: Mapping[str, End] = field(default_factory=dict)
    says: str = wires.TEXT
    attempts: int = 2

    def end_at(self, wire: str) -> End:
        return self.but.get(wire, self.end)


ANSWERED = End("completed", "stop", 1)
OPENAI = ("openai-chat", "openai-responses")
TALKS = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")


def failed(what, requests=2, billed="no", scope="request", **more):
    """Trying again is thought to help: both attempts are used."""
    return End("failed", what, requests, more.pop("attempts", 2), billed, scope, **more)


def refused(what, billed="no", scope="request", **more):
    """Trying again would not help: the first attempt is the last."""
    return End("failed", what, more.pop("requests", 1), 1, billed, scope, **more)


def held(what, wait=0.0, scope="credential", **more):
    return End("waiting", what, 1, 0, "no", scope, what, wait, **more)


# --- what the server does ---------------------------------------------------------------------------------------------------------------


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
        if end == "whole":
            await peer.send(b"0\r\n\r\n")
        elif end == "stall":
            await peer.stall()
        elif end == "reset":
            peer.reset()
        else:
            peer.close()

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


FIRST_TOKEN = {"first_token_timeout": 0.15}
NO_PROGRESS = {"no_progress_timeout": 0.15}
TOTAL = {"total_timeout": 0.5}

CONNECTION = [
    Fault(
        "dns",
        "Connection",
        "the host's name does not resolve",
        failed("connect", 0, scope="provider"),
        url="https://nowhere.example.org",
    ),
    Fault(
        "dns-metadata",
        "Connection",
        "the name resolves to the metadata service (169.254.169.254)",
        refused("invalid", scope="provider", requests=0),
        url="https://metadata.example.org",
    ),
    Fault(
        "dns-private",
        "Connection",
        "the name resolves to a private address, and `allow_private` is not set",
        refused("invalid", scope="provider", requests=0),
        url="https://inside.example.org",
    ),
    Fault(
        "refused",
        "Connection",
        "nobody listens at the port",
        failed("connect", 0, scope="provider"),
        where=("http", "refused"),
    ),
    Fault(
        "no-connection",
        "Connection",
        "the connection is never made (its deadline: 10 s)",
        failed("connect", 0, scope="provider", attempts=1),
        where=("http", "full"),
        attempts=1,
    ),
    Fault(
        "reset-first",
        "Connection",
        "reset before the request is read whole",
        failed("connect", 0, "maybe", "provider"),
        where=("http", "reset-first"),
    ),
    Fault(
        "reset-after",
        "Connection",
        "reset after the request was read",
        failed("connect", 2, "maybe", "provider"),
        where=("http", "reset-after"),
    ),
    Fault(
        "mute",
        "Connection",
        "closed without a reply",
        failed("connect", 0, "maybe", "provider"),
        where=("http", "mute"),
    ),
    Fault(
        "garbage",
        "Connection",
        "a greeting of another protocol instead of a reply",
        failed("connect", 2, "maybe", "provider"),
        where=("http", "garbage"),
    ),
    Fault(
        "half-head",
        "Connection",
        "closed in the middle of the reply's head",
        failed("connect", 2, "maybe", "provider"),
        act=half_a_head,
    ),
    Fault(
        "no-reply",
        "Connection",
        "the request is read, and nothing is ever said (`first_token`)",
        failed("timeout", 2, "maybe", code="first_token"),
        act=never_answers,
        options=FIRST_TOKEN,
    ),
    Fault("tls-good", "TLS", "none: TLS as it should be", ANSWERED, act=answers, where=("https", "tls")),
    Fault(
        "tls-self-signed",
        "TLS",
        "a certificate that nobody vouches for",
        failed("connect", 0, scope="provider"),
        where=("https", "self-signed"),
    ),
    Fault(
        "tls-wrong-host",
        "TLS",
        "a certificate of another host",
        failed("connect", 0, scope="provider"),
        where=("https", "wrong-host"),
    ),
    Fault(
        "tls-no-cipher",
        "TLS",
        "no cipher in common",
        failed("connect", 0, scope="provider"),
        where=("https", "old-tls"),
    ),
    Fault(
        "tls-plain",
        "TLS",
        "plain HTTP at the TLS port",
        failed("connect", 0, scope="provider"),
        where=("https", "not-tls"),
    ),
    Fault(
        "tls-cut",
        "TLS",
        "closed in the handshake",
        failed("connect", 0, scope="provider"),
        where=("https", "no-handshake"),
    ),
    Fault(
        "tls-silent",
        "TLS",
        "the handshake stands still (its deadline: 10 s)",
        failed("connect", 0, scope="provider", attempts=1),
        where=("https", "silent-tls"),
        attempts=1,
    ),
    Fault(
        "plain-tls",
        "TLS",
        "TLS at the port of plain HTTP",
        failed("connect", 0, "maybe", "provider"),
        where=("http", "tls"),
    ),
]

STATUS = [
    Fault("400", "Status", "400, an invalid request", refused("invalid"), act=says("400 Bad", "invalid")),
    Fault("400-context", "Status", "400, the prompt is too long", refused("context"), act=says("400 Bad", "context")),
    Fault("400-key", "Status", "400 about the key", held("auth", 15), act=says("400 Bad", "key")),
    Fault("401", "Status", "401", held("auth", 15), act=says("401 Unauthorized", "auth")),
    Fault("401-echo", "Status", "401 as a page that quotes the request's headers", held("auth", 15), act=None),
    Fault("402", "Status", "402", held("quota", 15), act=says("402 Payment", "money")),
    Fault("403", "Status", "403", held("auth", 15), act=says("403 Forbidden", "permission")),
    Fault(
        "403-html",
        "Status",
        "403 with a proxy's page",
        held("auth", 15),
        act=replies(HTML, "403 Forbidden", "content-type: text/html"),
    ),
    Fault(
        "404-model", "Status", "404, no such model", refused("not_found", scope="model"), act=says("404 No", "model")
    ),
    Fault(
        "404-path", "Status", "404, no such path", refused("not_found", scope="provider"), act=says("404 No", "path")
    ),
    Fault(
        "404-html",
        "Status",
        "404 with a page",
        refused("not_found", scope="provider"),
        act=replies(HTML, "404 No", "content-type: text/html"),
    ),
    Fault("405", "Status", "405 without a body", refused("invalid"), act=replies(b"", "405 No")),
    Fault("408", "Status", "408", failed("timeout", 2, "maybe"), act=says("408 Slow", "timeout")),
    Fault("409", "Status", "409", failed("conflict", 2), act=says("409 Conflict", "conflict")),
    Fault("413", "Status", "413", refused("too_large"), act=says("413 Large", "size")),
    Fault("422", "Status", "422", refused("invalid"), act=says("422 No", "validation")),
    Fault(
        "429",
        "Status",
        "429, once, without a word when to come again",
        replace(ANSWERED, requests=2),
        act=says("429 Slow", "rate"),
        once=True,
    ),
    Fault(
        "429-seconds",
        "Status",
        "429, `retry-after: 30`",
        held("rate", 30, "model"),
        act=says("429 Slow", "rate", "retry-after: 30"),
    ),
    Fault(
        "429-ms",
        "Status",
        "429, `retry-after-ms: 20000`, which goes before `retry-after: 900`",
        held("rate", 20, "model"),
        act=says("429 Slow", "rate", "retry-after-ms: 20000", "retry-after: 900"),
    ),
    Fault("429-date", "Status", "429, `retry-after` as a date in 40 s", held("rate", 38, "model"), act=http_date),
    Fault(
        "429-absurd",
        "Status",
        "429, `retry-after: 1e300`",
        held("rate", 86400, "model"),
        act=says("429 Slow", "rate", "retry-after: 1e300"),
    ),
    Fault(
        "429-nonsense",
        "Status",
        "429, once, `retry-after: soon`",
        replace(ANSWERED, requests=2),
        act=says("429 Slow", "rate", "retry-after: soon"),
        once=True,
    ),
    Fault(
        "429-body",
        "Status",
        "429, `RetryInfo` of 14 s in the body",
        held("rate", 14, "model"),
        act=retry_info,
        only=("gemini",),
    ),
    Fault(
        "429-day",
        "Status",
        "429, the day's quota is used up (until midnight in Los Angeles)",
        held("rate", 1, "model", code="quota_per_day"),
        act=says("429 Slow", "quota"),
        only=("gemini",),
    ),
    Fault(
        "429-money",
        "Status",
        "429, there is no money",
        held("quota", 15),
        act=says("429 Slow", "quota"),
        only=("openai-chat", "openai-responses", "anthropic-messages"),
    ),
    Fault(
        "429-html",
        "Status",
        "429 with a proxy's page, `retry-after: 30`",
        held("rate", 30, "model"),
        act=replies(HTML, "429 Slow", "content-type: text/html", "retry-after: 30"),
    ),
    Fault("500", "Status", "500", failed("server", 2), act=says("500 Oh", "server")),
    Fault(
        "500-html",
        "Status",
        "500 with a page",
        failed("server", 2, "maybe", "provider"),
        act=replies(HTML, "500 Oh", "content-type: text/html"),
    ),
    Fault(
        "500-cut",
        "Status",
        "500, its body breaks off",
        failed("server", 2, "maybe", "provider"),
        act=replies(b'{"error": ', "500 Oh", JSON, length=100),
    ),
    Fault(
        "502-html",
        "Status",
        "502 with a page",
        failed("server", 2, "maybe", "provider"),
        act=replies(HTML, "502 Bad", "content-type: text/html"),
    ),
    Fault(
        "502-empty",
        "Status",
        "502 without a body",
        failed("server", 2, "maybe", "provider"),
        act=replies(b"", "502 Bad"),
    ),
    Fault("503", "Status", "503", failed("overloaded", 2, scope="model"), act=says("503 Busy", "overloaded")),
    Fault(
        "503-wait",
        "Status",
        "503, once, `retry-after: 0.05`",
        replace(ANSWERED, requests=2, attempts=1),
        act=says("503 Busy", "overloaded", "retry-after: 0.05"),
        once=True,
    ),
    Fault("504", "Status", "504", failed("server", 2, "maybe", "provider"), act=says("504 Slow", "gateway")),
    Fault("529", "Status", "529", failed("overloaded", 2, scope="model"), act=says("529 Busy", "overloaded")),
    Fault(
        "status-of-tomorrow",
        "Status",
        "599 without a body",
        failed("server", 2, "maybe", "provider"),
        act=replies(b"", "599 Tomorrow"),
    ),
    Fault(
        "500-stop",
        "Status",
        "500, `x-should-retry: false`",
        refused("server"),
        act=says("500 Oh", "server", "x-should-retry: false"),
    ),
    Fault(
        "400-again",
        "Status",
        "400, once, `x-should-retry: true`",
        replace(ANSWERED, requests=2, attempts=1),
        act=says("400 Bad", "invalid", "x-should-retry: true"),
        once=True,
    ),
    Fault("redirect", "Status", "307 to another address", refused("invalid", scope="provider"), act=redirects),
    Fault(
        "error-body-endless",
        "Status",
        "500 with a body over 64 KB",
        failed("server", 2, "maybe", "provider"),
        act=replies(b"x" * 80_000, "500 Oh", "content-type: text/plain"),
    ),
    Fault(
        "once-500",
        "Status",
        "500, once",
        replace(ANSWERED, requests=2, attempts=1),
        act=says("500 Oh", "server"),
        once=True,
    ),
]

BODY = [
    Fault(
        "whole-json",
        "Body of a 200",
        "the whole answer as JSON, though a stream was asked for",
        ANSWERED,
        act=whole_json,
    ),
    Fault(
        "200-empty",
        "Body of a 200",
        "nothing",
        failed("truncated", 2, "maybe"),
        act=replies(b"", "200 OK", "content-type: text/event-stream"),
    ),
    Fault(
        "200-empty-json",
        "Body of a 200",
        "nothing, as JSON",
        failed("malformed", 2, "maybe"),
        act=replies(b"", "200 OK", JSON),
    ),
    Fault(
        "200-html",
        "Body of a 200",
        "a page",
        failed("malformed", 2, "maybe"),
        act=replies(HTML, "200 OK", "content-type: text/html"),
    ),
    Fault(
        "200-short-json",
        "Body of a 200",
        "half of the JSON, with a length that says so",
        failed("malformed", 2, "maybe"),
        act=short_json,
    ),
    Fault(
        "200-cut-json",
        "Body of a 200",
        "half of the JSON, and then the connection ends",
        failed("truncated", 2, "maybe"),
        act=cut_body,
    ),
    Fault("200-error", "Body of a 200", "an error of the server's", failed("server", 2, "maybe"), act=error_in_200),
    Fault(
        "200-other-json",
        "Body of a 200",
        "JSON of something else",
        failed("malformed", 2, "maybe"),
        act=replies(b'{"hello": [1]}', "200 OK", JSON),
    ),
    Fault(
        "200-huge",
        "Body of a 200",
        "more than 64 MB",
        failed("malformed", 2, "maybe"),
        act=replies(b" " * (MAX_BODY + 1), "200 OK", JSON),
    ),
    Fault("gzip", "Body of a 200", "a stream that is gzipped, though it was not asked for", ANSWERED, act=gzipped),
    Fault("not-gzip", "Body of a 200", "said to be gzipped, and is not", failed("truncated", 2, "maybe"), act=not_gzip),
]

STREAM = [
    Fault(
        "cut-before",
        "Stream",
        "ends before any byte",
        failed("truncated", 2, "maybe"),
        act=streams(lambda _: b"", end="cut"),
    ),
    Fault(
        "cut-no-text",
        "Stream",
        "cut before any text",
        failed("truncated", 2, "maybe"),
        act=streams(wires.before_text, end="cut"),
    ),
    Fault(
        "cut-event",
        "Stream",
        "cut in the middle of an event",
        failed("truncated", 2, "yes"),
        act=streams(lambda wire: wires.opening(wire) + wires.one_text(wire)[:-9], end="cut"),
    ),
    Fault("cut-text", "Stream", "cut after text", failed("truncated", 2, "yes"), act=streams(wires.opening, end="cut")),
    Fault(
        "reset-text",
        "Stream",
        "reset after text",
        failed("truncated", 2, "yes"),
        act=streams(wires.opening, end="reset"),
    ),
    Fault(
        "no-terminal",
        "Stream",
        "ends in good order, without its terminal marker",
        failed("truncated", 2, "yes"),
        act=streams(wires.opening),
    ),
    Fault(
        "once-cut",
        "Stream",
        "cut after text, once",
        replace(ANSWERED, requests=2, attempts=1),
        act=streams(wires.opening, end="cut"),
        once=True,
    ),
    Fault(
        "no-usage",
        "Stream",
        "no usage in it",
        replace(ANSWERED, usage=False),
        act=streams(lambda wire: wires.whole(wire, usage=False)),
    ),
    Fault(
        "error-first",
        "Stream",
        "an error event before any text",
        failed("server", 2, "maybe"),
        act=streams(lambda wire: wires.before_text(wire) + wires.stream_error(wire)),
    ),
    Fault(
        "error-later",
        "Stream",
        "an error event after text",
        failed("server", 2, "maybe"),
        act=streams(lambda wire: wires.opening(wire) + wires.stream_error(wire)),
    ),
    Fault(
        "broken-json",
        "Stream",
        "an event whose JSON is broken",
        failed("malformed", 2, "yes"),
        act=streams(lambda wire: wires.opening(wire) + wires.framed(wire, b'{"a": ') + wires.closing(wire)),
    ),
    Fault(
        "not-utf8",
        "Stream",
        "an event that is no UTF-8",
        failed("malformed", 2, "yes"),
        act=streams(lambda wire: wires.opening(wire) + wires.framed(wire, b'{"a": \xff\xfe') + wires.closing(wire)),
    ),
    Fault("unknown", "Stream", "events and fields that nobody knows", ANSWERED, act=streams(with_unknown)),
    Fault(
        "keep-alives",
        "Stream",
        "keep-alives only (`first_token`)",
        failed("timeout", 2, "maybe", code="first_token"),
        act=keep_alives_only,
        options=FIRST_TOKEN,
    ),
    Fault(
        "stall",
        "Stream",
        "stands still after text (`no_progress`)",
        failed("timeout", 2, "yes", code="no_progress"),
        act=streams(wires.opening, end="stall"),
        options=NO_PROGRESS,
    ),
    Fault(
        "pings",
        "Stream",
        "only keep-alives after text (`no_progress`)",
        failed("timeout", 2, "yes", code="no_progress"),
        act=streams(lambda wire: [wires.opening(wire), *[wires.WIRES[wire].KEEP_ALIVES] * 20], end="stall"),
        options=NO_PROGRESS,
    ),
    Fault(
        "trickle",
        "Stream",
        "text for ever (`total`)",
        failed("timeout", 2, "yes", code="total"),
        act=trickles,
        options=TOTAL,
    ),
    Fault(
        "huge-line",
        "Stream",
        "a line over 16 MB",
        failed("malformed", 2, "yes"),
        act=streams(lambda wire: wires.opening(wire) + wires.framed(wire, b'{"a": "' + b"x" * (MAX_EVENT + 100))),
    ),
    Fault(
        "huge-stream",
        "Stream",
        "more than 64 MB in all",
        failed("malformed", 2, "yes"),
        act=streams(
            lambda wire: [
                wires.opening(wire),
                *[wires.WIRES[wire].KEEP_ALIVES * 500] * (MAX_BODY // (500 * len(wires.WIRES[wire].KEEP_ALIVES)) + 1),
            ],
            end="stall",
        ),
    ),
    Fault(
        "twice-over",
        "Stream",
        "the terminal marker twice",
        ANSWERED,
        act=streams(lambda wire: wires.whole(wire) + wires.closing(wire)),
    ),
    Fault(
        "text-after",
        "Stream",
        "text after the terminal marker",
        ANSWERED,
        act=streams(lambda wire: wires.whole(wire) + wires.one_text(wire)),
    ),
    Fault("broken-after", "Stream", "reset after the terminal marker", ANSWERED, act=streams(wires.whole, end="reset")),
    Fault(
        "open-after",
        "Stream",
        "stays open after the terminal marker",
        ANSWERED,
        act=streams(wires.whole, end="stall"),
        options=NO_PROGRESS,
    ),
    Fault(
        "bom",
        "Stream",
        "begins with a byte order mark",
        ANSWERED,
        act=streams(lambda wire: b"\xef\xbb\xbf" + wires.whole(wire)),
    ),
    Fault("crlf", "Stream", "lines that end in CR LF", ANSWERED, act=streams(cr_lf)),
    Fault(
        "separators",
        "Stream",
        "U+2028, U+2029 and U+0085 in its text",
        ANSWERED,
        act=streams(separators),
        says="a\u2028b\u2029c\u0085d",
    ),
    Fault(
        "one-byte",
        "Stream",
        "a byte at a time",
        ANSWERED,
        act=streams(lambda wire: [bytes([byte]) for byte in wires.whole(wire)]),
    ),
]

HEADERS = [
    Fault("no-type", "Headers", "a stream without a content-type", ANSWERED, act=typed()),
    Fault(
        "other-type", "Headers", "a stream that is called text/plain", ANSWERED, act=typed("content-type: text/plain")
    ),
    Fault(
        "charset",
        "Headers",
        "a stream with the charset of something else",
        ANSWERED,
        act=typed("content-type: text/event-stream; charset=utf-16"),
    ),
    Fault(
        "limits-twice",
        "Headers",
        "rate-limit headers twice, and absurd",
        ANSWERED,
        act=streams(
            wires.whole,
            *(
                f"{name}: {value}"
                for value in ("-1", "1e99", "NaN", "")
                for name in (
                    "x-ratelimit-remaining-requests",
                    "x-ratelimit-reset-tokens",
                    "anthropic-ratelimit-requests-reset",
                    "retry-after",
                )
            ),
        ),
    ),
    Fault(
        "headers-64k",
        "Headers",
        "64 KB of headers",
        ANSWERED,
        act=streams(wires.whole, *(f"x-padding-{n}: {'x' * 1000}" for n in range(64))),
    ),
    Fault(
        "headers-endless",
        "Headers",
        "more than 100 KB of headers",
        failed("connect", 2, "maybe", "provider"),
        act=streams(wires.whole, *(f"x-padding-{n}: {'x' * 1000}" for n in range(128))),
    ),
    Fault(
        "header-bytes", "Headers", "a header that is no ASCII", ANSWERED, act=streams(wires.whole, "x-odd: \xe9\xff")
    ),
    Fault(
        "no-http",
        "Headers",
        "two lengths that differ",
        failed("connect", 2, "maybe", "provider"),
        act=replies(b"{}", "200 OK", "content-length: 7"),
    ),
]

ANSWERS = [
    Fault("good", "Answers", "none: the answer as it should be", ANSWERED, act=answers),
    Fault(
        "length",
        "Answers",
        "the output limit is reached",
        replace(ANSWERED, what="length"),
        says="4",
        act=streams(lambda wire: wires.finished(wire, wires.finish_of(wire, "length"))),
    ),
    Fault(
        "filter",
        "Answers",
        "the provider's filter stops it",
        replace(ANSWERED, what="filter"),
        says="4",
        act=streams(lambda wire: wires.finished(wire, wires.finish_of(wire, "filter"))),
        only=TALKS,
        but={"anthropic-messages": replace(ANSWERED, what="refusal")},
    ),
    Fault(
        "finish-of-tomorrow",
        "Answers",
        "it stops for a reason that nobody knows",
        replace(ANSWERED, what="unknown"),
        says="4",
        act=streams(lambda wire: wires.finished(wire, "OF_TOMORROW" if wire == "gemini" else "of_tomorrow")),
    ),
    Fault(
        "park",
        "Answers",
        'cut after text, and the job says `on_unknown = "park"`',
        failed("truncated", 2, "yes"),
        act=streams(wires.opening, end="cut"),
        options={"on_unknown": "park"},
    ),
    Fault(
        "park-unknown",
        "Answers",
        'no reply, and the job says `on_unknown = "park"`',
        End("failed", "unknown_outcome", 1, 1, "maybe", "request"),
        act=never_answers,
        options={**FIRST_TOKEN, "on_unknown": "park"},
    ),
]


async def echoes(peer, wire):
    """A debugging proxy's page: everything that was sent, the key too."""
    await peer.reply(b"<pre>" + peer.head + b"</pre>", "401 No", ("content-type: text/html",))


STATUS = [replace(fault, act=echoes) if fault.name == "401-echo" else fault for fault in STATUS]
TABLE = [*CONNECTION, *STATUS, *BODY, *STREAM, *HEADERS, *ANSWERS]
