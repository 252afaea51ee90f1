"""Conversations through a real company: what each prompt carried, by the provider's journal, and what the log holds afterwards."""

from itertools import chain

import pytest

from callboard import InvalidJobError, JobState
from callboard.actors.runner.context import NoConversationError
from callboard.actors.settings import RunnerSettings

NAMES = ["one", "two", "three"]


def prompts(stage):
    """The messages of every request, in the order they arrived."""
    return [[(m["role"], m["content"]) for m in entry["body"]["messages"]] for entry in stage.simulator.journal()]


def told(conversation):
    return [(message.role, message.content) for message in conversation.messages()]


def test_each_turn_is_sent_with_all_that_was_said_before(stage):
    talk = stage.queue.conversation("support", system="Be kind.")
    jobs = [stage.queue.add("chat", {"prompt": f"Question {name}."}, conversation="support") for name in NAMES]
    stage.company(runners=RunnerSettings(min=1, max=4))
    assert [stage.done(job).state for job in jobs] == [JobState.COMPLETED] * 3
    turns = [[("user", f"Question {name}."), ("assistant", f"Question {name}.")] for name in NAMES]
    assert prompts(stage) == [
        [("system", "Be kind."), *chain(*turns[:place]), ("user", f"Question {name}.")]
        for place, name in enumerate(NAMES)
    ]
    assert told(talk) == list(chain(*turns))
    log = talk.messages()
    assert [message.turn for message in log] == [1, 1, 2, 2, 3, 3]
    assert [message.job_id for message in log] == [job.id for job in jobs for _ in range(2)]
    assert [message.parent_id for message in log] == [None, *(message.id for message in log[:-1])]
    assert all(message.tokens for message in log), "measured by what the provider counted"
    assert stage.queue.conversations()[0][:4] == (talk.id, "support", 3, 0)


def asks_twice(ctx):
    before = len(ctx.conversation.messages)
    first = ctx.conversation.ask("First of two.")
    second = ctx.conversation.ask("Second of two.", system="Other rules.")
    said = [message.content for message in ctx.conversation.messages]
    return [before, first.text, second.text, said]


async def asks_twice_on_the_loop(ctx):
    before = len(ctx.conversation.messages)
    first = await ctx.conversation.ask("First of two.")
    second = await ctx.conversation.ask("Second of two.", system="Other rules.")
    said = [message.content for message in ctx.conversation.messages]
    return [before, first.text, second.text, said]


@pytest.mark.parametrize("handler", [asks_twice, asks_twice_on_the_loop])
def test_a_handler_asks_in_the_conversation_of_its_job(stage, handler):
    stage.company({"work": handler})
    stage.queue.conversation("c", system="Usual rules.")
    for _ in range(2):
        job = stage.queue.add("work", {}, conversation="c")
        assert stage.done(job).state is JobState.COMPLETED, job.error
    said = ["First of two.", "First of two.", "Second of two.", "Second of two."]
    assert job.result == [4, "First of two.", "Second of two.", said * 2]
    assert [content for _, content in told(stage.queue.conversation("c"))] == said * 2
    assert [prompt[0][1] for prompt in prompts(stage)] == ["Usual rules.", "Other rules."] * 2
    assert [len(prompt) for prompt in prompts(stage)] == [2, 4, 6, 8]
    assert [message.turn for message in stage.queue.conversation("c").messages()] == [1] * 4 + [2] * 4


def test_a_turn_that_fails_or_is_cancelled_leaves_no_trace(stage):
    def breaks(ctx):
        ctx.conversation.ask("Said and lost.")
        raise ValueError("after the answer")

    stage.company({"breaks": breaks})
    good = stage.queue.add("chat", {"prompt": "Before."}, conversation="c")
    bad = stage.queue.add("breaks", {}, conversation="c", max_attempts=1)
    unread = stage.queue.add("chat", {"prompt": 7}, conversation="c")
    after = stage.queue.add("chat", {"prompt": "After."}, conversation="c")
    assert stage.done(after).state is JobState.COMPLETED
    assert [stage.done(job).state for job in (good, bad, unread)] == ["completed", "failed", "failed"]
    assert [content for _, content in told(stage.queue.conversation("c"))] == ["Before.", "Before.", "After.", "After."]
    assert len(prompts(stage)[-1]) == 3


def test_a_turn_that_runs_again_says_once_what_it_was_answered(stage):
    tries = []

    def breaks_once(ctx):
        ctx.conversation.ask("Paid for once.")
        tries.append(ctx.job.attempt)
        if len(tries) == 1:
            raise ValueError("after the answer")
        return ctx.conversation.ask("And on.").text

    stage.company({"work": breaks_once})
    job = stage.queue.add("work", {}, conversation="c")
    assert stage.done(job).state is JobState.COMPLETED, job.error
    assert tries == [1, 2]
    assert [content for _, content in told(stage.queue.conversation("c"))] == ["Paid for once."] * 2 + ["And on."] * 2
    assert [len(prompt) for prompt in prompts(stage)] == [1, 3]


def test_a_long_conversation_is_trimmed_within_its_budget_and_summarised_once(stage):
    window, output = 400, 40
    stage.queue.conversation("c", system="Rules.", context_window=window, summarise=True)
    stage.company(runners=RunnerSettings(min=1, max=2))
    for number in range(30):
        prompt = f"This is sentence number {number} of a talk that goes on and on, longer than its window."
        job = stage.queue.add("chat", {"prompt": prompt, "max_output": output}, conversation="c", tag="t")
        assert stage.done(job).state is JobState.COMPLETED, job.error
    summaries = [row for row in stage.queue.list(limit=100) if (row.key or "").startswith("summary:")]
    assert summaries
    assert {row.tag for row in summaries} == {"t"}, "made by the turns, and charged to them"
    for row in summaries:
        stage.done(stage.queue.get(row.id))
    log = stage.queue.conversation("c").messages()
    assert [m.role for m in log if m.role != "summary"] == ["user", "assistant"] * 30
    kept = [m for m in log if m.role == "summary"]
    assert len(kept) == len(summaries) == len({tuple(m.content["covers"]) for m in kept})
    turns = [
        entry["body"] for entry in stage.simulator.journal() if entry["body"]["messages"][0]["content"] == "Rules."
    ]
    assert len(turns) == 30
    for body in turns:
        size = sum(-(-len(m["content"].encode()) // 4) for m in body["messages"])
        assert size <= window - output - window * 0.02
        assert body["messages"][1]["role"] == "user"
    begins = [body["messages"][1]["content"] for body in turns]
    assert any(text.startswith("[Summary of the conversation so far, messages") for text in begins)
    assert len(set(begins)) <= 2 * len(summaries) + 1, "trimmed rarely, and the same beginning in between"


def test_a_cut_is_noted_so_that_prompts_between_two_cuts_begin_alike(stage):
    stage.queue.conversation("c", context_window=1000)
    for number in range(40):
        prompt = f"This is sentence number {number} of a talk that goes on and on, longer than its window."
        last = stage.queue.add("chat", {"prompt": prompt, "max_output": 40}, conversation="c")
    stage.company(runners=RunnerSettings(min=1, max=1))
    stage.done(last)
    begins = [prompt[0] for prompt in prompts(stage)]
    with stage.queue._reader() as c:
        ((cuts,),) = c.script("SELECT count(*) FROM llm_messages WHERE role = 'trim'")
    assert 3 <= cuts <= 8
    assert len(set(begins)) == cuts + 1
    assert begins == sorted(begins, key=begins.index), "a prompt never goes back to what was left out"


def test_what_does_not_fit_is_refused_and_says_so(stage):
    stage.queue.conversation("c", context_window=200)
    stage.company()
    job = stage.queue.add("chat", {"prompt": "word " * 200, "max_output": 20}, conversation="c")
    assert stage.done(job).state is JobState.FAILED
    assert "raise the conversation's context_window" in job.row().reason
    assert prompts(stage) == []


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}], "data.messages[0].role"),
        ([{"role": "assistant", "content": "x"}], "begins with a user's message"),
    ],
)
def test_a_turn_must_fit_into_a_conversation(stage, messages, problem):
    stage.company()
    job = stage.queue.add("chat", {"messages": messages}, conversation="c")
    assert stage.done(job).state is JobState.FAILED
    assert problem in job.row().reason


def test_a_fork_shares_the_past_and_nothing_after(stage):
    stage.company()
    stage.done(stage.queue.add("chat", {"prompt": "Shared."}, conversation="main"))
    stage.done(stage.queue.add("chat", {"prompt": "Only here."}, conversation="main"))
    main = stage.queue.conversation("main")
    fork = main.fork(at=main.messages()[1].id, name="branch")
    stage.done(stage.queue.add("chat", {"prompt": "Only there."}, conversation="branch"))
    stage.done(stage.queue.add("chat", {"prompt": "And on."}, conversation="main"))
    assert [content for _, content in told(fork)] == ["Shared."] * 2 + ["Only there."] * 2
    assert [content for _, content in told(main)] == ["Shared."] * 2 + ["Only here."] * 2 + ["And on."] * 2
    assert [content for _, content in prompts(stage)[2]] == ["Shared.", "Shared.", "Only there."]
    with pytest.raises(InvalidJobError, match="already"):
        main.fork(name="branch")
    with pytest.raises(InvalidJobError, match="not in the log"):
        fork.fork(at=main.messages()[-1].id, name="other")


def test_a_job_in_no_conversation_has_none(stage):
    def asks(ctx):
        with pytest.raises(NoConversationError, match="conversation='a name'"):
            ctx.conversation.ask("x")
        return "asked"

    stage.company({"work": asks})
    job = stage.queue.add("work", {})
    assert stage.done(job).state is JobState.COMPLETED, job.error


@pytest.mark.parametrize(
    "content", ["5", '{"tool_calls":3}', '{"tool_calls":[{"id":"x"}],"text":"y"}', "[1]", '{"text":null}']
)
def test_a_log_that_others_wrote_stops_no_worker(stage, content):
    stage.queue.conversation("c")
    with stage.queue._writer() as c:
        for role, text in (("user", '"q"'), ("assistant", content), ("tool", '{"tool_call_id":"x","text":"found"}')):
            c.script(
                "INSERT INTO llm_messages (conversation_id, parent_id, turn, role, content, at, tokens) "
                f"SELECT id, head_id, 1, '{role}', '{text}', 1, -5 FROM llm_conversations"
            )
            c.script("UPDATE llm_conversations SET head_id = (SELECT max(id) FROM llm_messages)")
    stage.company()
    row = stage.done(stage.queue.add("chat", {"prompt": "And?"}, conversation="c"))
    assert row.losses == 0
    assert row.state is JobState.COMPLETED or "which a request cannot carry" in row.reason
