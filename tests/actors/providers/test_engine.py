"""The engine against a server whose every byte the test decides."""

import asyncio
import gc
import itertools
import json
import logging
import threading
import time

import pytest

from callboard.actors.providers import http_client
from callboard.actors.providers.engine import CallEngine, Failed, Finished, Text
from callboard.actors.providers.model import Billed, ErrorClass, Finish, Message, Request, Scope, Timeouts
from callboard.actors.providers.settings import ProviderSettings

WAIT = 10.0
REQUEST = Request(model="m", messages=(Message("user", "hi"),))
WHOLE = Request(model="m", messages=(Message("user", "hi"),), stream=False)
FOREVER = Timeouts(first_token=None, no_progress=None, total=None)


def data(content=None, finish=None):
    delta = {} if content is None else {"content": content}
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


DONE = b"data: [DONE]\n\n"
BODY = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}]}).encode()


async def ok(exchange):
    await exchange.reply(
        BODY, headers=["content-type: application/json", "x-request-id: req_1", "x-ratelimit-limit-requests: 60"]
    )


async def hold(exchange):
    await exchange.gone()


def test_the_bytes_on_the_wire(serve, start_engine, call, key):
    server = serve(ok)
    call(
        start_engine(f"{server.url}/v1"),
        Request(model="m", messages=(Message("user", "hi"),), max_output=9, stream=False),
    )
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":9}'
    assert server.seen[0].head.decode() == (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nuser-agent: callboard\r\n"
        "content-type: application/json\r\naccept: application/json\r\naccept-encoding: identity\r\n"
        f"authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert server.seen[0].body == body


def test_the_bytes_on_the_wire_for_anthropic(serve, start_engine, call, key):
    server = serve(hold)
    call(start_engine(server.url, wire="anthropic-messages"), timeouts=Timeouts(total=0.05))
    body = b'{"model":"m","max_tokens":1024,"messages":[{"role":"user","content":"hi"}],"stream":true}'
    assert server.seen[0].head.decode() == (
        f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nuser-agent: callboard\r\n"
        "content-type: application/json\r\naccept: text/event-stream\r\naccept-encoding: identity\r\n"
        f"anthropic-version: 2023-06-01\r\nx-api-key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert server.seen[0].body == body


def test_a_whole_reply(serve, start_engine, call):
    engine = start_engine(serve(ok).url)
    end, heard = call(engine, WHOLE)
    assert isinstance(end, Finished)
    assert (end.completion.text, end.completion.finish, end.completion.request_id) == ("ok", Finish.STOP, "req_1")
    assert end.completion.total_ms >= end.completion.first_token_ms >= 0
    assert end.limits.requests_limit == 60
    assert heard.events == [end]


def test_text_of_one_read_is_one_event(serve, start_engine, listener):
    go = threading.Event()

    async def answer(exchange):
        await exchange.open_stream()
        # Three chunks of the transfer coding, one segment on the wire: one read.
        parts = [data("a"), data("b"), data("c")]
        await exchange.send(b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts))
        await asyncio.get_running_loop().run_in_executor(None, go.wait, WAIT)
        await exchange.chunk(data("d", "stop") + DONE)
        await exchange.end_stream()

    heard = listener()
    start_engine(serve(answer).url).submit("k", REQUEST, FOREVER, heard)
    assert heard.next() == Text("k", "abc")
    go.set()
    end = heard.next()
    assert (end.rest, end.completion.text) == ("d", "abcd"), "what comes with the end is told with it"
    assert heard.nothing_more()


def test_a_connection_is_used_again_after_a_stream_and_after_a_body(serve, start_engine, call):
    async def answer(exchange):
        if b"stream" in exchange.body:
            await exchange.open_stream(data("a", "stop") + DONE)
            await exchange.end_stream()
        else:
            await ok(exchange)

    server = serve(answer)
    engine = start_engine(server.url)
    for request in (REQUEST, WHOLE, REQUEST, WHOLE):
        end, _ = call(engine, request)
        assert isinstance(end, Finished)
        until(lambda: engine.in_flight == 0)
    assert (len(server.seen), server.connections) == (4, 1)


def until(condition):
    """Wait for what another thread does right after an event, without an event of its own."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def test_the_end_does_not_wait_for_the_connection(serve, start_engine, call):
    async def answer(exchange):
        await exchange.open_stream(data("a", "stop") + DONE)
        await exchange.gone()  # never ends the body

    server = serve(answer)
    end, _ = call(start_engine(server.url), timeouts=FOREVER)
    assert isinstance(end, Finished)
    assert server.disconnected.wait(WAIT)


def test_an_answer_that_is_here_is_not_lost_to_a_cancellation_while_its_connection_is_let_go(
    serve, start_engine, call, monkeypatch
):
    letting_go = threading.Event()

    async def close(reply):
        letting_go.set()
        try:
            await asyncio.Event().wait()
        finally:
            await reply._body.aclose()

    engine = start_engine(serve(ok).url)
    monkeypatch.setattr(http_client.Reply, "close", close)
    end, heard = call(engine, WHOLE, Timeouts(total=5))
    assert letting_go.wait(WAIT)
    engine.stop()
    assert isinstance(end, Finished)
    assert heard.nothing_more()


def test_text_goes_out_at_once_and_then_at_intervals(serve, start_engine, listener):
    """However fast it comes: each event wakes a thread. The end does not wait."""

    async def answer(exchange):
        await exchange.open_stream(data("a"))
        for _ in range(100):
            await exchange.chunk(data("a"))
        await exchange.chunk(data("b", "stop") + DONE)
        await exchange.end_stream()

    at = []
    heard, engine = listener(), start_engine(serve(answer).url)
    engine.submit("k", REQUEST, FOREVER, lambda event: (at.append(time.monotonic()), heard(event)))
    end = heard.end()
    assert heard.text == end.completion.text == "a" * 101 + "b"
    texts = at[: len([event for event in heard.events if isinstance(event, Text)])]
    assert all(after - before > 0.04 for before, after in itertools.pairwise(texts[:-1]))
    assert len(texts) < 50


def test_a_server_that_does_not_stream(serve, start_engine, call):
    end, heard = call(start_engine(serve(ok).url), REQUEST)
    assert end.completion.text == "ok"
    assert heard.events == [end]


def test_a_compressed_reply_is_read(serve, start_engine, call):
    import gzip

    async def answer(exchange):
        await exchange.reply(gzip.compress(BODY), headers=["content-type: application/json", "content-encoding: gzip"])

    end, _ = call(start_engine(serve(answer).url), WHOLE)
    assert end.completion.text == "ok"


@pytest.mark.parametrize("first", [None, b"", b": ping\n\n", data("a")])
def test_abort_closes_the_connection_at_once(serve, start_engine, listener, first):
    """Before the headers, after them, among keep-alives and in the middle of the text."""

    async def answer(exchange):
        if first is not None:
            await exchange.open_stream(first)
        await exchange.gone()

    server = serve(answer)
    engine = start_engine(server.url)
    heard = listener()
    engine.submit("k", REQUEST, FOREVER, heard)
    if first == data("a"):
        assert heard.next() == Text("k", "a")
    else:
        assert server.arrived.acquire(timeout=WAIT)
    began = time.monotonic()
    engine.abort("k")
    end = heard.end()
    assert server.disconnected.wait(WAIT)
    assert time.monotonic() - began < 1.0
    assert (end.error.kind, end.error.billed, end.error.sent) == (ErrorClass.CANCELLED, Billed.MAYBE, True)
    assert end.error.partial == ("a" if first == data("a") else "")
    engine.abort("k")
    engine.abort("never heard of")


@pytest.mark.parametrize(
    ("timeouts", "first", "deadline", "partial", "billed"),
    [
        (Timeouts(first_token=0.05), None, "first_token", "", Billed.MAYBE),
        (Timeouts(first_token=0.05), b": ping\n\n", "first_token", "", Billed.MAYBE),
        (Timeouts(first_token=9, no_progress=0.05), data("a"), "no_progress", "a", Billed.YES),
        (Timeouts(total=0.05), None, "total", "", Billed.MAYBE),
        (Timeouts(total=0.2, no_progress=9), data("a"), "total", "a", Billed.YES),
    ],
)
def test_deadlines(serve, start_engine, call, timeouts, first, deadline, partial, billed):
    async def answer(exchange):
        if first is not None:
            await exchange.open_stream(first)
        await exchange.gone()

    server = serve(answer)
    end, _ = call(start_engine(server.url), timeouts=timeouts)
    assert (end.error.kind, end.error.code, end.error.partial) == (ErrorClass.TIMEOUT, deadline, partial)
    assert (end.error.billed, end.error.sent) == (billed, True)
    assert deadline in end.error.message
    assert server.disconnected.wait(WAIT)


async def ping_until_gone(exchange, ping):
    gone = asyncio.ensure_future(exchange.gone())
    while not gone.done():
        await exchange.chunk(ping)
        await asyncio.wait([gone], timeout=0.005)


@pytest.mark.parametrize(
    ("wire", "ping"),
    [("openai-chat", b": ping\n\n"), ("anthropic-messages", b'event: ping\ndata: {"type":"ping"}\n\n')],
)
@pytest.mark.parametrize(
    ("timeouts", "deadline"),
    [(Timeouts(first_token=0.1), "first_token"), (Timeouts(first_token=0.1, no_progress=0.05), "no_progress")],
)
def test_pings_are_no_progress(serve, start_engine, call, wire, ping, timeouts, deadline):
    piece = (
        data("a")
        if wire == "openai-chat"
        else b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}\n\n'
    )

    async def answer(exchange):
        await exchange.open_stream()
        if deadline == "no_progress":
            await exchange.chunk(piece)
        await ping_until_gone(exchange, ping)

    end, _ = call(start_engine(serve(answer).url, wire=wire), timeouts=timeouts)
    assert (end.error.kind, end.error.code) == (ErrorClass.TIMEOUT, deadline)


def test_white_space_in_a_body_is_no_progress(serve, start_engine, call):
    async def answer(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        await ping_until_gone(exchange, b" \n")

    end, _ = call(start_engine(serve(answer).url), WHOLE, Timeouts(first_token=0.05))
    assert end.error.code == "first_token"


def test_progress_moves_the_deadline(serve, start_engine, call):
    async def answer(exchange):
        await exchange.open_stream()
        gone = asyncio.ensure_future(exchange.gone())
        for _ in range(10):
            await exchange.chunk(data("a"))
            await asyncio.wait([gone], timeout=0.03)
        gone.cancel()
        await asyncio.wait([gone])
        await exchange.chunk(data("", "stop") + DONE)
        await exchange.end_stream()

    end, _ = call(start_engine(serve(answer).url), timeouts=Timeouts(first_token=5, no_progress=0.2))
    assert end.completion.text == "a" * 10
    assert end.completion.total_ms > 200


def test_an_answer_whose_finish_has_come_is_not_lost_to_a_deadline(serve, start_engine, call):
    async def answer(exchange):
        await exchange.open_stream(data("a", "stop"))
        await exchange.gone()

    end, _ = call(start_engine(serve(answer).url), timeouts=Timeouts(no_progress=0.05))
    assert end.completion.text == "a"


def cut(*parts):
    async def answer(exchange):
        for part in parts:
            await exchange.send(part)
        exchange.writer.transport.abort()

    return answer


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(raw):
    return b"%x\r\n%b\r\n" % (len(raw), raw)


@pytest.mark.parametrize(
    ("answer", "kind", "billed", "partial"),
    [
        (cut(), ErrorClass.CONNECT, Billed.MAYBE, ""),
        (cut(b"HTTP/1.1 200 OK\r\ncont"), ErrorClass.CONNECT, Billed.MAYBE, ""),
        (cut(b"no HTTP at all\r\n\r\n"), ErrorClass.CONNECT, Billed.MAYBE, ""),
        (cut(HEAD), ErrorClass.TRUNCATED, Billed.MAYBE, ""),
        (cut(HEAD, chunked(data("a"))), ErrorClass.TRUNCATED, Billed.YES, "a"),
        (cut(HEAD, chunked(data("a")), b"zz\r\nnot hex"), ErrorClass.TRUNCATED, Billed.YES, "a"),
        (
            cut(HEAD, chunked(data("a")), chunked(data("b", "stop")[:-1]), b"0\r\n\r\n"),
            ErrorClass.TRUNCATED,
            Billed.YES,
            "a",
        ),
        (cut(HEAD, chunked(data("a")), b"0\r\n\r\n"), ErrorClass.TRUNCATED, Billed.YES, "a"),
        (
            cut(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"),
            ErrorClass.TRUNCATED,
            Billed.MAYBE,
            "",
        ),
        (cut(b"HTTP/1.1 429 No\r\ncontent-length: 99\r\nretry-after: 3\r\n\r\n{"), ErrorClass.RATE, Billed.NO, ""),
        (cut(HEAD, chunked(b"data: " + b"x" * 17_000_000)), ErrorClass.MALFORMED, Billed.MAYBE, ""),
    ],
)
def test_connections_that_break(serve, start_engine, call, answer, kind, billed, partial):
    end, heard = call(start_engine(serve(answer).url))
    assert (end.error.kind, end.error.billed, end.error.partial, end.error.sent) == (kind, billed, partial, True)
    assert heard.text == partial


def test_a_stalled_error_body_still_tells_its_status(serve, start_engine, call):
    async def answer(exchange):
        await exchange.send(b"HTTP/1.1 529 Busy\r\ncontent-length: 99\r\n\r\n{")
        await exchange.gone()

    end, _ = call(start_engine(serve(answer).url), timeouts=Timeouts(first_token=0.05, no_progress=0.05))
    assert (end.error.kind, end.error.http) == (ErrorClass.OVERLOADED, 529)


def test_an_endless_error_body_is_cut(serve, start_engine, call):
    async def answer(exchange):
        await exchange.send(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n")
        await ping_until_gone(exchange, b"x" * 60_000)

    end, _ = call(start_engine(serve(answer).url))
    assert (end.error.kind, end.error.http) == (ErrorClass.SERVER, 500)


def test_nobody_listens(start_engine, call):
    end, _ = call(start_engine("http://127.0.0.1:9"))
    assert (end.error.kind, end.error.sent, end.error.billed, end.error.scope) == (
        ErrorClass.CONNECT,
        False,
        Billed.NO,
        Scope.PROVIDER,
    )


def test_a_kept_connection_that_dies_under_a_request_is_an_unknown_outcome(serve, start_engine, call):
    async def answer(exchange):
        if len(server.seen) == 1:
            await ok(exchange)
        else:
            exchange.writer.transport.abort()

    server = serve(answer)
    engine = start_engine(server.url)
    assert isinstance(call(engine, WHOLE)[0], Finished)
    end, _ = call(engine, WHOLE)
    assert (end.error.kind, end.error.sent, end.error.billed) == (ErrorClass.CONNECT, True, Billed.MAYBE)
    assert server.connections == 1


def test_a_connection_the_server_closed_meanwhile_is_not_used(serve, start_engine, call):
    async def answer(exchange):
        await ok(exchange)
        exchange.writer.transport.abort()

    server = serve(answer)
    engine = start_engine(server.url)
    for n in range(1, 4):
        end, _ = call(engine, WHOLE)
        assert isinstance(end, Finished)
        assert server.disconnected.wait(WAIT)
        idle = engine._provider.client._direct._idle
        until(lambda: engine.in_flight == 0 and not any(one.usable(0.0) for one in idle))  # noqa: B023
        assert server.connections == n


def test_fifty_at_once(serve, start_engine, listener):
    barrier = asyncio.Event()

    async def answer(exchange):
        if len(server.seen) == 50:
            barrier.set()
        await barrier.wait()
        await exchange.open_stream(data("a"))
        await exchange.chunk(data("b", "stop") + DONE)
        await exchange.end_stream()

    server = serve(answer)
    engine = start_engine(server.url)
    heard = [listener() for _ in range(50)]
    for n, one in enumerate(heard):
        engine.submit(n, REQUEST, FOREVER, one)
    ends = [one.end() for one in heard]
    assert [(end.call_key, end.completion.text) for end in ends] == [(n, "ab") for n in range(50)]
    assert server.connections == 50


def test_calls_over_the_cap_queue(serve, start_engine, listener):
    server = serve(hold)
    engine = start_engine(server.url, max_in_flight=2)
    heard = [listener() for _ in range(4)]
    for n, one in enumerate(heard):
        engine.submit(n, REQUEST, FOREVER, one)
    for _ in range(2):
        assert server.arrived.acquire(timeout=WAIT)
    assert engine.in_flight == 4
    engine.abort(2)
    end = heard[2].end()
    assert (end.error.kind, end.error.sent, end.error.billed) == (ErrorClass.CANCELLED, False, Billed.NO)
    engine.abort(0)
    assert heard[0].end().error.sent
    assert server.arrived.acquire(timeout=WAIT)  # the fourth has gone out
    engine.stop()
    assert all(heard[n].end().error.kind is ErrorClass.CANCELLED for n in (1, 3))


def test_stop_ends_every_call_and_leaves_no_thread(serve, start_engine, listener):
    server = serve(hold)
    engine = start_engine(server.url)
    heard = [listener() for _ in range(5)]
    for n, one in enumerate(heard):
        engine.submit(n, REQUEST, FOREVER, one)
    for _ in heard:
        assert server.arrived.acquire(timeout=WAIT)
    engine.stop()
    for one in heard:
        end = one.end()
        assert (end.error.kind, end.error.billed) == (ErrorClass.CANCELLED, Billed.MAYBE)
        assert "stopped" in end.error.message
    assert not engine._thread.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("callboard-")]
    engine.stop()


def test_after_stop_a_call_ends_at_once(serve, start_engine, listener):
    engine = start_engine(serve(ok).url)
    engine.stop()
    heard = listener()
    engine.submit("k", REQUEST, FOREVER, heard)
    end = heard.end()
    assert (end.error.kind, end.error.sent) == (ErrorClass.CANCELLED, False)
    engine.abort("k")
    with pytest.raises(RuntimeError, match="started before"):
        engine.start()


def test_submits_racing_with_stop_all_end(serve, start_engine, listener):
    engine = start_engine(serve(hold).url)
    heard = [listener() for _ in range(200)]
    halfway = threading.Event()

    def submit():
        for n, one in enumerate(heard):
            engine.submit(n, REQUEST, FOREVER, one)
            if n == 100:
                halfway.set()

    thread = threading.Thread(target=submit)
    thread.start()
    assert halfway.wait(WAIT)
    engine.stop()
    thread.join(WAIT)
    assert all(one.end().error.kind is ErrorClass.CANCELLED for one in heard)


def test_a_key_in_flight_is_not_submitted_twice(serve, start_engine, listener):
    engine = start_engine(serve(hold).url)
    engine.submit("k", REQUEST, FOREVER, listener())
    with pytest.raises(ValueError, match="'k' is in flight"):
        engine.submit("k", REQUEST, FOREVER, listener())


def test_a_bad_base_url_is_told_by_the_settings():
    with pytest.raises(ValueError, match="clear text"):
        ProviderSettings(name="p", wire="openai-chat", base_url="http://example.org")


def test_start_tells_why_it_failed():
    class Broken(CallEngine):
        async def _main(self):
            raise OSError("no loop today")

    engine = Broken(ProviderSettings(name="p", wire="openai-chat", base_url="http://localhost:1"))
    with pytest.raises(OSError, match="no loop today"):
        engine.start()
    engine.stop()


def test_the_heartbeat_is_fresh(serve, start_engine, call):
    engine = start_engine(serve(ok).url)
    call(engine, WHOLE)
    assert time.monotonic() - engine.heartbeat_at < 5


def test_a_failing_listener_harms_no_one(serve, start_engine, call, caplog):
    engine = start_engine(serve(ok).url)
    told = threading.Event()
    secret = "secret plans"

    def broken(event):
        told.set()
        raise RuntimeError(f"the prompt was: {secret}")

    engine.submit("k", WHOLE, FOREVER, broken)
    assert told.wait(WAIT)
    assert isinstance(call(engine, WHOLE)[0], Finished)
    assert "the listener of call 'k' failed with RuntimeError" in caplog.text
    assert secret not in caplog.text


@pytest.mark.parametrize("where", ["encode", "limits", "decode_body"])
def test_a_bug_in_an_adapter_is_one_failed_call(serve, start_engine, call, caplog, monkeypatch, key, where):
    engine = start_engine(serve(ok).url)

    def broken(*_args, **_more):
        raise ZeroDivisionError(f"with {key}")

    monkeypatch.setattr(engine._adapter, where, broken, raising=True)
    end, _ = call(engine, WHOLE)
    assert end.error.kind is (ErrorClass.SERVER if where == "encode" else ErrorClass.MALFORMED)
    assert end.error.sent is (where != "encode")
    assert "this is a bug" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert key not in caplog.text


def test_no_key_where_it_is_configured(serve, start_engine, call):
    server = serve(ok)
    end, _ = call(start_engine(server.url, environ={}), WHOLE)
    assert (end.error.kind, end.error.scope, end.error.sent) == (ErrorClass.AUTH, Scope.CREDENTIAL, False)
    assert "TEST_KEY is not set" in end.error.message
    assert server.seen == []


def test_the_key_is_resolved_when_a_call_is_sent(serve, start_engine, call):
    environ = {"TEST_KEY": "first"}
    server = serve(ok)
    engine = start_engine(server.url, environ=environ)
    call(engine, WHOLE)
    environ["TEST_KEY"] = "second"
    call(engine, WHOLE)
    assert [exchange.headers["authorization"] for exchange in server.seen] == ["Bearer first", "Bearer second"]


def test_the_key_is_seen_nowhere(serve, start_engine, listener, caplog, key):
    """Not in events, their reprs, logs at the lowest level, or what an echoing server sends back."""
    caplog.set_level(logging.DEBUG)

    async def answer(exchange):
        await exchange.reply(exchange.head + exchange.body, status="400 Bad")

    engine = start_engine(serve(answer).url, unsupported=frozenset())
    for n, dead in enumerate((False, True)):
        heard = listener()
        if dead:
            engine = start_engine("http://127.0.0.1:9")
        engine.submit(n, REQUEST, FOREVER, heard)
        end = heard.end()
        assert isinstance(end, Failed)
        assert key not in repr(end) + json.dumps(end.error.to_json())
    assert key not in repr(engine) + repr(engine.settings) + repr(engine._provider)
    assert key not in caplog.text
    assert not [name for name in ("httpx", "httpcore") if logging.getLogger(name).getEffectiveLevel() < logging.WARNING]


def test_a_call_that_ended_leaves_nothing_behind(serve, start_engine, call):
    from callboard.actors.providers.call import Call

    def calls():
        return [found for found in gc.get_objects() if isinstance(found, Call)]

    engine = start_engine(serve(ok).url)
    others = calls()  # of tests before this one in the same process, kept from being taken for its own
    call(engine, WHOLE)
    until(lambda: engine.in_flight == 0 and not engine._tasks)
    gc.collect()
    assert not [found for found in calls() if not any(found is other for other in others)]
