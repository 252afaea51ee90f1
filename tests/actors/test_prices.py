"""The table of prices: shipped, dated, and looked up by name."""

import os

import pytest

from callboard.actors import prices
from callboard.actors.prices import PriceTableError, load_table, look_again, price_for, read_table, to_json
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import CompanySettings, ModelSettings, PriceSettings, PricesSettings, route

OPENAI = "https://api.openai.com/v1"
OWN = b"""{"format": 1, "date": "2026-01-01", "source": "ours", "models": {
    "openai": {"gpt-5": {"input": 9, "output": 9}, "old": {"input": 1, "output": 1, "until": "2020-01-01"}},
    "local": {"llama": {"input": 0.5, "output": 1}}}}"""


def test_the_shipped_table_says_whose_word_it_is():
    table = load_table(None)
    assert (table.format, len(table.date)) == (1, 10)
    assert "genai-prices" in table.source
    assert "MIT" in table.licence
    assert {vendor: len(rows) >= 15 for vendor, rows in table.models.items()} == {
        "openai": True,
        "anthropic": True,
        "gemini": True,
    }
    assert prices.SHIPPED.read_bytes() == to_json(table)
    assert len(prices.SHIPPED.read_bytes()) < 20_000
    for rows in table.models.values():
        for name, row in rows.items():
            assert row.output >= row.input > 0 or "embedding" in name
            assert (row.cache_read or 0) <= row.input <= (row.cache_write or row.input) <= (row.cache_write_1h or 1e9)


@pytest.mark.parametrize(
    ("url", "model", "price"),
    [
        (OPENAI, "gpt-5", (1.25, 10)),
        (OPENAI, "gpt-5-2025-08-07", (1.25, 10)),
        (OPENAI, "gpt-5-pro", (15, 120)),
        (OPENAI, "gpt-5-mega", None),
        (OPENAI, "gpt-4o-2024-05-13", (5, 15)),
        (OPENAI, "gpt-4o-2024-08-06", (2.5, 10)),
        ("https://eu.api.openai.com/v1", "gpt-5", (1.25, 10)),
        ("https://api.openai.com.example.net/v1", "gpt-5", None),
        ("http://127.0.0.1:8080/v1", "gpt-5", None),
        ("https://api.anthropic.com", "claude-haiku-4-5-20251001", (1, 5)),
        ("https://generativelanguage.googleapis.com", "models/gemini-2.5-flash", (0.3, 2.5)),
        ("https://generativelanguage.googleapis.com", "gpt-5", None),
        ("auto", "extract", None),
    ],
)
def test_a_model_is_found_by_its_name_at_its_vendor(url, model, price):
    found = price_for(None, "any", url, model)
    assert (None if found is None else (found.input, found.output)) == price


def test_a_file_of_one_s_own_goes_before_the_table(tmp_path):
    file = tmp_path / "prices.json"
    file.write_bytes(OWN)
    assert price_for(str(file), "openai", OPENAI, "gpt-5").input == 9
    assert price_for(str(file), "openai", OPENAI, "gpt-5-mini").input == 0.25
    assert price_for(str(file), "local", "http://127.0.0.1:1/v1", "llama") == PriceSettings(input=0.5, output=1)
    assert price_for(str(file), "openai", OPENAI, "old") is None  # it was true until then


def test_a_price_of_the_configuration_goes_before_all(tmp_path):
    settings = CompanySettings(
        database="sqlite:///x.db",
        providers={"openai": ProviderSettings(name="openai", wire="openai-chat", base_url=OPENAI)},
        models={
            "own": ModelSettings(provider="openai", model="gpt-5", price=PriceSettings(input=7, output=7)),
            "listed": ModelSettings(provider="openai", model="gpt-5"),
        },
        prices=PricesSettings(),
    )
    assert route(settings, "own").price.input == 7
    assert route(settings, "listed").price.input == 1.25
    assert route(settings, "openai:gpt-5-mini").price.input == 0.25
    assert route(settings, "openai:unheard-of").price is None


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"nonsense", "not a table of prices"),
        (b'{"format": 2, "date": "x", "source": "x", "models": {}}', "has format 2"),
        (OWN.replace(b'"output": 9', b'"output": -9'), "Expected `float` >= 0"),
        (OWN.replace(b"output", b"ouptut"), "ouptut"),
    ],
)
def test_what_is_no_table_says_so(raw, problem):
    with pytest.raises(PriceTableError, match=problem):
        read_table(raw, "prices.json")


def test_a_file_that_cannot_be_read_makes_prices_unknown_and_says_so(tmp_path, caplog):
    assert price_for(str(tmp_path / "gone.json"), "openai", OPENAI, "gpt-5") is None
    assert "counts as unknown" in caplog.text


def test_a_file_that_changes_is_read_anew(tmp_path, caplog):
    caplog.set_level("INFO")
    file = tmp_path / "prices.json"

    def price(model="gpt-5"):
        found = price_for(str(file), "openai", OPENAI, model)
        return None if found is None else found.input

    def told(what):
        return sum(str(file) in record.message and what in record.message for record in caplog.records)

    def replace(text):
        new = tmp_path / "new.json"
        new.write_bytes(text)
        new.replace(file)

    assert price() is None  # it is not there yet
    file.write_bytes(OWN)
    assert price() is None, "nobody has looked again"
    look_again()
    assert (price(), price("gpt-5-mini")) == (9, 0.25)

    replace(OWN.replace(b"9", b"8"))  # as `callboard prices refresh` does
    look_again()
    assert price() == 8
    assert told("have changed") == 2
    look_again()
    assert told("have changed") == 2

    replace(b"half a tab")
    look_again()
    look_again()
    assert price() == 8
    assert told("prices stay as they were read before") == 1
    file.unlink()
    look_again()
    assert price() == 8, "no price is worse than yesterday's"

    file.write_bytes(OWN)
    look_again()
    before = file.stat()
    file.write_bytes(OWN.replace(b"9", b"7"))  # as long, in the same file, within a tick of its clock
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    look_again()
    assert price() == 7


def test_a_price_ends_with_its_last_day_also_in_a_worker_that_runs_on(tmp_path, monkeypatch):
    file = tmp_path / "prices.json"
    file.write_bytes(OWN.replace(b"2020-01-01", b"2026-03-31"))
    monkeypatch.setattr(prices, "_today", lambda: "2026-03-31")
    assert price_for(str(file), "openai", OPENAI, "old").input == 1
    monkeypatch.setattr(prices, "_today", lambda: "2026-04-01")
    look_again()
    assert price_for(str(file), "openai", OPENAI, "old") is None
    monkeypatch.undo()
    look_again()
