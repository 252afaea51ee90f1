"""Tools, schemas, images and vectors through the whole company: a real board, real threads, and a host's own provider that says what the test wants."""

import json
from array import array

import pytest

from callboard import CallFailedError, Config, JobState, Supervisor
from callboard.actors.providers.model import Completion, Embeddings, Finish, Tool, ToolCall, Usage
from callboard.actors.providers.own import ProviderFailed
from callboard.actors.providers.parts import Image, Opaque, Text
from callboard.actors.settings import RetrySettings

USAGE = Usage(input_uncached=10, output_visible=5)
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}, "confidence": {"type": "number", "maximum": 1}},
    "required": ["label", "confidence"],
}
GOOD = '{"label": "good", "confidence": 0.9}'


class Script:
    """A provider that answers with what `answer(request)` returns: text, or a whole Completion; and keeps what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def complete(self, request):
        self.asked.append(request)
        answer = self.answer(request)
        if isinstance(answer, str):
            answer = Completion(text=answer, finish=Finish.STOP, usage=USAGE)
        yield answer

    async def embed(self, request):
        self.asked.append(request)
        vectors = tuple(array("f", [float(len(text)), 0.1]) for text in request.inputs)
        return Embeddings(vectors=vectors, usage=Usage(input_uncached=len(vectors)), model="v")


def calls(*wanted, opaque=()):
    made = tuple(ToolCall(id=number, name=name, arguments=arguments) for number, name, arguments in wanted)
    return Completion(text="", finish=Finish.TOOL, usage=USAGE, tool_calls=made, opaque=opaque)


@pytest.fixture
def play(stage):
    """Start a company whose only provider answers as the test says."""

    def start(answer, handlers=None):
        script = Script(answer)
        config = Config(
            database=stage.database,
            default_model="mine:m",
            poll_interval=0.02,
            retries=RetrySettings(base=0.01, cap=0.02),
            synchronous="NORMAL",
        )
        supervisor = Supervisor(config, handlers=handlers, providers={"mine": script})
        stage.stack.callback(lambda: supervisor.stop(0.0))
        supervisor.start()
        return script

    return start


def finished(stage, kind, data, **options):
    job = stage.queue.add(kind, data, **options)
    stage.done(job)
    return job.refresh()


# --- chat jobs ------------------------------------------------------------------------------------------------------------------------------


def test_a_chat_job_sends_parts_tools_and_hints_and_returns_the_calls(stage, play):
    script = play(lambda _: calls(("c1", "look", {"x": 1}), opaque=(Opaque(wire="w", data={"s": 1}),)))
    data = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "See"}, {"type": "image", "url": "https://x.test/a.png"}],
            }
        ],
        "tools": [{"name": "look", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}],
        "tool_choice": "look",
        "parallel_tools": False,
        "effort": "high",
        "cache_key": "k",
        "cache_ttl": "1h",
    }
    job = finished(stage, "chat", data)
    assert job.state is JobState.COMPLETED, job.error
    assert job.result["tool_calls"] == [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"x": 1}}]
    assert job.result["opaque"] == [{"type": "opaque", "wire": "w", "data": {"s": 1}}]
    (request,) = script.asked
    assert request.messages[0].content == (Text("See"), Image(url="https://x.test/a.png"))
    assert [tool.name for tool in request.tools] == ["look"]
    assert (request.tool_choice, request.parallel_tools, request.effort) == ("look", False, "high")
    assert (request.cache_key, request.cache_ttl) == ("k", "1h")


def test_an_answer_that_does_not_follow_its_schema_is_asked_for_again_and_both_are_in_the_ledger(stage, play):
    script = play(lambda request: GOOD if len(request.messages) > 1 else '{"label": "good", "confidence": 7}')
    job = finished(stage, "chat", {"prompt": "Rate it.", "schema": SCHEMA})
    assert job.state is JobState.COMPLETED, job.error
    assert job.result["data"] == {"label": "good", "confidence": 0.9}
    first, second = script.asked
    assert [message.role for message in second.messages] == ["user", "assistant", "user"]
    assert "$.confidence: 7 is greater than the maximum of 1" in second.messages[-1].text
    assert first.schema == second.schema == SCHEMA
    assert [call.step for call in stage.queue.calls(job.id)] == ["chat", "chat/again-1"]


def test_after_two_askings_again_the_job_fails_as_malformed_and_keeps_the_last_text(stage, play):
    script = play(lambda request: f"no, {len(request.messages)}")
    job = finished(stage, "chat", {"prompt": "Rate it.", "schema": SCHEMA})
    assert job.state is JobState.FAILED
    assert len(script.asked) == 3
    assert job.error["class"] == "malformed"
    assert job.error["text"] == "no, 5"
    assert job.row().failures <= 1, "it is not tried again: that would pay for three more"


def test_an_answer_that_was_cut_off_says_so_and_is_not_asked_for_again(stage, play):
    script = play(lambda _: Completion(text='{"label": "go', finish=Finish.LENGTH, usage=USAGE))
    job = finished(stage, "chat", {"prompt": "Rate it.", "schema": SCHEMA, "max_output": 3})
    assert job.state is JobState.FAILED
    assert "raise max_output" in job.row().reason
    assert len(script.asked) == 1


def test_a_refusal_is_a_result(stage, play):
    play(lambda _: Completion(text="I will not.", finish=Finish.REFUSAL, usage=USAGE))
    job = finished(stage, "chat", {"prompt": "Rate it.", "schema": SCHEMA})
    assert job.state is JobState.COMPLETED
    assert (job.result["finish"], "data" in job.result) == ("refusal", False)


def test_a_result_without_its_call_costs_nothing(stage, play):
    script = play(lambda _: "never")
    result = {"type": "tool_result", "call_id": "c1", "content": "x"}
    job = finished(
        stage, "chat", {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": [result]}]}
    )
    assert (job.state, script.asked) == (JobState.FAILED, [])
    assert "which nothing before it calls" in job.row().reason


# --- handlers -------------------------------------------------------------------------------------------------------------------------------


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def adds(request):
    results = [result for message in request.messages for result in message.tool_results]
    if not results:
        return calls(("c1", "add", {"a": 2, "b": 3}), ("c2", "fail", {}), ("c3", "unknown", {}))
    return json.dumps([[result.content, result.is_error] for result in results])


TOLD = [["5", False], ["ValueError: no", True], ["there is no function 'unknown'; the functions are add, fail", True]]


def fail():
    raise ValueError("no")


async def add_later(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def works(ctx):
    return json.loads(ctx.complete_with_tools("2+3?", {"add": add, "fail": fail}).text)


async def works_on_the_loop(ctx):
    return json.loads((await ctx.complete_with_tools("2+3?", {"add": add_later, "fail": fail})).text)


@pytest.mark.parametrize("handler", [works, works_on_the_loop])
def test_functions_are_called_until_the_model_answers(stage, play, handler):
    script = play(adds, {"work": handler})
    job = finished(stage, "work", {})
    assert job.state is JobState.COMPLETED, job.error
    assert job.result == TOLD
    first, second = script.asked
    assert [tool.description for tool in first.tools] == ["Add two numbers.", ""]
    assert [message.role for message in second.messages] == ["user", "assistant", "tool"]


def test_a_job_that_runs_again_repeats_neither_calls_nor_functions(stage, play):
    called, tries = [], []

    def note(x: int) -> str:
        called.append(x)
        return "noted"

    def answer(request):
        results = sum(len(message.tool_results) for message in request.messages)
        return calls((f"c{results}", "note", {"x": results})) if results < 2 else "done"

    def breaks_once(ctx):
        found = ctx.complete_with_tools("go", {"note": note})
        tries.append(found.text)
        if len(tries) == 1:
            raise RuntimeError("after the rounds")
        return found.text

    script = play(answer, {"work": breaks_once})
    job = finished(stage, "work", {})
    assert (job.state, tries) == (JobState.COMPLETED, ["done", "done"])
    assert called == [0, 1]
    assert len(script.asked) == 3


def test_rounds_are_bounded(stage, play):
    script = play(
        lambda request: calls((f"c{len(request.messages)}", "add", {"a": 1, "b": 1})),
        {"work": lambda ctx: ctx.complete_with_tools("go", {"add": add}, max_rounds=3).text},
    )
    job = finished(stage, "work", {})
    assert job.state is JobState.FAILED
    assert job.error["code"] == "tool_rounds"
    assert len(script.asked) == 3


class Answered:
    """What a pydantic model's class looks like from outside."""

    @staticmethod
    def model_json_schema():
        return SCHEMA


def test_a_handler_asks_with_a_schema_of_any_kind_and_may_catch_the_failure(stage, play):
    def work(ctx):
        good = ctx.complete("good", schema=Answered, system="S")
        try:
            ctx.complete([Text("bad"), Image(data="aGk=", media_type="image/png")], schema=SCHEMA, reasks=0)
        except CallFailedError as error:
            return [good.data, str(error.error.kind), error.error.partial]

    script = play(lambda request: GOOD if request.messages[-1].text == "good" else "bad", {"work": work})
    job = finished(stage, "work", {})
    assert job.result == [{"label": "good", "confidence": 0.9}, "malformed", "bad"], job.error
    assert script.asked[0].schema_name == "Answered"
    assert len(script.asked) == 2


# --- conversations --------------------------------------------------------------------------------------------------------------------------


def test_calls_results_images_and_opaque_parts_are_kept_in_the_log_and_sent_again(stage, play):
    opaque = (Opaque(wire="w", data="sealed"),)
    script = play(
        lambda request: "fine" if request.messages[-1].role == "tool" else calls(("c1", "look", {}), opaque=opaque)
    )
    image = {"type": "image", "data": "aGk=", "media_type": "image/png"}
    tools = [{"name": "look"}]
    data = {"messages": [{"role": "user", "content": [{"type": "text", "text": "See"}, image]}], "tools": tools}
    finished(stage, "chat", data, conversation="c")
    result = {"type": "tool_result", "call_id": "c1", "content": "seen", "name": "look"}
    job = finished(
        stage, "chat", {"messages": [{"role": "tool", "content": [result]}], "tools": tools}, conversation="c"
    )
    assert job.state is JobState.COMPLETED, job.error
    sent = script.asked[1].messages
    assert [message.role for message in sent] == ["user", "assistant", "tool"]
    assert sent[0].content == (Text("See"), Image(data="aGk=", media_type="image/png"))
    assert sent[1].content == (*opaque, ToolCall(id="c1", name="look"))
    assert sent[2].tool_results[0].content == "seen"
    log = stage.queue.conversation("c").messages()
    assert [message.role for message in log] == ["user", "assistant", "tool", "assistant"]
    assert log[0].content == [{"type": "text", "text": "See"}, image]


def test_what_was_asked_for_again_is_not_in_the_log_but_its_last_answer_is(stage, play):
    script = play(lambda request: GOOD if len(request.messages) > 1 else "no")
    job = finished(stage, "chat", {"prompt": "Rate it.", "schema": SCHEMA}, conversation="c")
    assert job.state is JobState.COMPLETED, job.error
    assert [message.text for message in script.asked[1].messages[:2]] == ["Rate it.", "no"]
    assert [message.content for message in stage.queue.conversation("c").messages()] == ["Rate it.", GOOD]


def test_rounds_of_functions_in_a_conversation_are_part_of_it(stage, play):
    def work(ctx):
        ctx.conversation.ask_with_tools("2+3?", {"add": add, "fail": fail})
        return len(ctx.conversation.messages)

    script = play(adds, {"work": work})
    job = finished(stage, "work", {}, conversation="c")
    assert job.result == 2, job.error
    assert [message.role for message in stage.queue.conversation("c").messages()] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert len(script.asked[1].messages) == 3


@pytest.mark.parametrize("patient", [True, False])
def test_a_prompt_that_a_provider_finds_too_long_is_cut_harder_once(stage, play, patient):
    def answer(request):
        if len(request.messages) > 5 or (not patient and "last" in request.messages[-1].text):
            raise ProviderFailed("context", "too long")
        return "said"

    script = play(answer)
    for number in range(3):
        finished(stage, "chat", {"prompt": f"number {number}"}, conversation="c")
    job = finished(stage, "chat", {"prompt": "last"}, conversation="c")
    assert [len(request.messages) for request in script.asked[:4]] == [1, 3, 5, 7]
    assert len(script.asked) == 5
    assert 1 <= len(script.asked[4].messages) <= 3
    assert job.state is (JobState.COMPLETED if patient else JobState.FAILED)
    if patient:
        finished(stage, "chat", {"prompt": "after"}, conversation="c")
        assert len(script.asked[5].messages) == len(script.asked[4].messages) + 2, "the cut is noted in the log"


# --- vectors --------------------------------------------------------------------------------------------------------------------------------


def test_embed_jobs_and_handlers_get_vectors(stage, play):
    def work(ctx):
        found = ctx.embed(["a", "bb"], dimensions=2)
        return [list(vector)[:1] for vector in found.vectors]

    script = play(lambda _: "", {"work": work})
    one = finished(stage, "embed", {"input": "abc"})
    assert one.result == {
        "embedding": [3.0, 0.1],
        "model": "v",
        "usage": {**dict.fromkeys(Usage.__slots__, 0), "input_uncached": 1},
    }, one.error
    many = finished(stage, "embed", {"inputs": ["a"] * 2050})
    assert len(many.result["embeddings"]) == 2050
    assert many.result["usage"]["input_uncached"] == 2050
    assert [call.step for call in stage.queue.calls(many.id)] == ["embed[0:2048]", "embed[2048:2050]"]
    assert finished(stage, "work", {}).result == [[1.0], [2.0]]
    assert script.asked[-1].dimensions == 2


def test_the_tool_of_a_job_may_be_described_by_hand(stage, play):
    described = Tool(name="add", description="By hand", parameters={"type": "object"})
    script = play(
        lambda _: "no need", {"work": lambda ctx: ctx.complete_with_tools("?", {"add": (described, add)}).text}
    )
    assert finished(stage, "work", {}).result == "no need"
    assert script.asked[0].tools == (described,)
