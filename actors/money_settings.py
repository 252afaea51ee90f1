"""What is configured about money: prices and budgets. `actors.settings` has them among the rest."""

from typing import Annotated, Literal

import msgspec

Price = Annotated[float, msgspec.Meta(ge=0)]
Dollars = Annotated[float, msgspec.Meta(ge=0)]
Tokens = Annotated[int, msgspec.Meta(ge=1)]


class LongContextSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request costs, all of it, that has more than `above` tokens of input. What is None is priced as its plain counterpart."""

    above: Tokens
    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dollars per million tokens. What is None is priced as its plain counterpart: the cache as input, an hour of it as minutes of it.

    `batch`: what a request in a provider's batch costs, as a part of this. `long_context`: the prices above a number of input tokens.
    """

    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    batch: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    long_context: LongContextSettings | None = None


class PricesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`file`: prices of your own for many models, looked at before the table that is shipped (`callboard prices` shows both)."""

    file: str | None = None


class BudgetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So much for all calls of a scope, in dollars or tokens or both; `persistence.budgets.Budget` says what the fields mean.

    `tag`, `model`, `provider`: the one that a budget of that scope is about; without it each has one of its own. Scope "day" is "all" with the
    period "day".
    """

    scope: Literal["all", "day", "tag", "tree", "job", "model", "provider"] = "all"
    tag: str | None = None
    model: str | None = None
    provider: str | None = None
    dollars: Dollars | None = None
    tokens: Tokens | None = None
    period: Literal["none", "day", "month"] = "none"
    timezone: str = "UTC"
    action: Literal["stop", "pause", "downgrade"] = "stop"
    downgrade_to: str | None = None
    assume: Dollars | None = None
