"""What a row of the table of faults is made of."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import fault_bodies as wires

Act = Callable[[Any, str], Awaitable[None]]
"""What a server does with a request, given as a `Peer`, at a wire. What a host's own class does instead: see `fault_own`."""
MAX_EVENT, MAX_BODY = 64 * 1024, 256 * 1024
"""The caps that hold while the table is played: the real ones are 16 MB and 64 MB."""


@dataclass(frozen=True)
class End:
    """What becomes of the job, and of its key.

    `state`: completed, failed, or waiting (its key is on hold, and no attempt is used). `what`: the class of the failure, or the finish of the answer.
    `requests`: how many the server read whole. `attempts`: how many are counted as failed. `billed`: no, maybe, yes, for a failed call.
    `scope`: whom it concerns. `held`: the kind of the hold; `wait`: its seconds, at least (and not much longer). `usage`: whether it is known.
    `text`: whether the answer's text is whole. `made`: how many of the requests asked for an answer anew, where others only follow it up.
    """

    state: str
    what: str
    requests: int
    attempts: int = 0
    billed: str = ""
    scope: str = ""
    held: str = ""
    wait: float = 0.0
    usage: bool = True
    text: bool = True
    code: str = ""
    made: int = 0


@dataclass(frozen=True)
class Fault:
    """One row. `where`: the port that plays it, `url` a base URL instead. `only`: the parts it is for. `but`: where a part's end is another one.

    `data` is what the job says beside what every job of its part does; with a `job`, a type of its own, it is all that it says.
    """

    name: str
    group: str
    does: str
    end: End
    act: Any = None
    where: tuple[str, str] = ("http", "http")
    url: str = ""
    once: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    job: str = ""
    only: tuple[str, ...] = wires.NAMES
    but: Mapping[str, End] = field(default_factory=dict)
    says: Any = wires.TEXT
    attempts: int = 2

    def end_at(self, wire: str) -> End:
        return self.but.get(wire, self.end)


ANSWERED = End("completed", "stop", 1)
OPENAI = ("openai-chat", "openai-responses")
TALKS = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")


def failed(what, requests=2, billed="no", scope="request", **more):
    """Trying again is thought to help: both attempts are used."""
    return End("failed", what, requests, more.pop("attempts", 2), billed, scope, **more)


def refused(what, billed="no", scope="request", **more):
    """Trying again would not help: the first attempt is the last."""
    return End("failed", what, more.pop("requests", 1), 1, billed, scope, **more)


def held(what, wait=0.0, scope="credential", **more):
    return End("waiting", what, more.pop("requests", 1), 0, more.pop("billed", "no"), scope, what, wait, **more)


FIRST_TOKEN = {"first_token_timeout": 0.4}
NO_PROGRESS = {"no_progress_timeout": 0.4}
TOTAL = {"total_timeout": 1.0}
SOON = {"total_timeout": 0.2}
"""As `TOTAL`, for what needs no time to begin with."""
