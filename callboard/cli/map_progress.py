"""How `callboard map` shows that it moves: one line that is redrawn on a terminal, a plain line every few seconds elsewhere. On stderr."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.text import Text

from .display import console
from .text import count, duration, money, plain

_PLAIN_SECONDS = 5.0
_BAR = 24


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where the run stands. `rate` in rows per second over the last while; `cost` in nano-dollars, and what it is `projected` to be at the end; `held`: the limit that is waited for."""

    done: int
    failed: int
    active: int
    waiting: int
    tokens: int
    cost: int | None
    rate: float
    held: str | None
    projected: int | None = None


def describe(now: Snapshot, total: int) -> str:
    """Put it into one line."""
    left = total - now.done - now.failed
    eta = "-" if not now.rate else duration(left / now.rate)
    parts = [
        f"{count(now.done)}/{count(total)} done",
        f"{count(now.failed)} failed",
        f"{count(now.active)} running",
        f"{count(now.waiting)} waiting",
        f"{count(now.tokens)} tokens",
        f"cost {money(now.cost) if now.tokens else '-'}"
        + (f" of about {money(now.projected)}" if now.projected else ""),
        f"{now.rate:.1f}/s",
        f"ETA {eta}",
    ]
    return " · ".join(parts) + (f" · held: {plain(now.held)}" if now.held else "")


class Progress:
    """A context manager. One thread."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._console = console(sys.stderr)
        self._live = (
            Live(console=self._console, refresh_per_second=5, transient=True) if self._console.is_terminal else None
        )
        self._said_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, now: Snapshot) -> None:
        """Redraw, or say it again if it was not said lately."""
        line = describe(now, self._total)
        if self._live is not None:
            filled = round(_BAR * (now.done + now.failed) / self._total) if self._total else _BAR
            bar = Text("█" * filled, style="green") + Text("░" * (_BAR - filled), style="dim")
            self._live.update(bar + Text(f" {line}"))
        elif time.monotonic() - self._said_at >= _PLAIN_SECONDS:
            self._said_at = time.monotonic()
            self.say(line)

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(f"callboard: {message}"))
