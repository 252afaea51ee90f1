"""The pytest plugin, used as a host uses it: these tests get its fixtures from the entry point alone."""

import pytest

from callboard import Image, JobContext, Text
from callboard.testing import assert_enqueued


def shout(ctx: JobContext) -> str:
    return ctx.complete(f"Shout: {ctx.job.data['word']}").text.upper()


def test_a_handler_runs_against_scripted_replies(callboard_board, callboard_provider, callboard_drain):
    callboard_provider.replies("hello", "well, hello")
    job = callboard_board.add("shout", {"word": "hello"})
    callboard_drain({"shout": shout})
    assert job.refresh().result == "WELL, HELLO"
    assert callboard_provider.prompts == ["Shout: hello"]


def test_a_scripted_failure_is_retried_and_costs_an_attempt(callboard_board, callboard_provider, callboard_drain):
    callboard_provider.fails("status", status=500)
    job = callboard_board.add("shout", {"word": "again"})
    callboard_drain({"shout": shout})
    assert job.refresh().state == "completed"
    assert job.row().failures == 1
    assert len(callboard_provider.prompts) == 2


def test_what_cannot_be_drained_is_said(callboard_board, callboard_drain):
    callboard_board.add("nobody-knows-this", {})
    callboard_drain()
    assert "nobody-knows-this" in callboard_board.list()[0].held_by


def test_assert_enqueued_finds_by_type_and_data(callboard_board):
    callboard_board.add("mail", {"to": "a"})
    wanted = callboard_board.add("mail", {"to": "b", "more": 1})
    assert assert_enqueued(callboard_board, "mail", to="b").id == wanted.id
    with pytest.raises(AssertionError, match="no 'mail' job"):
        assert_enqueued(callboard_board, "mail", to="c")


def test_tools_schemas_pictures_and_vectors_are_answered_without_a_script(
    callboard_board, callboard_provider, callboard_drain
):
    def look(x: int) -> str:
        """Look."""
        return f"seen {x}"

    def work(ctx: JobContext) -> list:
        said = ctx.complete_with_tools('call look {"x": 7}', {"look": look}).text
        picture = Image(data="aGk=", media_type="image/png")
        rated = ctx.complete(
            [Text("Rate."), picture], schema={"type": "object", "properties": {"n": {"type": "integer"}}}
        )
        return [said, rated.data, len(ctx.embed(["a", "b"]).vectors)]

    job = callboard_board.add("work", {})
    callboard_drain({"work": work})
    said, data, vectors = job.refresh().result
    assert "seen 7" in said
    assert isinstance(data, dict)
    assert vectors == 2
    assert callboard_provider.prompts == ['call look {"x": 7}', "seen 7", "Rate.", "a\nb"]
