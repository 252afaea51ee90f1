"""Calls that the provider goes on with, over real HTTP: followed where a connection broke off, taken up by their handle, ended when nobody wants them."""

import json
import threading
import urllib.request

import pytest

from callboard.actors.providers import background
from callboard.actors.providers.call import Held
from callboard.actors.providers.engine import Failed, Finished, Text
from callboard.actors.providers.model import Billed, ErrorClass, Message, Request, Timeouts
from callboard.actors.providers.resume import HANDLE_GONE, Handle
from callboard.simulator import Simulator, SimulatorConfig

PROMPT = "Cats sleep all the day long, and in the night they sit on the wall and sing to the moon."
REQUEST = Request(model="m", messages=(Message("user", PROMPT),))
LONG = Request(model="m", messages=(Message("user", PROMPT[:-1] * 20),))


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(background, "FIRST_WAIT", 0.001)


@pytest.fixture
def simulator():
    with Simulator(SimulatorConfig()) as running:
        yield running


@pytest.fixture
def slow():
    """One whose answers take so long that what is done in the middle of one is done in the middle of one."""
    with Simulator(SimulatorConfig(tokens_per_second=20)) as running:
        yield running


@pytest.fixture
def engine(simulator, start_engine):
    return start_engine(f"{simulator.url}/v1", wire="openai-responses", background=True)


@pytest.fixture
def slow_engine(slow, start_engine):
    return start_engine(f"{slow.url}/v1", wire="openai-responses", background=True)


def paths(simulator):
    return [(entry["path"], entry["outcome"]) for entry in simulator.journal()]


def until_text(heard):
    while not isinstance(event := heard.next(), Text):
        pass
    return event


def handle_of(heard):
    return next(event.handle for event in heard.events if isinstance(event, Held))


def test_what_is_asked_and_told(simulator, engine, call):
    end, heard = call(engine, REQUEST)
    body = simulator.journal()[0]["body"]
    assert (body["background"], body["store"], body["stream"]) == (True, True, True)
    assert isinstance(heard.events[0], Held)  # before any text
    assert handle_of(heard) == Handle(ref="resp_sim_1")
    assert (end.completion.text, heard.text) == (PROMPT, PROMPT)
    assert paths(simulator) == [("/v1/responses", "completed")]


@pytest.mark.parametrize(
    "fault",
    [{"kind": "cut", "n": 1}, {"kind": "cut", "n": 0}, {"kind": "no_terminal"}, {"kind": "no_terminal", "n": 3}],
    ids=str,
)
def test_a_lost_connection_is_followed_up_in_the_same_call(simulator, engine, call, fault):
    simulator.faults({"fault": fault, "times": 1})
    end, heard = call(engine, REQUEST)
    assert isinstance(end, Finished), end
    assert (end.completion.text, heard.text) == (PROMPT, PROMPT)
    assert end.completion.usage.total > 0
    assert [path for path, _ in paths(simulator)] == ["/v1/responses", "/v1/responses/resp_sim_1"]
    assert sum(isinstance(event, Held) for event in heard.events) == 1


def test_as_often_as_it_gets_on(simulator, engine, call):
    simulator.faults({"fault": {"kind": "cut", "n": 2}})
    end, heard = call(engine, REQUEST)
    assert isinstance(end, Finished), end
    assert (end.completion.text, heard.text) == (PROMPT, PROMPT)
    asked = paths(simulator)
    assert len(asked) > 7  # more often than a call that gets nowhere is tried
    assert [path for path, _ in asked].count("/v1/responses") == 1


def test_an_overloaded_moment_in_between(simulator, engine, call):
    simulator.faults(
        {"fault": {"kind": "cut", "n": 1}, "times": 1},
        {"fault": {"kind": "status", "status": 503}, "times": 1},
        {"fault": {"kind": "html", "status": 502}, "times": 1},
    )
    end, heard = call(engine, REQUEST)
    assert isinstance(end, Finished), end
    assert heard.text == PROMPT
    assert len(paths(simulator)) == 4


def test_a_call_that_cannot_be_followed_is_looked_at(simulator, engine, call):
    simulator.faults({"fault": {"kind": "cut", "n": 2}, "times": 1}, {"fault": {"kind": "no_terminal", "n": 0}})
    end, heard = call(engine, REQUEST)
    assert isinstance(end, Finished), end
    assert (end.completion.text, heard.text) == (PROMPT, PROMPT)
    assert end.completion.usage.total > 0


def test_one_that_is_still_under_way_is_for_another_attempt(slow, slow_engine, call, listener):
    slow.faults({"fault": {"kind": "cut", "n": 1}, "times": 1}, {"fault": {"kind": "cut", "n": 0}})
    end, heard = call(slow_engine, LONG)
    assert isinstance(end, Failed)
    assert (end.error.resumable, end.error.billed, end.error.kind) == (True, Billed.MAYBE, ErrorClass.TRUNCATED)
    assert end.error.partial == heard.text == "Cats "
    assert end.error.to_json()["resumable"] is True
    slow.clear_faults()
    again = listener()
    slow_engine.resume("again", LONG, Timeouts(), again, handle_of(heard))
    assert until_text(again).text.startswith("Cats ")  # from its beginning
    slow_engine.abort("again")
    assert again.end().error.kind is ErrorClass.CANCELLED


def test_it_is_taken_up_by_its_handle(simulator, engine, call, listener):
    first, heard = call(engine, REQUEST)
    again = listener()
    engine.resume("again", REQUEST, Timeouts(), again, handle_of(heard))
    end = again.end()
    assert (end.completion.text, again.text) == (PROMPT, PROMPT)
    assert end.completion.usage == first.completion.usage
    assert end.completion.response_id == "resp_sim_1"
    assert not any(isinstance(event, Held) for event in again.events)
    assert paths(simulator)[1:] == [("/v1/responses/resp_sim_1", "completed")]


def test_one_that_is_gone_says_so(simulator, engine, call, listener):
    _, heard = call(engine, REQUEST)
    gone = urllib.request.Request(f"{simulator.url}/v1/responses/resp_sim_1", method="DELETE")
    gone.add_header("authorization", "Bearer sk-test-0123456789abcdef")
    urllib.request.urlopen(gone).close()
    again = listener()
    engine.resume("again", REQUEST, Timeouts(), again, handle_of(heard))
    error = again.end().error
    assert (error.code, error.resumable, error.billed) == (HANDLE_GONE, False, Billed.MAYBE)
    assert error.http == 404
    strange = listener()
    engine.resume("strange", REQUEST, Timeouts(), strange, Handle(ref="../../models?x"))
    assert strange.end().error.code == HANDLE_GONE
    assert paths(simulator)[-1][0] == "/v1/responses/modelsx"


def test_an_abort_ends_it_at_the_provider(slow, slow_engine, listener):
    heard = listener()
    slow_engine.submit("call", LONG, Timeouts(), heard)
    until_text(heard)
    slow_engine.abort("call")
    error = heard.end().error
    assert (error.kind, error.code, error.resumable) == (ErrorClass.CANCELLED, HANDLE_GONE, False)
    slow.wait_for(lambda journal: ("/v1/responses/resp_sim_1/cancel", "completed") in paths(slow))
    # Whoever looks for it now finds it ended, and does not wait for it.
    again = listener()
    slow_engine.resume("again", LONG, Timeouts(), again, Handle(ref="resp_sim_1"))
    found = again.end().error
    assert (found.code, found.resumable) == (HANDLE_GONE, False)


def test_an_abort_that_keeps_it_leaves_it_alone(slow, slow_engine, listener):
    heard = listener()
    slow_engine.submit("call", LONG, Timeouts(), heard)
    until_text(heard)
    slow_engine.abort("call", keep=True)
    error = heard.end().error
    assert (error.kind, error.resumable, error.billed) == (ErrorClass.CANCELLED, True, Billed.MAYBE)
    slow.wait_for(lambda journal: journal[-1]["ended_at"] is not None)
    assert paths(slow) == [("/v1/responses", "aborted_by_client")]


def test_the_end_of_the_engine_keeps_it(slow, start_engine, listener):
    engine = start_engine(f"{slow.url}/v1", wire="openai-responses", background=True)
    heard = listener()
    engine.submit("call", LONG, Timeouts(), heard)
    until_text(heard)
    engine.stop()
    assert heard.end().error.resumable
    assert [path for path, _ in paths(slow)] == ["/v1/responses"]


@pytest.mark.parametrize(
    ("timeouts", "code"),
    [(Timeouts(no_progress=0.05), "no_progress"), (Timeouts(total=0.1), "total")],
    ids=["no_progress", "total"],
)
def test_a_deadline_leaves_it_to_another_attempt(slow, slow_engine, call, timeouts, code):
    end, _ = call(slow_engine, LONG, timeouts)
    assert (end.error.kind, end.error.code, end.error.resumable) == (ErrorClass.TIMEOUT, code, True)
    assert end.error.billed is Billed.MAYBE
    assert [path for path, _ in paths(slow)] == ["/v1/responses"]


def test_what_the_provider_ended_is_not_taken_up(simulator, engine, call):
    simulator.faults({"fault": {"kind": "error_event", "n": 1}, "times": 1})
    end, _ = call(engine, REQUEST)
    assert (end.error.kind, end.error.resumable) == (ErrorClass.SERVER, False)
    assert len(paths(simulator)) == 1


def test_a_call_that_was_refused_has_nothing_to_follow(simulator, engine, call):
    simulator.faults({"fault": {"kind": "status", "status": 503}, "times": 1})
    end, heard = call(engine, REQUEST)
    assert (end.error.kind, end.error.resumable, heard.events[:-1]) == (ErrorClass.OVERLOADED, False, [])
    assert len(paths(simulator)) == 1


def test_without_the_setting_nothing_is_kept(simulator, start_engine, call):
    engine = start_engine(f"{simulator.url}/v1", wire="openai-responses")
    simulator.faults({"fault": {"kind": "cut", "n": 1}, "times": 1})
    end, heard = call(engine, REQUEST)
    assert (end.error.kind, end.error.resumable, end.error.billed) == (ErrorClass.TRUNCATED, False, Billed.YES)
    assert not any(isinstance(event, Held) for event in heard.events)
    body = simulator.journal()[0]["body"]
    assert body["store"] is False
    assert "background" not in body


def test_many_at_once(simulator, engine, listener):
    simulator.faults({"fault": {"kind": "cut", "n": 1}, "times": 20})
    heard = [listener() for _ in range(20)]
    for number, one in enumerate(heard):
        engine.submit(number, REQUEST, Timeouts(), one)
    assert [one.end().completion.text for one in heard] == [PROMPT] * 20
    assert [path for path, _ in paths(simulator)].count("/v1/responses") == 20
    assert threading.active_count() < 20


def test_no_key_is_in_what_is_kept(simulator, engine, call, key):
    _, heard = call(engine, REQUEST)
    assert key not in json.dumps(handle_of(heard).to_json())
