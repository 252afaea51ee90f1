"""What a call costs, in whole nano-dollars (1e-9 $). Pure. An unknown price or usage is None, never 0.

A price in dollars per million tokens is a thousand times that many nano-dollars per token.
"""

from .providers.model import Usage
from .settings import PriceSettings

_NANO_PER_TOKEN = 1000


def cost_of(usage: Usage | None, price: PriceSettings | None) -> int | None:
    """The cost of what was used, rounded to whole nano-dollars. Cache prices default to the price of input."""
    if usage is None or price is None:
        return None
    cache_read = price.input if price.cache_read is None else price.cache_read
    cache_write = price.input if price.cache_write is None else price.cache_write
    dollars_per_million = (
        usage.input_uncached * price.input
        + usage.cache_read * cache_read
        + usage.cache_write * cache_write
        + usage.output * price.output
    )
    return round(dollars_per_million * _NANO_PER_TOKEN)


def cost_at_most(input_tokens: int, max_output: int, price: PriceSettings | None) -> int | None:
    """What a call of this size may cost before it is made: the reservation."""
    return cost_of(Usage(input_uncached=input_tokens, output_visible=max_output), price)
