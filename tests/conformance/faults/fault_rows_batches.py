"""The table of faults of the batch APIs, first half: how a batch is asked for, sent, and asked after."""

from fault_acts import HTML, JSON, half_a_head, redirects, replies, says
from fault_batch_ends import ANTHROPIC, FOUND, GEMINI, HALVED, LOST, OPENAI, REFUSED, UNNAMED, WELL, again, row
from fault_batches import NAMES, as_batch, asked, batch, dumped, goes_on, plays, unheard
from fault_kinds import MAX_BODY
from fault_lane import BatchEnd
from fault_rows_results import FETCHED


def create(name, does, end, acts, **more):
    return row(f"create-{name}", "It is asked for", does, end, plays(create=acts), **more)


CREATED = [
    row("good", "It is asked for", "none: the batch as it should be", WELL, plays()),
    row(
        "dns",
        "It is asked for",
        "the host's name does not resolve",
        again("create"),
        plays(),
        url="https://nowhere.example.org",
        only=NAMES[1:],
    ),
    create("400", "400, each time: it is halved, and each half refused", REFUSED, says("400 Bad", "invalid")),
    create("400-once", "400, once: it is halved, and the halves are taken", HALVED, [says("400 Bad", "invalid")]),
    create("400-context", "400, a prompt is too long, once", HALVED, [says("400 Bad", "context")]),
    create("413", "413, once", HALVED, [says("413 Large", "size")]),
    create("422", "422, once", HALVED, [says("422 No", "validation")]),
    create("redirect", "307 to another address", again("create"), redirects),
    create("redirect-once", "307 to another address, once", BatchEnd(create=2), [redirects]),
    create("401", "401", again("create"), says("401 No", "auth")),
    create("401-once", "401, once", BatchEnd(create=2), [says("401 No", "auth")]),
    create("402", "402, once", BatchEnd(create=2), [says("402 Pay", "money")]),
    create(
        "403-html",
        "403 with a proxy's page, once",
        BatchEnd(create=2),
        [replies(HTML, "403 No", "content-type: text/html")],
    ),
    create(
        "404",
        "404, no such path, once: OpenAI's file is sent again",
        BatchEnd(create=2, upload=2),
        [says("404 No", "path")],
    ),
    create("408", "408, once", LOST, [says("408 Slow", "timeout")], but=UNNAMED),
    create("409", "409, once", LOST, [says("409 Conflict", "conflict")], but=UNNAMED),
    create(
        "429", "429, `retry-after: 0.05`, once", BatchEnd(create=2), [says("429 Slow", "rate", "retry-after: 0.05")]
    ),
    create(
        "400-enqueued",
        "400, too many tokens wait already, once",
        BatchEnd(create=2),
        [
            replies(
                dumped(
                    {
                        "error": {
                            "message": "Enqueued token limit reached for m.",
                            "type": "invalid_request_error",
                            "code": "token_limit_exceeded",
                        }
                    }
                ),
                "400 Bad",
                JSON,
            )
        ],
        only=(OPENAI,),
    ),
    create("500", "500, once", LOST, [says("500 Oh", "server")], but=UNNAMED),
    create("503", "503, once", LOST, [says("503 Busy", "overloaded")], but=UNNAMED),
    create("529", "529, once", LOST, [says("529 Busy", "overloaded")], but=UNNAMED),
    create(
        "502-html", "502 with a page, once", LOST, [replies(HTML, "502 Bad", "content-type: text/html")], but=UNNAMED
    ),
    create("empty", "200 with nothing, once", LOST, [replies(b"", "200 OK", JSON)], but=UNNAMED),
    create("html", "200 with a page, once", LOST, [replies(HTML, "200 OK", "content-type: text/html")], but=UNNAMED),
    create("list", "200 with JSON that is no object, once", LOST, [replies(b"[]", "200 OK", JSON)], but=UNNAMED),
    create(
        "no-id",
        "200 with JSON that names no batch, once",
        LOST,
        [replies(b'{"object": "batch"}', "200 OK", JSON)],
        but=UNNAMED,
    ),
    create(
        "bad-id",
        "200 with an id that leads elsewhere (`../../x`), once",
        LOST,
        [replies(b'{"id": "../../x", "name": "batches/../../x"}', "200 OK", JSON)],
        but=UNNAMED,
    ),
    create(
        "huge", "200 with more than 64 MB, once", LOST, [replies(b" " * (MAX_BODY + 1), "200 OK", JSON)], but=UNNAMED
    ),
    create("half-head", "closed in the middle of the reply's head, once", LOST, [half_a_head], but=UNNAMED),
    create("unheard", "it is made, and the connection closed without a reply", FOUND, [unheard()]),
    create("unheard-reset", "it is made, and the connection reset", FOUND, [unheard("reset")]),
    create("unheard-half", "it is made, and the reply breaks off", FOUND, [unheard("half")]),
    create("unheard-500", "it is made, and the reply is 500", FOUND, [unheard("500")]),
    create("unheard-502", "it is made, and the reply is a proxy's page", FOUND, [unheard("502")]),
    create("unheard-empty", "it is made, and the reply empty", FOUND, [unheard("empty")]),
    row(
        "find-500",
        "It is asked for",
        "it is made, nobody is told, and the list is 500, once",
        BatchEnd(find=2),
        plays(create=[unheard()], find=[says("500 Oh", "server")]),
    ),
    row(
        "find-html",
        "It is asked for",
        "… and the list is a page, once",
        BatchEnd(find=2),
        plays(create=[unheard()], find=[replies(HTML, "200 OK", "content-type: text/html")]),
    ),
    create("over", "it is over as soon as it is made", WELL, [as_batch(over=True)]),
]


def upload(name, does, end, acts, **more):
    return row(f"upload-{name}", "Its file is sent", does, end, plays(upload=acts), only=(OPENAI,), **more)


TWICE = BatchEnd(upload=2)
UPLOADED = [
    row(
        "dns-upload",
        "Its file is sent",
        "the host's name does not resolve",
        again("upload"),
        plays(),
        url="https://nowhere.example.org",
        only=(OPENAI,),
    ),
    row(
        "upload-refused",
        "Its file is sent",
        "nobody listens at the port",
        again("upload"),
        plays(),
        where="refused",
        only=(OPENAI,),
    ),
    upload(
        "400",
        "400, each time: it is halved, and each half refused",
        BatchEnd(0, 2, "invalid", create=0, poll=0, fetch=0, upload=3),
        says("400 Bad", "invalid"),
    ),
    upload(
        "413", "413, once: it is halved", BatchEnd(create=2, poll=2, fetch=2, upload=3), [says("413 Large", "size")]
    ),
    upload("401", "401, each time", again("upload"), says("401 No", "auth")),
    upload("429", "429, `retry-after: 0.05`, once", TWICE, [says("429 Slow", "rate", "retry-after: 0.05")]),
    upload("500", "500, once", TWICE, [says("500 Oh", "server")]),
    upload("503", "503, once", TWICE, [says("503 Busy", "overloaded")]),
    upload("html", "200 with a page, once", TWICE, [replies(HTML, "200 OK", "content-type: text/html")]),
    upload("no-id", "200 with JSON that names no file, once", TWICE, [replies(b"{}", "200 OK", JSON)]),
    upload("unheard", "it is kept, and the connection closed without a reply", TWICE, [unheard()]),
    upload("reset", "it is kept, and the connection reset", TWICE, [unheard("reset")]),
    row(
        "upload-gone",
        "Its file is sent",
        "the batch is asked for, and the file is not there (404)",
        BatchEnd(create=2, upload=2),
        plays(create=[says("404 No", "path")]),
        only=(OPENAI,),
    ),
]


def poll(name, does, end, acts, **more):
    return row(f"poll-{name}", "It is asked after", does, end, plays(poll=acts), **more)


def status(openai, gemini, *, results=False, **more):
    """A batch that ended otherwise than well."""

    async def act(peer, wire):
        if wire == "openai-chat":
            told = batch(peer, wire, asked(peer), results=results, status=openai, **more)
        else:
            told = batch(peer, wire, asked(peer), results=results, metadata={"state": f"BATCH_STATE_{gemini}"}, **more)
        await peer.reply(dumped(told))

    return act


TWO_POLLS = BatchEnd(poll=2)
NAMED = (OPENAI, GEMINI)
NOTHING_RAN = BatchEnd(create=2, poll=2, fetch=1, upload=2)
"""It ended without results: its requests go into another."""
BAD_LINE = {"object": "list", "data": [{"code": "invalid_request", "message": "Bad line.", "line": 1}]}
POLLED = [
    poll("goes-on", "it goes on, twice", BatchEnd(poll=3), [goes_on, goes_on]),
    poll("500", "500, once", TWO_POLLS, [says("500 Oh", "server")]),
    poll("503", "503, once", TWO_POLLS, [says("503 Busy", "overloaded")]),
    poll("429", "429, `retry-after: 0.05`, once", TWO_POLLS, [says("429 Slow", "rate", "retry-after: 0.05")]),
    poll("400", "400, once", TWO_POLLS, [says("400 Bad", "invalid")]),
    poll("401", "401", again("poll", create=1), says("401 No", "auth")),
    poll("redirect", "307 to another address, once", TWO_POLLS, [redirects]),
    poll("html", "200 with a page, once", TWO_POLLS, [replies(HTML, "200 OK", "content-type: text/html")]),
    poll("empty", "200 with nothing, once", TWO_POLLS, [replies(b"", "200 OK", JSON)]),
    poll("no-batch", "200 with JSON of something else, once", TWO_POLLS, [replies(b'{"hello": [1]}', "200 OK", JSON)]),
    poll("half", "the reply breaks off, once", TWO_POLLS, [unheard("half")], only=NAMES[:2]),
    poll("vanish", "closed without a reply, once", TWO_POLLS, [unheard()], only=NAMES[:2]),
    poll(
        "of-tomorrow",
        "a state that nobody knows, once",
        TWO_POLLS,
        [status("of_tomorrow", "OF_TOMORROW", done=False)],
        only=NAMED,
    ),
    poll(
        "counts",
        "counts that are no numbers",
        WELL,
        [status("completed", "SUCCEEDED", results=True, request_counts={"total": "x", "completed": -1})],
        only=(OPENAI,),
    ),
    poll(
        "404",
        "404: the provider knows it no more, once",
        BatchEnd(create=2, poll=2, fetch=1, maybe=2, upload=2),
        [says("404 No", "path")],
    ),
    poll("expired", "it has expired, and nothing of it ran", NOTHING_RAN, [status("expired", "EXPIRED")], only=NAMED),
    poll(
        "cancelled",
        "somebody has cancelled it, and nothing of it ran",
        NOTHING_RAN,
        [status("cancelled", "CANCELLED")],
        only=NAMED,
    ),
    poll("no-files", "it is over, and names no results", NOTHING_RAN, [as_batch(results=False)]),
    poll(
        "failed",
        "it has failed, and does not say why, once",
        BatchEnd(create=3, poll=3, fetch=2, upload=3),
        [status("failed", "FAILED")],
        only=NAMED,
    ),
    poll(
        "failed-line",
        "it has failed because of one line",
        BatchEnd(1, 1, "invalid", create=2, poll=2, fetch=1, upload=2),
        [status("failed", "FAILED", errors=BAD_LINE)],
        only=(OPENAI,),
    ),
    poll(
        "failed-limit",
        "it has failed because too many tokens wait already, once",
        BatchEnd(create=2, poll=2, upload=1),
        [
            status(
                "failed",
                "FAILED",
                errors={"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]},
            )
        ],
        only=(OPENAI,),
    ),
    poll(
        "failed-quota",
        "it has failed because a quota is used up, once",
        BatchEnd(create=2, poll=2),
        [
            status(
                "failed", "FAILED", error={"code": 8, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}
            )
        ],
        only=(GEMINI,),
    ),
    poll(
        "elsewhere",
        "its results are at another host: they are not fetched until a person has looked into it",
        again("fetch", create=1, poll=1),
        as_batch(results_url="http://127.0.0.2:9/v1/messages/batches/b0/results"),
        only=(ANTHROPIC,),
    ),
]

ROWS = (*CREATED, *UPLOADED, *POLLED, *FETCHED)
"""Rows of the batch APIs."""
