"""One run of `callboard map`: post what is not there yet, have it performed, show how it goes, write what came of it."""

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from callboard.config import Config
from callboard.persistence.model import UsageTotals

from . import map_money
from .board import Board
from .map_progress import Progress, Snapshot
from .map_report import print_bad_rows, print_summary, write_results
from .map_worker import OwnWorker, WorkerFailedError
from .records import now_ms
from .rows import BadRow, Row

TERMINAL = frozenset({"completed", "failed", "cancelled"})
POLL_SECONDS = 0.2
_HEAD = 2000
"""Unfinished jobs looked at in every poll, in the order in which they will be claimed; the rest is looked at less often."""

Plan = Sequence[tuple[Row, dict[str, Any]] | BadRow]


class MapRun:
    """A context manager around the board. `perform` is called once."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        name: str,
        tag: str,
        *,
        output: Path | None,
        again: str,
        commands: str,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.plan = plan
        self.name = name
        self.tag = tag
        self.output = output
        self.again = again
        self.commands = commands
        self.schema = schema
        self.bad = [row for row in plan if isinstance(row, BadRow)]
        self.board = Board(config, create=True)
        self.max_cost: float | None = None
        self.caps: list[str] = []
        self.cost_reached = False
        self.ended_before = 0
        self.ids: list[int] = []
        self.states: dict[int, str] = {}
        self.already = 0
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.board.close()

    def perform(self, *, own_worker: bool, retry_failed: bool) -> int:
        """Do all of it. Returns the exit code: 0, 1 for rows that failed or were bad, 130 when interrupted."""
        self._post(retry_failed=retry_failed)
        before = self.board.queue.usage(self.tag)
        ended_early: KeyboardInterrupt | WorkerFailedError | None = None
        try:
            self._wait(before, own_worker=own_worker)
        except (KeyboardInterrupt, WorkerFailedError) as error:
            ended_early = error
        self._finish(before, unfinished=ended_early is not None or self.cost_reached)
        if isinstance(ended_early, WorkerFailedError):
            raise ended_early
        if ended_early is not None:
            return 130
        if self.cost_reached:
            return 1
        return 1 if self.bad or any(state != "completed" for state in self.states.values()) else 0

    def _post(self, *, retry_failed: bool) -> None:
        print_bad_rows(self.bad)
        jobs = [entry[1] for entry in self.plan if not isinstance(entry, BadRow)]
        newest = self.board.queue.list(limit=1)
        last_before = newest[0].id if newest else 0
        self.ids = self.board.queue.add_many(jobs)
        if retry_failed:
            for job_id, state in self.board.states(self.ids).items():
                if state in ("failed", "cancelled"):
                    self.board.queue.retry(job_id, "callboard map --retry-failed")
        self.states = self.board.states(self.ids)
        self.already = sum(job_id <= last_before and state == "completed" for job_id, state in self.states.items())
        if self.already:
            click.echo(
                f"callboard: {self.already:,} of {len(self.ids):,} rows are answered on the board already", err=True
            )

    def _wait(self, before: UsageTotals, *, own_worker: bool) -> None:
        pending = [job_id for job_id in self.ids if self.states[job_id] not in TERMINAL]
        if not pending:
            return
        self.ended_before = len(self.ids) - len(pending)
        ended: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=100)
        worker = OwnWorker(self.config) if own_worker else None
        with Progress(len(self.ids)) as progress:
            try:
                if worker is not None:
                    worker.start()
                polls = 0
                while pending:
                    looked = pending if polls % 10 == 0 else pending[:_HEAD]
                    self.states |= self.board.states(looked)
                    pending = [job_id for job_id in pending if self.states[job_id] not in TERMINAL]
                    polls += 1
                    ended.append((time.monotonic(), len(self.ids) - len(pending)))
                    progress.show(self._snapshot(pending, ended, before))
                    if pending and map_money.reached(self, pending, _HEAD):
                        self.cost_reached = True
                        progress.say(map_money.told_reached(self, pending))
                        return
                    if worker is not None and pending:
                        worker.keep_alive(progress.say)
                    if pending:
                        time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                progress.say("stopping: unfinished rows stay on the board")
                raise
            finally:
                if worker is not None:
                    worker.stop()

    def _snapshot(self, pending: list[int], ended: "deque[tuple[float, int]]", before: UsageTotals) -> Snapshot:
        usage = self.board.queue.usage(self.tag)
        counts = {"completed": 0, "failed": 0, "cancelled": 0, "active": 0}
        for state in self.states.values():
            if state in counts:
                counts[state] += 1
        (first_at, first), (last_at, last) = ended[0], ended[-1]
        rate = (last - first) / (last_at - first_at) if last_at > first_at and len(ended) > 1 else 0.0
        held = self.board.held(pending[:_HEAD], now_ms())
        cost = None if usage.cost is None else usage.cost - (before.cost or 0)
        return Snapshot(
            projected=map_money.projected(cost, last - self.ended_before, len(pending)),
            done=counts["completed"],
            failed=counts["failed"] + counts["cancelled"],
            active=counts["active"],
            waiting=len(pending) - counts["active"],
            tokens=total_tokens(usage) - total_tokens(before),
            cost=cost,
            rate=rate,
            held=None if held is None else held[0],
        )

    def _finish(self, before: UsageTotals, *, unfinished: bool) -> None:
        self.states = self.board.states(self.ids)
        after = self.board.queue.usage(self.tag)
        write_results(self)
        print_summary(
            self,
            seconds=time.monotonic() - self.started,
            calls=after.calls - before.calls,
            tokens=total_tokens(after) - total_tokens(before),
            cost=None if after.cost is None else after.cost - (before.cost or 0),
            unfinished=unfinished,
        )


def total_tokens(usage: UsageTotals) -> int:
    """Add up all tokens of all calls."""
    return (
        usage.input_uncached
        + usage.cache_read
        + usage.cache_write
        + usage.cache_write_1h
        + usage.output_visible
        + usage.output_reasoning
    )
