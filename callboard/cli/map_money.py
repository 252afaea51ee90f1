"""What a run of `callboard map` may cost: said before it begins, asked about where it is money, and held to by a budget on the board."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from callboard.config import Config

from .errors import InputError
from .records import now_ms
from .rows import BadRow
from .text import count, money

if TYPE_CHECKING:
    from .board import Board
    from .map_run import MapRun, Plan

_MAPS = "map:"
"""What the names of runs begin with, and of their budgets."""
_LONG_MS = 3_600_000
"""A hold of the budget's that is longer is for good; a shorter one waits for calls in flight."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What rows without an answer may take at most. `cost` in nano-dollars, None: the price is unknown. `assumed`: tokens of an answer without limit."""

    requests: int
    tokens_in: int
    tokens_out: int
    cost: int | None
    assumed: int | None

    def told(self, model: str) -> str:
        """In a line."""
        line = f"{count(self.requests)} requests to {model}, about {count(self.tokens_in)} tokens in and up to {count(self.tokens_out)} out"
        if self.cost is None:
            return f"{line}; its price is not known, so neither is the cost"
        limit = (
            "" if self.assumed is None else f" (answers of {self.assumed} tokens assumed: --max-output sets a limit)"
        )
        return f"{line}: at most {money(self.cost)}{limit}"


def estimate(config: Config, jobs: "list[dict[str, Any]]", model: str) -> Estimate:
    """Estimate these jobs, as their calls will be before they leave."""
    from callboard.actors.cost import cost_at_most
    from callboard.actors.providers.estimate import estimate_input_tokens
    from callboard.actors.providers.model import Message, Request
    from callboard.actors.runner.charges import ASSUMED_OUTPUT
    from callboard.actors.settings import route

    where = route(config, model)
    tokens_in = tokens_out = cost = 0
    assumed = None
    for job in jobs:
        data = job["data"]
        limit = data.get("max_output") or where.max_output
        assumed = ASSUMED_OUTPUT if limit is None else assumed
        request = Request(model=where.name, messages=(Message("user", data["prompt"]),), schema=data.get("schema"))
        given = estimate_input_tokens(request)
        tokens_in += given
        tokens_out += limit or ASSUMED_OUTPUT
        cost += cost_at_most(given, limit or ASSUMED_OUTPUT, where.price) or 0
    return Estimate(len(jobs), tokens_in, tokens_out, cost if where.price is not None else None, assumed)


def posted(plan: "Plan") -> "list[dict[str, Any]]":
    """The jobs of all rows that can be run."""
    return [entry[1] for entry in plan if not isinstance(entry, BadRow)]


def unanswered(board: "Board", plan: "Plan") -> "list[dict[str, Any]]":
    """The jobs of rows that have no answer on the board yet."""
    jobs = posted(plan)
    done = board.completed_keys(job["key"] for job in jobs)
    return [job for job in jobs if job["key"] not in done]


def agree(run: "MapRun", model: str, *, max_cost: float | None, yes: bool) -> bool:
    """Say what it may cost, and ask where that is money and somebody is there. False: it is not to begin; nothing has been posted then.

    Then put the budget of `--max-cost` on the board, where every worker keeps to it, or take the last run's away. It is about the run's tag: rows
    that an earlier run has tagged otherwise have this run's from then on.
    """
    found = estimate(run.config, unanswered(run.board, run.plan), model)
    if found.requests:
        click.echo(f"callboard: estimate: {found.told(model)}", err=True)
    if max_cost is not None and found.cost is None:
        raise InputError(
            f"--max-cost: the price of {model} is not known",
            "give it one: [models.ALIAS.price], or [prices] file; see `callboard prices`",
        )
    asks = found.requests > 0 and found.cost != 0 and not yes and sys.stdin.isatty() and sys.stderr.isatty()
    if asks and not click.confirm("callboard: go on?", err=True):
        click.echo("callboard: nothing was posted", err=True)
        return False
    queue = run.board.queue
    run.board.retag((job["key"] for job in posted(run.plan)), run.tag)
    if max_cost is None:
        queue.drop_budget(run.name)
    else:
        spent = queue.usage(run.tag).cost or 0
        queue.set_budget(run.name, dollars=max_cost, scope="tag", value=run.tag, action="pause", spent=spent)
    run.max_cost = max_cost
    run.caps = [
        budget.name
        for budget in queue.board_budgets()
        if budget.name.startswith(_MAPS) and (budget.scope, budget.value) == ("tag", run.tag)
    ]
    for name in run.caps:
        if name != run.name:
            click.echo(
                f"callboard: the --max-cost of another run is about the tag {run.tag!r} too, so these rows count in it: budget {name};"
                f" `callboard budgets drop {name}{run.commands}` takes it away",
                err=True,
            )
    return True


def reached(run: "MapRun", pending: list[int], looked_at: int) -> bool:
    """Whether all that is left waits for the budget of `--max-cost`, or another run's with this tag, so that nothing more will happen."""
    if not run.caps or any(run.states[job_id] != "waiting" for job_id in pending):
        return False
    first = pending[:looked_at]
    return sum(_held_for(run, name, first) for name in run.caps) == len(first)


def _held_for(run: "MapRun", budget: str, ids: list[int]) -> int:
    return run.board.held_for(ids, f"budget {budget}", now_ms() + _LONG_MS)


def told_reached(run: "MapRun", pending: list[int]) -> str:
    """What is said when it is."""
    left = f"{count(len(pending))} rows have no answer yet and stay on the board;"
    other = next((name for name in run.caps if name != run.name and _held_for(run, name, pending)), None)
    if other is not None:
        return (
            f"the --max-cost of another run with the tag {run.tag!r} is reached: {left}"
            f" `callboard budgets raise {other} --dollars D{run.commands}` gives it more, and the same command goes on"
        )
    return f"--max-cost of ${run.max_cost:g} is reached: {left} the same command with a higher --max-cost, or without one, goes on"


def projected(cost: int | None, answered: int, left: int) -> int | None:
    """What the run will have cost at its end, if the rest is like what has been answered in it."""
    return None if cost is None or answered < 1 else cost + cost * left // answered
