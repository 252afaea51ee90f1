"""A client for raw bytes, a clock to turn by hand, and simulators that end with their test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from callboard.simulator import Clock, Simulator, SimulatorConfig

TEXT = (
    "Summarise the text.\n\nActors keep jobs in a database. Jobs cost money and actors spend it. "
    "The weather is fine. Supervisors restart actors when jobs fail."
)
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


class ManualClock:
    """Monotonic seconds and epoch milliseconds that move only when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, lambda: 1_790_000_000_000 + round((self.seconds - 1000.0) * 1000))


class Client:
    """A caller of one simulator in either wire format."""

    def __init__(self, url: str, key: str = "key-1") -> None:
        self.http = httpx.Client(base_url=url, timeout=20.0)
        self.key = key

    def request(
        self, wire: str = "openai", *, text: str = TEXT, key: str | None = None, **fields: Any
    ) -> httpx.Request:
        body = {"model": "m-1", "messages": [{"role": "user", "content": text}], **fields}
        key = self.key if key is None else key
        if wire == "openai":
            headers = {"authorization": f"Bearer {key}"}
        else:
            body.setdefault("max_tokens", 100)
            headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        body = {name: value for name, value in body.items() if value is not None}
        return self.http.build_request("POST", PATHS[wire], json=body, headers=headers)

    def call(self, wire: str = "openai", **fields: Any) -> httpx.Response:
        return self.http.send(self.request(wire, **fields))

    def stream(self, wire: str = "openai", **fields: Any) -> httpx.Response:
        return self.http.send(self.request(wire, stream=True, **fields), stream=True)


def events(raw: bytes) -> list[tuple[str, Any]]:
    """The events of a well-framed stream: their names (empty for unnamed ones) and data; `[DONE]` stays text."""
    found = []
    for block in raw.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            data = fields["data"]
            found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def simulate() -> Iterator[Callable[..., tuple[Simulator, Client]]]:
    with ExitStack() as stack:

        def start(*, clock: Clock | None = None, **settings: Any) -> tuple[Simulator, Client]:
            simulator = stack.enter_context(Simulator(SimulatorConfig(**settings), clock=clock))
            client = Client(simulator.url)
            stack.callback(client.http.close)
            return simulator, client

        yield start


@pytest.fixture
def read_events() -> Callable[[bytes], list[tuple[str, Any]]]:
    return events
