"""The host's side of money: what calls have cost, budgets on the board, and answers that are kept."""

import math
from typing import TYPE_CHECKING

from .errors import InvalidJobError, JobNotFoundError
from .new_job import MAX_BUDGET
from .queue_connections import QueueConnections

if TYPE_CHECKING:
    from .budgets import Budget, Standing
    from .cache import CacheStatus
    from .costs import CostRow, TreeCost


class QueueMoney(QueueConnections):
    """A part of `JobQueue`."""

    def costs(
        self,
        by: str = "model",
        *,
        since: int = 0,
        before: int | None = None,
        tag: str | None = None,
        limit: int = 1000,
    ) -> "list[CostRow]":
        """What calls have cost, by "job", "tree", "tag", "type", "queue", "model", "provider", "day" or "all", the dearest first.

        `since`, `before`: epoch milliseconds, of when calls were sent. What deleted jobs cost is in the sums. Raises InvalidJobError.
        """
        from . import costs

        for name, at in (("since", since), ("before", before)):
            if at is not None and not isinstance(at, int):
                raise InvalidJobError(name, f"must be a time in whole epoch milliseconds, not {at!r}")
        with self._reader() as connection:
            return costs.costs(connection, by, since=since, before=before, tag=tag, limit=limit)

    def tree_cost(self, job_id: int) -> "TreeCost":
        """What a job and everything that it created, and that created, has cost."""
        from . import costs

        with self._reader() as connection:
            return costs.of_tree(connection, job_id)

    def budgets(self, limit: int = 1000) -> "list[Standing]":
        """How the budgets stand: those that were asked last (of workers, of the board, of jobs: "job:7"), and those of the board that were not yet."""
        from . import budgets

        with self._reader() as connection:
            return budgets.standings(connection, self.clock(), limit)

    def board_budgets(self) -> "list[Budget]":
        """The budgets on the board as they were put there, by name: what `set_budget` changes. Not those of workers' configuration or of jobs."""
        from . import budgets

        with self._reader() as connection:
            return budgets.on_board(connection)

    def set_budget(
        self,
        name: str,
        *,
        dollars: float | None = None,
        tokens: int | None = None,
        scope: str = "all",
        value: str | None = None,
        period: str = "none",
        timezone: str = "UTC",
        action: str = "stop",
        downgrade_to: str | None = None,
        assume: float | None = None,
        spent: int = 0,
    ) -> None:
        """Put a budget on the board that every worker keeps to, or change the one of this name; jobs that wait for it look again.

        The fields are those of `[budgets.NAME]` (docs/configuration.md); `value` is the tag, model, provider or job that it is about, None: each
        has one of its own. `spent`: nano-dollars that count as spent of it at least, for what was spent while it was not there. Raises InvalidJobError, which names the field.
        """
        from . import budgets

        for field, amount, most in (
            ("dollars", dollars, MAX_BUDGET),
            ("tokens", tokens, 2**62),
            ("assume", assume, MAX_BUDGET),
        ):
            if amount is not None and not 0 <= amount < math.inf:
                raise InvalidJobError(field, f"must be a number of at least 0, not {amount!r}")
            if amount is not None and amount > most:
                raise InvalidJobError(field, f"must be at most {most:g}, not {amount!r}")
        if (problem := _problem_of_value(scope, value)) is not None:
            raise InvalidJobError("value", problem)
        try:
            budget = budgets.Budget(
                name=name,
                scope=scope,
                value=value,
                cost=None if dollars is None else round(dollars * budgets.NANO),
                tokens=tokens,
                period=period,
                timezone=timezone,
                action=action,
                downgrade_to=downgrade_to,
                assume=None if assume is None else round(assume * budgets.NANO),
            )
        except ValueError as error:
            field, _, problem = str(error).partition(" ")
            raise InvalidJobError(field, problem) from error
        with self._writer() as connection:
            budgets.put(connection, budget, self.clock(), spent=spent)

    def drop_budget(self, name: str) -> bool:
        """Take a budget off the board; what it has counted stays. False if it was not there. Those of workers' configuration are theirs."""
        from . import budgets

        with self._writer() as connection:
            return budgets.drop(connection, name, self.clock())

    def set_job_budget(self, job_id: int, dollars: float | None) -> None:
        """Change what a job and all that it creates may cost (its option `budget`); None: no limit of its own.

        A job that failed for it is sent back with `retry`. Raises JobNotFoundError, and InvalidJobError for what is no amount.
        """
        from . import budgets

        if dollars is not None and not 0 < dollars <= MAX_BUDGET:
            raise InvalidJobError("dollars", f"must be above 0 and at most {MAX_BUDGET:g}, not {dollars!r}")
        with self._writer() as connection:
            found = budgets.set_job_budget(connection, job_id, dollars, self.clock())
        if not found:
            raise JobNotFoundError(f"there is no job {job_id} on {self.name}")

    def cache_status(self) -> "CacheStatus":
        """What is kept of answers that may be given again, and what that has saved."""
        from . import cache

        with self._reader() as connection:
            return cache.status(connection)

    def clear_cache(self) -> int:
        """Drop some of the answers that are kept, in one short transaction; returns how many. To be called until it returns 0."""
        from . import cache

        with self._writer() as connection:
            return cache.clear(connection)


def _problem_of_value(scope: str, value: str | None) -> str | None:
    """What is wrong with what a budget of this scope is to be about: nothing would ever be it."""
    if value is None:
        return None
    if scope == "all":
        return f'goes with another scope: all calls count in one of scope "all", and {value!r} names some'
    if scope in ("job", "tree") and not (value.isascii() and value.isdecimal()):
        return f"must be the id of a job for scope {scope!r}, not {value!r}"
    if scope == "model" and not all(value.partition(":")):
        return f'must be "provider:model" for scope "model", as calls name it, not {value!r}'
    return None
