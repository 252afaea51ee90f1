"""What a call costs, in whole nano-dollars (1e-9 $). Pure. An unknown price or usage is None, never 0.

Prices are in dollars per million tokens, that is 1e-6 $ a token. They are taken to nine decimal places, as whole 1e-15 $ a token, so that sums
are exact; one call is rounded once, at the end, to the nearest nano-dollar, halves to even. A reservation is rounded up.
"""

import functools
import hashlib

import msgspec

from .money_settings import LongContextSettings, PriceSettings
from .providers.model import Usage

_FEMTO = 10**9
"""1e-15 $ in the price of a token, for a price of one dollar per million."""
_MILLIONTHS = 10**6
_PER_NANO = 10**6 * _MILLIONTHS


def cost_of(usage: Usage | None, price: PriceSettings | None, *, batch: bool = False) -> int | None:
    """The cost of what was used, in whole nano-dollars. `batch`: it was part of a provider's batch."""
    if usage is None or price is None:
        return None
    tier = _tier(price, usage.input)
    cache_read = tier.input if tier.cache_read is None else tier.cache_read
    cache_write = tier.input if tier.cache_write is None else tier.cache_write
    cache_write_1h = cache_write if tier.cache_write_1h is None else tier.cache_write_1h
    femto = (
        usage.input_uncached * _units(tier.input)
        + usage.cache_read * _units(cache_read)
        + usage.cache_write * _units(cache_write)
        + usage.cache_write_1h * _units(cache_write_1h)
        + usage.output * _units(tier.output)
    )
    whole, rest = divmod(femto * _scale(price, batch), _PER_NANO)
    return whole + (2 * rest > _PER_NANO or (2 * rest == _PER_NANO and whole % 2 == 1))


def cost_at_most(
    input_tokens: int,
    max_output: int,
    price: PriceSettings | None,
    *,
    batch: bool = False,
    kept_for_an_hour: bool = False,
) -> int | None:
    """What a call of this size may cost before it is made: the reservation.

    All input counts at the dearest price it may have: some providers charge more for what they put into their cache, asked or not;
    `kept_for_an_hour`: the request asks them to keep it for an hour.
    """
    if price is None:
        return None
    tier = _tier(price, input_tokens)
    kept = tier.cache_write_1h if kept_for_an_hour else None
    dearest = max(tier.input, tier.cache_write or 0.0, kept or 0.0)
    femto = input_tokens * _units(dearest) + max_output * _units(tier.output)
    return -(-femto * _scale(price, batch) // _PER_NANO)


@functools.lru_cache(maxsize=256)
def price_id(price: PriceSettings | None) -> str | None:
    """What the ledger keeps of the price that a cost was computed with: the same for the same numbers."""
    return None if price is None else hashlib.sha256(msgspec.json.encode(price)).hexdigest()[:16]


def _tier(price: PriceSettings, input_tokens: int) -> PriceSettings | LongContextSettings:
    """The prices of the whole request: they go by how much it puts in."""
    long = price.long_context
    return price if long is None or input_tokens <= long.above else long


def _units(price: float) -> int:
    return round(price * _FEMTO)


def _scale(price: PriceSettings, batch: bool) -> int:
    return round(price.batch * _MILLIONTHS) if batch else _MILLIONTHS
