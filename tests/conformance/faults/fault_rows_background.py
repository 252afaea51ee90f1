"""The table of faults of calls that their provider goes on with: what is lost is followed up, and asked for again only if it is gone there."""

from dataclasses import replace

from fault_acts import HTML, JSON, cut_body, half_a_head, redirects, replies, says, whole_json
from fault_background import (
    CREATED,
    EVENTS,
    SOME,
    event,
    good,
    named,
    one_more,
    plays,
    resets,
    stands,
    told,
    unnumbered,
    vanishes,
)
from fault_kinds import ANSWERED, FIRST_TOKEN, MAX_BODY, NO_PROGRESS, End, Fault, failed, held, refused

ONLY = ("background",)
LOST = told(SOME)
"""The connection ends after the first words: what is of interest is what comes then."""
BUSY = says("429 Slow", "rate", "retry-after: 30")
ERROR = {"code": "server_error", "message": "Oh"}
FOLLOWED = 1 + 5 + 1
"""Requests of an attempt that follows in vain: the call, five followings, one look."""


def row(name, group, does, end, act, **more):
    return Fault(name, group, does, end, act=act, only=ONLY, **more)


def well(requests, made=1, attempts=0, **more):
    return replace(ANSWERED, requests=requests, made=made, attempts=attempts, **more)


GONE = failed("truncated", 4, "maybe", made=2, code="handle_gone")
OUT_OF_SIGHT = failed("truncated", 2 * FOLLOWED, "maybe", made=1)
"""Never seen to its end, and never asked for twice: the second attempt takes it up without making it."""

MADE = [
    row("good", "The call is made", "none: the answer as it should be", well(1), plays()),
    row(
        "cut-unnamed",
        "The call is made",
        "cut before the event that names the call",
        failed("truncated", 2, "maybe", made=2),
        plays(make=told([])),
    ),
    row("cut-named", "The call is made", "cut after the event that names the call", well(2), plays(make=told(CREATED))),
    row("cut-text", "The call is made", "cut after text", well(2), plays(make=LOST)),
    row(
        "cut-event",
        "The call is made",
        "cut in the middle of an event",
        well(2),
        plays(make=told(SOME, more=EVENTS[12][:-9])),
    ),
    row("reset-text", "The call is made", "reset after text", well(2), plays(make=told(SOME, end="reset"))),
    row(
        "no-terminal",
        "The call is made",
        "the stream ends in good order, without its terminal marker",
        well(2),
        plays(make=told(SOME, end="whole")),
    ),
    row(
        "stall-named",
        "The call is made",
        "stands still after the event that names the call (`first_token`), once",
        well(2, attempts=1),
        plays(make=told(CREATED, end="stall")),
        options={"first_token_timeout": 0.6},
    ),
    row(
        "stall-text",
        "The call is made",
        "stands still after text (`no_progress`), once",
        well(2, attempts=1),
        plays(make=told(SOME, end="stall")),
        options=NO_PROGRESS,
    ),
    row(
        "stall-unnamed",
        "The call is made",
        "stands still before it is named (`first_token`)",
        failed("timeout", 2, "maybe", made=2, code="first_token"),
        plays(make=told([], end="stall")),
        options=FIRST_TOKEN,
    ),
    row(
        "no-name",
        "The call is made",
        "cut after text, and the call has no name",
        failed("truncated", 2, "yes", made=2),
        plays(make=told(named(None)[:12])),
    ),
    row(
        "name-number",
        "The call is made",
        "cut after text, and its name is a number",
        failed("truncated", 2, "yes", made=2),
        plays(make=told(named(7)[:12])),
    ),
    row(
        "name-path",
        "The call is made",
        "cut after text, and its name leads elsewhere (`../../x?`): what could is left out",
        well(2),
        plays(make=told(named("../../x?")[:12])),
    ),
    row(
        "no-numbers",
        "The call is made",
        "cut after text, and its events have no numbers: it is not followed, which would tell them twice, but looked at",
        well(2),
        plays(make=told(unnumbered(SOME)), follow=told(unnumbered(EVENTS), end="whole")),
    ),
    row(
        "failed-event",
        "The call is made",
        "the event `response.failed`",
        failed("server", 2, "maybe", made=2),
        plays(make=told(SOME, end="whole", more=event("response.failed", error=ERROR))),
    ),
    row(
        "cancelled-event",
        "The call is made",
        "the event `response.cancelled`: somebody has ended it there",
        replace(GONE, requests=2),
        plays(make=told(SOME, end="whole", more=event("response.cancelled"))),
    ),
    row("400", "The call is made", "400", refused("invalid", made=1), plays(make=says("400 Bad", "invalid"))),
    row("401", "The call is made", "401", held("auth", 15, made=1), plays(make=says("401 No", "auth"))),
    row(
        "429",
        "The call is made",
        "429, `retry-after: 30`",
        held("rate", 30, "model", made=1),
        plays(make=says("429 Slow", "rate", "retry-after: 30")),
    ),
    row("500", "The call is made", "500", failed("server", 2, made=2), plays(make=says("500 Oh", "server"))),
]


def follow(name, does, end, acts, **more):
    return row(
        f"follow-{name}", "It is lost after text, and followed", does, end, plays(make=LOST, follow=acts), **more
    )


FOLLOWED_UP = [
    follow("cut", "cut again, once", well(3), [told([]), good]),
    follow(
        "on-and-on",
        "cut again after every event: it is followed as long as it gets on",
        well(1 + len(EVENTS[12:])),
        one_more,
    ),
    follow("vanish", "closed without a reply, once", well(3), [vanishes, good]),
    follow("reset", "reset, once", well(3), [resets, good]),
    follow("half-head", "closed in the middle of the reply's head, once", well(3), [half_a_head, good]),
    follow("500", "500, once", well(3), [says("500 Oh", "server"), good]),
    follow("503", "503, once", well(3), [says("503 Busy", "overloaded"), good]),
    follow("502-html", "502 with a page, once", well(3), [replies(HTML, "502 Bad", "content-type: text/html"), good]),
    follow("408", "408, once", well(3), [says("408 Slow", "timeout"), good]),
    follow("429-once", "429, once", well(3), [says("429 Slow", "rate"), good]),
    row(
        "follow-429",
        "It is lost after text, and followed",
        "429, `retry-after: 30`, each time, to a look too",
        held("rate", 30, "model", requests=FOLLOWED, billed="maybe", made=1),
        plays(make=LOST, follow=BUSY, look=BUSY),
    ),
    follow("401", "401", held("auth", 15, requests=2, billed="maybe", made=1), says("401 No", "auth")),
    follow(
        "403",
        "403 with a proxy's page",
        held("auth", 15, requests=2, billed="maybe", made=1),
        replies(HTML, "403 No", "content-type: text/html"),
    ),
    follow("404", "404: the provider has forgotten it", GONE, says("404 No", "path")),
    row(
        "follow-404-once",
        "It is lost after text, and followed",
        "404, and the call that is made anew is good",
        well(3, made=2, attempts=1),
        plays(make=[LOST, good], follow=says("404 No", "path")),
    ),
    follow(
        "404-park",
        '404, and the job says `on_unknown = "park"`',
        End("failed", "unknown_outcome", 2, 1, "maybe", "request", made=1),
        says("404 No", "path"),
        options={"on_unknown": "park"},
    ),
    follow("400", "400", End("failed", "invalid", 2, 1, "maybe", "request", made=1), says("400 Bad", "invalid")),
    follow(
        "redirect", "307 to another address", End("failed", "invalid", 2, 1, "maybe", "provider", made=1), redirects
    ),
    follow(
        "html",
        "a page, each time",
        failed("malformed", 3, "maybe", made=1),
        replies(HTML, "200 OK", "content-type: text/html"),
    ),
    follow("json", "the whole answer as JSON", well(2), whole_json),
    follow("half-json", "half of the answer as JSON, and cut, once", well(3), [cut_body, good]),
    follow("empty", "nothing, in good order: it is looked at", well(3), told([], end="whole")),
    follow(
        "huge",
        "more than 64 MB",
        failed("malformed", 3, "maybe", made=1),
        replies(b" " * (MAX_BODY + 1), "200 OK", JSON),
    ),
    follow("again", "all events from the first one, whatever was asked for", well(2), told(EVENTS, end="whole")),
    follow(
        "broken-json",
        "an event whose JSON is broken",
        failed("malformed", 4, "yes", made=2),
        told([], end="whole", more=b'data: {"a": \n\n'),
    ),
    follow(
        "error",
        "an error event",
        failed("server", 4, "maybe", made=2),
        told(
            [], end="whole", more=b'event: error\ndata: {"type": "error", "code": "server_error", "message": "Oh"}\n\n'
        ),
    ),
    follow(
        "failed",
        "the event `response.failed`",
        failed("server", 4, "maybe", made=2),
        told([], end="whole", more=event("response.failed", error=ERROR)),
    ),
    follow(
        "cancelled", "the event `response.cancelled`", GONE, told([], end="whole", more=event("response.cancelled"))
    ),
    follow(
        "incomplete",
        "the event `response.incomplete`: the output limit",
        well(2, what="length", usage=False, text=False),
        told([], end="whole", more=event("response.incomplete", incomplete_details={"reason": "max_output_tokens"})),
    ),
    follow(
        "stall",
        "stands still (`no_progress`), once",
        well(3, attempts=1),
        [told([], end="stall"), good],
        options={"no_progress_timeout": 0.6},
    ),
    follow(
        "total",
        "stands still (`total`)",
        failed("timeout", 2, "maybe", made=1, attempts=1, code="total"),
        told([], end="stall"),
        options={"total_timeout": 0.8},
        attempts=1,
    ),
]


def look(name, does, end, acts, **more):
    return row(
        f"look-{name}",
        "It is lost after text, following fails (500), and it is looked at",
        does,
        end,
        plays(make=LOST, follow=says("500 Oh", "server"), look=acts),
        **more,
    )


LOOKED_AT = [
    look("completed", "it is complete", well(FOLLOWED), good),
    look(
        "incomplete",
        "it is complete up to the output limit",
        well(FOLLOWED, what="length", usage=False, text=False),
        stands("incomplete", incomplete_details={"reason": "max_output_tokens"}),
    ),
    look("in-progress", "it goes on, each time", OUT_OF_SIGHT, stands("in_progress")),
    look("queued", "it waits, each time", OUT_OF_SIGHT, stands("queued")),
    look("of-tomorrow", "a status that nobody knows, each time", OUT_OF_SIGHT, stands("of_tomorrow")),
    look(
        "in-progress-park",
        'it goes on, each time, and the job says `on_unknown = "park"`',
        OUT_OF_SIGHT,
        stands("in_progress"),
        options={"on_unknown": "park"},
    ),
    look("failed", "it has failed", failed("server", 2 * FOLLOWED, "maybe", made=2), stands("failed", error=ERROR)),
    look("cancelled", "somebody has ended it", replace(GONE, requests=2 * FOLLOWED), stands("cancelled")),
    look("404", "404: the provider has forgotten it", replace(GONE, requests=2 * FOLLOWED), says("404 No", "path")),
    look("500", "500, each time", failed("server", 2 * FOLLOWED, "maybe", made=1), says("500 Oh", "server")),
    look(
        "html",
        "a page, each time",
        failed("malformed", 2 * FOLLOWED, "maybe", made=1),
        replies(HTML, "200 OK", "content-type: text/html"),
    ),
    look("401", "401", held("auth", 15, requests=FOLLOWED, billed="maybe", made=1), says("401 No", "auth")),
]

ROWS = (*MADE, *FOLLOWED_UP, *LOOKED_AT)
"""Rows of calls in the background, at OpenAI Responses."""
