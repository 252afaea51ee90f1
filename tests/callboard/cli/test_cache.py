"""`callboard cache`: what is kept, and dropping it."""

import json

import pytest

from callboard import JobQueue
from callboard.persistence import cache


@pytest.fixture
def kept(cli):
    cli("add", "chat", "--data", "{}")
    with JobQueue("callboard.db") as queue, queue._writer() as connection:
        for number in range(cache.STEP + 2):
            cache.keep(connection, str(number), {"text": "x"}, 5, 1000)


def test_what_is_kept_is_told_and_dropped(cli, kept):
    told = json.loads(cli("cache", "--json").out)
    assert (told["entries"], told["hits"], told["given"], told["saved_usd"]) == (cache.STEP + 2, 0, 0, None)
    assert "kept: 502 answers" in cli("cache").out
    assert json.loads(cli("cache", "clear", "--json").out) == {"dropped": cache.STEP + 2}
    assert "0 answers dropped" in cli("cache", "clear").out
    assert json.loads(cli("cache", "--json").out)["oldest"] is None
