"""A person who waits for an answer is told why there is none."""

import threading

import pytest

from callboard.cli import follow
from callboard.cli.follow import answer_text, follow_job, wait_for
from callboard.persistence.job_queue import JobQueue


@pytest.mark.parametrize("how", [lambda job: wait_for(job, patience=0.02), follow_job])
def test_why_nothing_happens_is_said_once_for_each_reason(here, capfd, monkeypatch, how):
    monkeypatch.setattr(follow, "PATIENCE", 0.02)
    with JobQueue("sqlite:///callboard.db") as queue:
        job = queue.add("chat", {"prompt": "Hello."})
        heard: list[str] = []
        waiter = threading.Thread(target=how, args=(queue.get(job.id),))
        waiter.start()

        def hear(sentence):
            while sentence not in "".join(heard):  # the suite's own timeout ends it
                heard.append(capfd.readouterr().err)
                threading.Event().wait(0.005)

        hear("has its model room")
        queue.pause("default")
        hear("its queue 'default' is paused")
        queue.cancel(job.id)
        waiter.join(10)
        assert not waiter.is_alive()
    said = "".join(heard)
    assert said.count("waiting for a free runner, 0 like it ahead (does a `callboard worker` run?") == 1
    assert said.count("is paused") == 1


def test_an_answer_of_calls_alone_is_shown():
    result = {"text": "", "tool_calls": [{"id": "c", "name": "weather", "arguments": {}}]}
    assert '"weather"' in answer_text(result)
    assert answer_text({"text": "Yes.", "tool_calls": []}) == "Yes."


def test_a_reason_is_news_once(here):
    with JobQueue("sqlite:///callboard.db") as queue:
        job = queue.add("chat", {"prompt": "Hello."})
        quiet = follow.Quiet(job)
        queue.pause("default")
        assert [quiet.news(), quiet.news()] == [f"callboard: job {job.id}: its queue 'default' is paused", None]
