"""The rules of trimming, for every conversation Hypothesis can think of: with tools, torn pairs, greetings, and sizes known or not."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callboard.actors.providers.parts import Image, Message, Opaque, Text, ToolCall, ToolResult
from callboard.actors.runner.context_window import ContextOverflowError, Entry, budget_of, estimate, fit

WORDS = st.text(alphabet="aé語 \n", max_size=60)
SIZES = st.one_of(st.none(), st.integers(1, 120))


@st.composite
def exchanges(draw, start=0, *, torn=True):
    """One user's turn and what follows: an answer, perhaps after a tool or two, perhaps torn."""
    asked = draw(WORDS) or "q"
    pictured = (Text(asked), Image(url="https://x.test/a.png")) if draw(st.integers(0, 9)) == 0 else asked
    entries = [Entry(role="user", content=pictured, tokens=draw(SIZES))]
    if torn and draw(st.booleans()):
        entries.append(Entry(role="user", content="and", tokens=draw(SIZES)))
    if draw(st.booleans()):
        ids = [f"call-{start}-{n}" for n in range(draw(st.integers(1, 3)))]
        made = (Opaque(wire="w", data="sealed"), *(ToolCall(id=one, name="f") for one in ids))
        entries.append(Entry(role="assistant", content=made, tokens=draw(SIZES), calls=tuple(ids)))
        answered = ids if not torn else draw(st.lists(st.sampled_from([*ids, "unknown"]), unique=True))
        together = draw(st.booleans())
        for held in [answered] if together and answered else [[one] for one in answered]:
            results = tuple(ToolResult(call_id=one, content=draw(WORDS)) for one in held)
            entries.append(Entry(role="tool", content=results, tokens=draw(SIZES), answers=tuple(held)))
    if not torn or draw(st.booleans()):
        entries.append(Entry(role="assistant", content=draw(WORDS) or "a", tokens=draw(SIZES)))
    return entries


@st.composite
def conversations(draw, *, torn=True):
    entries = []
    if torn and draw(st.booleans()):
        entries.append(Entry(role="assistant", content="Welcome!", tokens=draw(SIZES)))
    for start in range(draw(st.integers(0, 8))):
        entries += draw(exchanges(start, torn=torn))
    return [replace(entry, id=place + 1) for place, entry in enumerate(entries)]


@settings(max_examples=400, deadline=None)
@given(
    system=st.one_of(st.none(), WORDS),
    past=conversations(),
    prompt=WORDS.filter(bool),
    summary=st.one_of(st.none(), WORDS.map(lambda text: Entry(role="user", content=f"[Summary] {text}", id=0))),
    budget=st.integers(1, 900),
    trim_to=st.floats(0.1, 0.8),
)
def test_what_is_sent_keeps_the_rules(system, past, prompt, summary, budget, trim_to):
    new = [Entry(role="user", content=prompt)]
    try:
        window = fit(system, past, new, budget=budget, trim_to=trim_to, summary=summary)
    except ContextOverflowError:
        needed = estimate(prompt) + (0 if system is None else estimate(system))
        tail = next((n for n, entry in enumerate(reversed(past)) if entry.role == "user"), len(past))
        # Only when what cannot be left out is too large: system, prompt, and what the prompt could not be cut from: users in a row are one turn.
        start = max(0, len(past) - tail - 1)
        while start > 0 and past[start - 1].role == "user":
            start -= 1
        unavoidable = needed + sum(entry.size for entry in past[start:]) + (0 if not past else past[0].size)
        assert unavoidable > budget or any(entry.calls or entry.answers for entry in past)
        return
    sent = window.messages
    assert window.size == sum(entry.size for entry in sent) <= budget, "never over"
    spoken = list(sent)
    if system is not None:
        assert (spoken[0].role, spoken[0].content) == ("system", system)
        spoken.pop(0)
    assert spoken[0].role == "user"
    assert spoken[-1].role == "user"
    assert Message("user", spoken[-1].content).text.endswith(prompt)
    for before, after in pairwise(spoken):
        assert before.role != after.role or after.role == "tool", "neighbours of one role are one message"
    called: list[str] = []
    answered = [call for entry in spoken for call in entry.answers]
    for entry in spoken:
        assert set(entry.answers) <= set(called), "a result without its call"
        called += entry.calls
        parts = Message(entry.role, entry.content).parts
        assert tuple(part.id for part in parts if isinstance(part, ToolCall)) == entry.calls
        assert tuple(part.call_id for part in parts if isinstance(part, ToolResult)) == entry.answers
        if any(isinstance(part, Opaque) for part in parts):
            whole = [known.calls for known in past if known.content and set(known.calls) & set(entry.calls)]
            assert [call for calls in whole for call in calls] == list(entry.calls), "sealed for calls that are gone"
    assert set(called) == set(answered), "a call without its result"
    # What was cut is the beginning of the past, and ends before a user's turn.
    assert list(window.dropped) == past[: len(window.dropped)]
    if window.dropped:
        rest = [*past[len(window.dropped) :], *new]
        assert rest[0].role == "user"
        total = sum(entry.size for entry in [*past, *new]) + sum(e.size for e in [summary] if e)
        assert total + (0 if system is None else estimate(system)) > 0.85 * budget, "cut although there was room"


@settings(max_examples=150, deadline=None)
@given(
    turns=st.lists(exchanges(torn=False), min_size=1, max_size=40),
    budget=st.integers(400, 1500),
    system=st.one_of(st.none(), st.just("Rules.")),
)
def test_between_two_cuts_a_prompt_begins_as_the_one_before(turns, budget, system):
    past: list[Entry] = []
    sent: list[Entry] = []
    cuts = 0
    number = 0
    for turn in turns:
        numbered = []
        for entry in turn:
            number += 1
            calls = tuple(f"{number}-{call}" for call in entry.calls)
            numbered.append(replace(entry, id=number, calls=calls, answers=()))
        turn_sent = [entry for entry in numbered if entry.role != "tool" and not entry.calls]
        try:
            window = fit(system, past, turn_sent[:1], budget=budget)
        except ContextOverflowError:
            assert turn_sent[0].size + (0 if system is None else estimate(system)) > budget
            continue
        if window.dropped:
            cuts += 1
            past = past[len(window.dropped) :]
            assert window.size <= max(0.6 * budget, turn_sent[0].size + (0 if system is None else estimate(system)))
        else:
            assert list(window.messages[: len(sent)]) == sent, "the provider's cache of the prefix was thrown away"
        sent = list(window.messages)
        past += turn_sent
    total = sum(entry.size for turn in turns for entry in turn)
    assert cuts <= 1 + total / (0.2 * budget), "rarely, and in big steps"


def exchange(number, size=100):
    return [
        Entry(role="user", content=f"q{number}", tokens=size, id=2 * number - 1),
        Entry(role="assistant", content=f"a{number}", tokens=size, id=2 * number),
    ]


def test_down_to_60_percent_when_over_85():
    new = [Entry(role="user", content="now", tokens=50)]
    past = [entry for number in range(1, 5) for entry in exchange(number)]
    assert fit(None, past, new, budget=1000).dropped == ()
    past += exchange(5)
    window = fit(None, past, new, budget=1000)
    assert [entry.id for entry in window.dropped] == [1, 2, 3, 4, 5, 6]
    assert window.size == 450


def test_a_cut_never_falls_between_a_call_and_its_result():
    past = [
        *exchange(1),
        Entry(role="user", content="look it up", tokens=100, id=3),
        Entry(role="assistant", content="", tokens=100, id=4, calls=("x",)),
        Entry(role="user", content="hurry", tokens=100, id=5),
        Entry(role="tool", content="found", tokens=100, id=6, answers=("x",)),
        *exchange(4),
    ]
    window = fit(None, past, [Entry(role="user", content="now", tokens=10)], budget=700, trim_to=0.6)
    assert [entry.id for entry in window.dropped] == [1, 2, 3, 4, 5, 6]


def test_the_summary_leads_and_is_given_up_before_the_prompt_is():
    summary = Entry(role="user", content="[Summary] long ago", tokens=300)
    new = [Entry(role="user", content="now", tokens=100)]
    window = fit("Rules.", exchange(1), new, budget=1000, summary=summary)
    assert [entry.role for entry in window.messages] == ["system", "user", "assistant", "user"]
    assert window.messages[1].content == "[Summary] long ago\n\nq1"
    assert [entry.content for entry in fit(None, [], new, budget=350, summary=summary).messages] == ["now"]


def test_what_cannot_fit_says_how_much_room_there_is():
    with pytest.raises(ContextOverflowError, match="take 104 tokens, but the prompt may have 50"):
        fit(None, [], [Entry(role="user", content="x" * 300)], budget=50)


@example(100, 0)
@given(st.integers(100, 10**6), st.integers(0, 10**5))
def test_the_budget_leaves_room_for_the_answer_and_for_error(window, output):
    assert budget_of(window, output) == window - output - math.ceil(0.02 * window)
