"""Costs in whole nano-dollars: exact sums, one rounding, and reservations that cover."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.cost import cost_at_most, cost_of, price_id
from callboard.actors.money_settings import LongContextSettings
from callboard.actors.providers.model import Usage
from callboard.actors.settings import PriceSettings

PRICE = PriceSettings(input=3.0, output=15.0, cache_read=0.3, cache_write=3.75)
TIERED = PriceSettings(
    input=2.5, output=15, cache_read=0.25, long_context=LongContextSettings(above=271_999, input=5, output=22.5)
)


@pytest.mark.parametrize(
    ("usage", "price", "nano_dollars"),
    [
        (Usage(input_uncached=1_000_000), PRICE, 3_000_000_000),
        (Usage(output_visible=400_000, output_reasoning=600_000), PRICE, 15_000_000_000),
        (Usage(cache_read=1_000_000, cache_write=1_000_000), PRICE, 4_050_000_000),
        (Usage(cache_write_1h=1_000_000), PRICE, 3_750_000_000),
        (Usage(cache_write_1h=1_000_000), PriceSettings(input=3, output=1, cache_write_1h=6), 6_000_000_000),
        (Usage(cache_read=10, cache_write=10), PriceSettings(input=2.0, output=9.0), 40_000),
        (Usage(input_uncached=1), PriceSettings(input=0.0375, output=0.15), 38),
        (Usage(input_uncached=1), PriceSettings(input=0.0365, output=0.15), 36),
        (Usage(input_uncached=271_999, output_visible=1), TIERED, 271_999 * 2_500 + 15_000),
        (Usage(input_uncached=272_000, output_visible=1), TIERED, 272_000 * 5_000 + 22_500),
        (Usage(input_uncached=1, cache_read=271_999), TIERED, 272_000 * 5_000),
        (Usage(), PRICE, 0),
        (Usage(input_uncached=7), PriceSettings(input=0.0, output=0.0), 0),
    ],
)
def test_a_call_costs_what_its_tokens_cost(usage, price, nano_dollars):
    assert cost_of(usage, price) == nano_dollars


def test_a_batch_costs_its_part():
    usage = Usage(input_uncached=1_000_000, output_visible=1_000_001)
    assert cost_of(usage, PRICE, batch=True) == 9_000_007_500
    assert cost_of(usage, PriceSettings(input=3, output=15, batch=1), batch=True) == 18_000_015_000


def test_what_is_not_known_is_not_free():
    assert cost_of(None, PRICE) is None
    assert cost_of(Usage(input_uncached=5), None) is None
    assert cost_at_most(5, 5, None) is None
    assert price_id(None) is None


def test_a_price_is_known_by_its_numbers():
    assert price_id(PRICE) == price_id(PriceSettings(input=3, output=15, cache_read=0.3, cache_write=3.75))
    assert len({price_id(PRICE), price_id(TIERED), price_id(PriceSettings(input=3, output=15))}) == 3


tokens = st.integers(0, 10**9)
usages = st.builds(
    Usage,
    input_uncached=tokens,
    cache_read=tokens,
    cache_write=tokens,
    cache_write_1h=tokens,
    output_visible=tokens,
    output_reasoning=tokens,
)
dollars = st.integers(0, 10**7).map(lambda units: units / 10**4)
prices = st.builds(
    PriceSettings,
    input=dollars,
    output=dollars,
    cache_read=st.none() | dollars,
    cache_write=st.none() | dollars,
    cache_write_1h=st.none() | dollars,
    batch=st.sampled_from([0.5, 1.0, 0.35]),
)


@given(usages, prices, st.booleans())
def test_costs_are_those_of_decimal_arithmetic(usage, price, batch):
    def exact(number):
        return Decimal(repr(number))

    read = price.input if price.cache_read is None else price.cache_read
    write = price.input if price.cache_write is None else price.cache_write
    hour = write if price.cache_write_1h is None else price.cache_write_1h
    total = (
        usage.input_uncached * exact(price.input)
        + usage.cache_read * exact(read)
        + usage.cache_write * exact(write)
        + usage.cache_write_1h * exact(hour)
        + (usage.output_visible + usage.output_reasoning) * exact(price.output)
    ) * 1000
    if batch:
        total *= exact(price.batch)
    assert cost_of(usage, price, batch=batch) == int(total.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


@given(usages, prices, st.booleans())
def test_the_reservation_covers_every_call_of_its_size(usage, price, batch):
    if price.cache_read is not None and price.cache_read > price.input:
        return  # no provider charges more for what it has kept
    reserved = cost_at_most(usage.input, usage.output, price, batch=batch, kept_for_an_hour=usage.cache_write_1h > 0)
    assert reserved >= cost_of(usage, price, batch=batch) >= 0
