"""What the store's actor does about budgets: looks whether a call fits before its intent is written, reserves with it, settles with its outcome.

All in the transaction of the ledger's own write, and by what every worker of the database has written: `persistence.budgets` has the rules.
"""

import logging

from ..persistence import budgets
from ..persistence.budgets import Budget, Claim, Known
from ..persistence.engine import Connection
from .messages import IntentRefused, RecordIntent
from .money_settings import BudgetSettings
from .settings import CompanySettings, UnknownModelError, route

logger = logging.getLogger(__name__)

KEPT_MS = 400 * 86_400_000
"""How long what was counted in a period is kept after its end."""


def budgets_of(settings: CompanySettings) -> tuple[Budget, ...]:
    """The configured budgets as the board knows them. Raises ValueError as `budget_of` does."""
    return tuple(budget_of(name, given, settings) for name, given in settings.budgets.items())


def budget_of(name: str, given: BudgetSettings, settings: CompanySettings) -> Budget:
    """One of them: its model by `provider:model`, dollars in nano-dollars. Raises ValueError, whose sentence begins with the field's name."""
    scope, period = given.scope, given.period
    if scope == "day":
        scope, period = "all", "day"
    selectors = {"tag": given.tag, "model": given.model, "provider": given.provider}
    for field, value in selectors.items():
        if value is not None and field != scope:
            raise ValueError(f'{field} goes with scope = "{field}", and this budget has scope = "{given.scope}"')
    if given.provider is not None and given.provider not in settings.providers:
        raise ValueError(f"provider {given.provider!r} is not configured (known: {', '.join(settings.providers)})")
    if given.downgrade_to is not None:
        _routed("downgrade_to", given.downgrade_to, settings)
    return Budget(
        name=name,
        scope=scope,
        value=_routed("model", given.model, settings) if given.model is not None else selectors.get(scope),
        cost=None if given.dollars is None else round(given.dollars * budgets.NANO),
        tokens=given.tokens,
        period=period,
        timezone=given.timezone,
        action=given.action,
        downgrade_to=given.downgrade_to,
        assume=None if given.assume is None else round(given.assume * budgets.NANO),
    )


def _routed(field: str, model: str, settings: CompanySettings) -> str:
    try:
        where = route(settings, model)
    except UnknownModelError as error:
        raise ValueError(f"{field} leads nowhere: {error}") from error
    return f"{where.provider}:{where.name}"


class SharedBudgets:
    """The configured budgets, and those on the board. For one thread."""

    def __init__(self, configured: tuple[Budget, ...]) -> None:
        self._configured = configured
        self._asked: list[Claim] = []
        self._known: Known | None = None
        self._begun = False

    @property
    def configured(self) -> tuple[Budget, ...]:
        """The budgets of this worker's configuration."""
        return self._configured

    def new_transaction(self) -> None:
        """What the last one knew may have changed."""
        self._known = None

    def begin(self, c: Connection, now: int) -> bool:
        """A worker starts, perhaps with other budgets than the last: jobs that wait for one look again, once. Returns whether there were any."""
        if self._begun:
            return False
        self._begun = True
        budgets.forget(c, now - KEPT_MS)
        if freed := budgets.free(c, "*", now):
            logger.info("%d jobs that waited for a budget look again", freed)
        return freed > 0

    def refuses(self, c: Connection, order: RecordIntent, now: int) -> IntentRefused | None:
        """None if the call fits every budget it counts in; what it will reserve is remembered for `reserve`, which must follow or not at all."""
        intent = order.intent
        if self._known is None:
            self._known = budgets.known(c)
        self._asked = budgets.claims(
            c,
            self._configured,
            self._known,
            job_id=order.call.job_id,
            provider=intent.provider,
            model=intent.model,
            amount=intent.reserved_cost,
            tokens=intent.reserved_input + intent.reserved_output or intent.reserved_tokens,
            now=now,
        )
        refusal = budgets.check(c, self._asked, provider=intent.provider, model=intent.model, now=now)
        if refusal is None:
            return None
        return IntentRefused(
            call=order.call,
            cause="budget",
            key=refusal.key,
            reason=refusal.reason,
            until_ms=refusal.until,
            action=refusal.action,
            model=refusal.model,
        )

    def reserve(self, c: Connection, call_id: int, now: int) -> None:
        """Reserve for the call that was just found to fit."""
        budgets.reserve(c, self._asked, call_id, now)
