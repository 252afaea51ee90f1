"""The simulator's own count of what it was asked and what it let through, in all and in any sliding window.

A client that claims to keep within a limit is judged by these counts, not by its own: *attempts* are all requests to a completion
endpoint, the ones turned away included; *admitted* are the ones within the limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .buckets import WindowMaximum

_WINDOWS = (
    "max_requests_in_window",
    "max_tokens_in_window",
    "max_admitted_requests_in_window",
    "max_admitted_tokens_in_window",
)


class _Account:
    """The counts of one (wire, API key, model)."""

    __slots__ = (
        "_window",
        "admitted_requests",
        "admitted_tokens",
        "dimensions",
        "in_flight",
        "in_flight_max",
        "rejected",
        "requests",
        "tokens",
        "total",
    )

    def __init__(self, window_seconds: float) -> None:
        self.total = self.rejected = self.in_flight = self.in_flight_max = 0
        self.requests, self.tokens, self.admitted_requests, self.admitted_tokens = (
            WindowMaximum(window_seconds) for _ in range(4)
        )

        self.dimensions: dict[str, WindowMaximum] = {}
        self._window = window_seconds

    def count(self, dimension: str, amount: int, now: float) -> None:
        self.dimensions.setdefault(dimension, WindowMaximum(self._window)).add(amount, now)

    def report(self) -> dict[str, Any]:
        return {
            "requests": self.total,
            "rejected": self.rejected,
            "in_flight_max": self.in_flight_max,
            "max_requests_in_window": self.requests.maximum,
            "max_tokens_in_window": self.tokens.maximum,
            "max_admitted_requests_in_window": self.admitted_requests.maximum,
            "max_admitted_tokens_in_window": self.admitted_tokens.maximum,
            "max_in_window": {name: found.maximum for name, found in self.dimensions.items()},
        }


class Stats:
    """All counts of one simulator. Times are monotonic seconds. Used by the server's event loop alone."""

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._accounts: dict[tuple[str, str, str], _Account] = {}
        self._outcomes: dict[str, int] = {
            "completed": 0,
            "aborted_by_client": 0,
            "faulted": 0,
            "invalid": 0,
            "rejected": 0,
        }
        self._in_flight = self._in_flight_max = 0

    def attempted(
        self, account: tuple[str, str, str], tokens: int, now: float, charges: Mapping[str, int] | None = None
    ) -> None:
        """Count a request, whatever comes of it; `charges`: what it asks for, by dimension."""
        found = self._account(account)
        for dimension, amount in (charges or {}).items():
            found.count(dimension, amount, now)
        found.total += 1
        found.requests.add(1, now)
        found.tokens.add(tokens, now)

    def admitted(self, account: tuple[str, str, str], tokens: int, now: float) -> None:
        """Count a request that is within the limits, and that it is open; pair it with `left`."""
        found = self._account(account)
        found.admitted_requests.add(1, now)
        found.admitted_tokens.add(tokens, now)
        found.in_flight += 1
        found.in_flight_max = max(found.in_flight_max, found.in_flight)
        self._in_flight += 1
        self._in_flight_max = max(self._in_flight_max, self._in_flight)

    def produced(self, account: tuple[str, str, str], dimension: str, tokens: int, now: float) -> None:
        """Count output tokens that were not counted at admission."""
        found = self._account(account)
        found.count(dimension, tokens, now)
        found.tokens.add(tokens, now)
        found.admitted_tokens.add(tokens, now)

    def left(self, account: tuple[str, str, str]) -> None:
        """Count that an admitted request is no longer open."""
        self._account(account).in_flight -= 1
        self._in_flight -= 1

    def rejected(self, account: tuple[str, str, str]) -> None:
        """Count a request that was over a limit."""
        self._account(account).rejected += 1

    def ended(self, outcome: str) -> None:
        """Count how a request ended: a key of the report, or a fault."""
        self._outcomes[outcome if outcome in self._outcomes else "faulted"] += 1

    def report(self) -> dict[str, Any]:
        """Return everything as JSON. The windows are of the account (wire, API key, model) that had the most, as limits are per account."""
        accounts = [
            {"wire": wire, "key": key, "model": model, **account.report()}
            for (wire, key, model), account in self._accounts.items()
        ]
        return {
            "requests": sum(account.total for account in self._accounts.values()),
            "in_flight": self._in_flight,
            "in_flight_max": self._in_flight_max,
            **self._outcomes,
            **{
                name: max((account.report()[name] for account in self._accounts.values()), default=0)
                for name in _WINDOWS
            },
            "max_in_window": self._most(),
            "window_seconds": self._window,
            "accounts": accounts,
        }

    def _most(self) -> dict[str, int]:
        most: dict[str, int] = {}
        for account in self._accounts.values():
            for name, found in account.dimensions.items():
                most[name] = max(most.get(name, 0), found.maximum)
        return most

    def _account(self, account: tuple[str, str, str]) -> _Account:
        found = self._accounts.get(account)
        if found is None:
            found = self._accounts[account] = _Account(self._window)
        return found
