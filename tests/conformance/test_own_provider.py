"""A host's own provider keeps the promises of every provider: what the wire formats are asked, asked of a class of twenty lines."""

import asyncio
import importlib.util
import queue
import sys
import threading
from array import array
from pathlib import Path

import pytest

from callboard import Completion, Config, JobQueue, JobState, Supervisor
from callboard.actors.providers.call import Failed, Finished, Text
from callboard.actors.providers.model import (
    Billed,
    EmbeddingRequest,
    Embeddings,
    ErrorClass,
    Finish,
    Message,
    Request,
    Scope,
    Timeouts,
    Usage,
)
from callboard.actors.providers.own import OwnEngine, ProviderFailed, load_own
from callboard.actors.providers.settings import ProviderLoadError, ProviderSettings
from callboard.actors.settings import LimitSettings, ModelSettings, PriceSettings, RetrySettings

WAIT = 10.0
EXAMPLES = Path(__file__).parents[2] / "examples"
REQUEST = Request(model="r-1", messages=(Message("user", "again and again we rehearse"),))
ANSWER = "rehearse we again and again "


def example():
    spec = importlib.util.spec_from_file_location("own_provider", EXAMPLES / "own_provider.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Reverser()


class Provider:
    """Runs a scenario: an async generator function of the request."""

    def __init__(self, scenario):
        self.complete = scenario


@pytest.fixture
def play():
    """Play scenarios on engines that end with the test; gives the events of one call."""
    engines = []

    def start(own, request=REQUEST, timeouts=None, during=None):
        engine = OwnEngine(ProviderSettings(name="mine", wire="own"), own)
        engines.append(engine)
        engine.start()
        events = queue.Queue()
        engine.submit("c", request, timeouts or Timeouts(), events.put)
        if during is not None:
            during(engine)
        told = []
        while not told or isinstance(told[-1], Text):
            told.append(events.get(timeout=WAIT))
        return told

    yield start
    for engine in engines:
        engine.stop()


def test_an_answer_is_streamed_and_complete(play):
    *texts, end = play(example())
    assert isinstance(end, Finished)
    assert "".join(piece.text for piece in texts) + end.rest == ANSWER
    assert end.completion.text == ANSWER
    assert end.completion.finish is Finish.STOP
    assert end.completion.usage == Usage(input_uncached=5, output_visible=5)
    assert end.completion.first_token_ms is not None
    assert end.completion.total_ms is not None


def failing(error, *pieces):
    async def complete(request):
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    return Provider(complete)


@pytest.mark.parametrize(
    ("error", "kind", "scope", "billed"),
    [
        (ProviderFailed("rate", "slow down", retry_after=3.0), ErrorClass.RATE, Scope.MODEL, Billed.NO),
        (ProviderFailed("auth", "no such key"), ErrorClass.AUTH, Scope.CREDENTIAL, Billed.NO),
        (ProviderFailed("overloaded", "busy", billed="maybe"), ErrorClass.OVERLOADED, Scope.MODEL, Billed.MAYBE),
        (ProviderFailed("server", "oh", scope="provider"), ErrorClass.SERVER, Scope.PROVIDER, Billed.NO),
        (ValueError("a bug"), ErrorClass.SERVER, Scope.REQUEST, Billed.MAYBE),
        (SystemExit(3), ErrorClass.SERVER, Scope.REQUEST, Billed.MAYBE),
        (None, ErrorClass.TRUNCATED, Scope.REQUEST, Billed.YES),
    ],
)
def test_a_failure_is_what_the_provider_says_it_is(play, error, kind, scope, billed):
    end = play(failing(error, "half an "))[-1]
    assert isinstance(end, Failed)
    assert (end.error.kind, end.error.scope, end.error.billed) == (kind, scope, billed)
    assert end.error.partial == "half an "
    assert end.error.retry_after == getattr(error, "retry_after", None)


def test_no_key_of_an_exception_is_kept(play):
    end = play(failing(ValueError("Authorization: Bearer sk-planted0123456789abcdef")))[-1]
    assert "planted" not in end.error.message


def test_what_is_no_text_is_malformed(play):
    assert play(failing(None, "a", 3))[-1].error.kind is ErrorClass.MALFORMED


@pytest.mark.parametrize(
    ("pieces", "timeouts", "deadline"),
    [
        ((), Timeouts(first_token=0.02, no_progress=None, total=None), "first_token"),
        (("a",), Timeouts(first_token=5.0, no_progress=0.02, total=None), "no_progress"),
        (("a",), Timeouts(first_token=5.0, no_progress=None, total=0.02), "total"),
    ],
)
def test_each_deadline_ends_a_call_that_hangs(play, pieces, timeouts, deadline):
    left = threading.Event()

    async def complete(request):
        for piece in pieces:
            yield piece
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    end = play(Provider(complete), timeouts=timeouts)[-1]
    assert (end.error.kind, end.error.code, end.error.partial) == (ErrorClass.TIMEOUT, deadline, "".join(pieces))
    assert left.wait(WAIT), "the provider's code was left hanging"


def test_an_abort_reaches_the_providers_code(play):
    begun, left = threading.Event(), threading.Event()

    async def complete(request):
        yield "a"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    def abort(engine):
        assert begun.wait(WAIT)
        engine.abort("c")

    end = play(Provider(complete), during=abort)[-1]
    assert (end.error.kind, end.error.billed) == (ErrorClass.CANCELLED, Billed.MAYBE)
    assert left.wait(WAIT)


class Embedder:
    def __init__(self, *vectors):
        self.vectors = vectors

    async def complete(self, request):
        yield Completion(text="", finish=Finish.STOP)

    async def embed(self, request):
        return Embeddings(vectors=self.vectors, usage=Usage(input_uncached=2))


def test_embeddings(play):
    request = EmbeddingRequest(model="m", inputs=("a", "b"))
    two = (array("f", [1.0]), array("f", [2.0]))
    assert play(Embedder(*two), request)[-1].completion.vectors == two
    assert play(Embedder(two[0]), request)[-1].error.kind is ErrorClass.MALFORMED
    assert play(example(), request)[-1].error.kind is ErrorClass.INVALID


def test_a_factory_is_loaded_or_says_why_not(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    try:
        own = load_own(ProviderSettings(name="mine", wire="own", factory="own_provider:Reverser"))
    finally:
        sys.modules.pop("own_provider", None)
    assert callable(own.complete)
    for path, says in (
        ("nowhere:X", "No module"),
        ("json:nothing", "no attribute"),
        ("json:JSONDecoder", "no method complete"),
    ):
        with pytest.raises(ProviderLoadError, match=rf"providers\.mine\.factory: .*{says}"):
            load_own(ProviderSettings(name="mine", wire="own", factory=path))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"wire": "own", "base_url": "https://x.example"}, "base_url is not for wire 'own'"),
        ({"wire": "own", "factory": "no colon"}, "factory is for"),
        ({"wire": "openai-chat", "base_url": "https://x.example", "factory": "a:b"}, "factory is for"),
        ({"wire": "openai-chat"}, "base_url is missing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        ProviderSettings(name="mine", **fields)


def test_it_gets_limits_retries_streaming_ledger_and_cost(tmp_path):
    """Through a whole company: fails once, is refused once, answers; and never more calls are open than its limit says."""
    attempts, open_now, most = [], [], []

    class Flaky:
        async def complete(self, request):
            open_now.append(1)
            most.append(len(open_now))
            try:
                attempts.append(request.messages[-1].text)
                if len(attempts) == 1:
                    raise ProviderFailed("overloaded", "busy")
                if len(attempts) == 2:
                    raise ProviderFailed("rate", "slow down", retry_after=0.01)
                yield "hello "
                await asyncio.sleep(0)
                yield request.messages[-1].text
                yield Completion(text="", finish=Finish.STOP, usage=Usage(input_uncached=10, output_visible=20))
            finally:
                open_now.pop()

    model = ModelSettings(
        provider="mine", model="r-1", limits=LimitSettings(concurrency=2), price=PriceSettings(input=1.0, output=2.0)
    )
    config = Config(
        database=f"sqlite:///{tmp_path}/board.db",
        models={"m": model},
        default_model="m",
        poll_interval=0.02,
        retries=RetrySettings(base=0.01, cap=0.02),
    )
    with Supervisor(config, providers={"mine": Flaky()}), JobQueue(config.database, poll_interval=0.005) as board:
        jobs = [board.add("chat", {"prompt": f"job {n}"}) for n in range(6)]
        for n, job in enumerate(jobs):
            assert job.wait(WAIT).result["text"] == f"hello job {n}"
    with JobQueue(config.database) as board:
        calls = [call for job in jobs for call in board.calls(job.id)]
        assert sorted(call.state for call in calls) == ["completed"] * 6 + ["failed"] * 2
        assert {call.cost for call in calls if call.state == "completed"} == {50_000}
        assert {call.limit_key for call in calls} == {"mine/r-1"}
        assert sum(board.get(job.id).row().failures for job in jobs) == 1, "a rate limit costs no attempt"
        assert all(board.get(job.id).row().state is JobState.COMPLETED for job in jobs)
    assert max(most) <= 2


def test_a_provider_of_a_wire_format_is_not_replaced(tmp_path):
    with pytest.raises(ValueError, match="openai"):
        Supervisor(Config(database=f"sqlite:///{tmp_path}/board.db"), providers={"openai": example()})


def test_a_factory_of_the_configuration_is_used_and_a_broken_one_is_said_at_the_start(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    own = ProviderSettings(name="mine", wire="own", factory="own_provider:Reverser")
    config = Config(database=f"sqlite:///{tmp_path}/board.db", providers={"mine": own}, poll_interval=0.02)
    try:
        with Supervisor(config), JobQueue(config.database, poll_interval=0.005) as board:
            assert board.add("chat", {"prompt": "one two"}, model="mine:any").wait(WAIT).result["text"] == "two one "
    finally:
        sys.modules.pop("own_provider", None)
    broken = Config(
        database=config.database, providers={"mine": ProviderSettings(name="mine", wire="own", factory="nowhere:X")}
    )
    with pytest.raises(ProviderLoadError, match=r"providers\.mine\.factory"):
        Supervisor(broken).start()
