"""A newer table of prices: read in either format, checked against the one in use, and put in its place in one step. Pure but for `write`."""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from callboard.actors.money_settings import LongContextSettings
from callboard.actors.prices import FORMAT, PriceRow, PriceTable, PriceTableError, read_table, to_json

COMMUNITY = "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
"""The community's table (MIT licence, but for its folder `enterprise/`): dollars per token, by model."""
FEWEST = 10
"""Models below which a table is taken for a mistake."""
SHRINKS_TO = 0.5
"""A table may lose half of its models, no more: half a download is not a table."""
CHANGES_BY = 10.0
"""No price rises or falls by more than this factor at once."""

_VENDORS = {"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"}
_MODES = frozenset({"chat", "responses", "completion", "embedding"})
_ABOVE = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")


class Change(NamedTuple):
    """What is different of one model: None is not there."""

    section: str
    model: str
    before: PriceRow | None
    after: PriceRow | None


def read(raw: bytes, where: str, today: str) -> PriceTable:
    """Read a table in our format or the community's. Raises PriceTableError."""
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise PriceTableError(f"{where}: not JSON: {error}") from error
    if isinstance(found, dict) and "format" in found:
        return read_table(raw, where)
    if not isinstance(found, dict):
        raise PriceTableError(f"{where}: not a table of prices")
    return PriceTable(
        format=FORMAT,
        date=today,
        source=where,
        licence="Facts about prices, taken from LiteLLM, Copyright (c) Berri AI, MIT License.",
        models=_community(found, where),
    )


def _community(found: dict[str, Any], where: str) -> dict[str, dict[str, PriceRow]]:
    models: dict[str, dict[str, PriceRow]] = {section: {} for section in _VENDORS.values()}
    for name, entry in found.items():
        if not isinstance(entry, dict) or entry.get("mode") not in _MODES or name.startswith("ft:"):
            continue
        section = _VENDORS.get(str(entry.get("litellm_provider")))
        plain = name.rpartition("/")[2]
        if section is None or name.count("/") > 1 or (name.count("/") == 1 and not name.startswith(f"{section}/")):
            continue
        if entry.get("input_cost_per_token") is None:
            continue
        try:
            models[section][plain] = _row(entry)
        except (TypeError, ValueError) as error:
            raise PriceTableError(f"{where}: {name}: {error}") from error
    return models


def _row(entry: dict[str, Any]) -> PriceRow:
    above = next((found for key in entry if (found := _ABOVE.fullmatch(key))), None)
    long = None
    if above is not None:
        suffix = f"_above_{above[1]}k_tokens"
        long = LongContextSettings(above=int(above[1]) * 1000, **_prices(entry, suffix))
    batch = entry.get("input_cost_per_token_batches")
    usual = _number(entry["input_cost_per_token"])
    return PriceRow(
        **_prices(entry, ""),
        batch=0.5 if not batch or not usual else min(1.0, round(_number(batch) / usual, 6)),
        long_context=long,
        context_window=_whole(entry.get("max_input_tokens")),
        max_output=_whole(entry.get("max_output_tokens")),
    )


def _prices(entry: dict[str, Any], suffix: str) -> dict[str, Any]:
    names = {
        "input": f"input_cost_per_token{suffix}",
        "output": f"output_cost_per_token{suffix}",
        "cache_read": f"cache_read_input_token_cost{suffix}",
        "cache_write": f"cache_creation_input_token_cost{suffix}",
        "cache_write_1h": f"cache_creation_input_token_cost_above_1hr{suffix}",
    }
    given = {ours: _per_million(entry[theirs]) for ours, theirs in names.items() if entry.get(theirs) is not None}
    if suffix and "output" not in given:  # only what is read has a higher price
        given["output"] = _per_million(entry.get("output_cost_per_token") or 0)
    return {"output": 0.0, **given}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no price")
    return float(value)


def _per_million(value: Any) -> float:
    return round(_number(value) * 1e6, 9)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def changes(before: PriceTable, after: PriceTable) -> list[Change]:
    """What is different, by section and model."""
    return list(_changes(before, after))


def _changes(before: PriceTable, after: PriceTable) -> Iterator[Change]:
    for section in {**before.models, **after.models}:
        old, new = before.models.get(section, {}), after.models.get(section, {})
        for model in {**old, **new}:
            if old.get(model) != new.get(model):
                yield Change(section, model, old.get(model), new.get(model))


def check(before: PriceTable, after: PriceTable, where: str, *, same_kind: bool) -> None:
    """Raise PriceTableError for a table that is more likely a mistake than news. `same_kind`: they list the same models, so it may not shrink."""
    count = sum(map(len, after.models.values()))
    had = sum(map(len, before.models.values()))
    if count < FEWEST:
        raise PriceTableError(f"{where}: has prices for {count} models, too few to be a table")
    if same_kind and count < had * SHRINKS_TO:
        raise PriceTableError(f"{where}: has prices for {count} models, and the one in use for {had}")
    for change in changes(before, after):
        if change.before is None or change.after is None:
            continue
        for name in ("input", "output"):
            old, new = getattr(change.before, name), getattr(change.after, name)
            if (old == 0) != (new == 0) or (old and not 1 / CHANGES_BY <= new / old <= CHANGES_BY):
                raise PriceTableError(
                    f"{where}: {change.section} {change.model}: {name} goes from {old:g} to {new:g} dollars per million tokens,"
                    f" more than {CHANGES_BY:g} times"
                )


def keep(before: PriceTable, after: PriceTable) -> PriceTable:
    """The newer table, with the sections that only the older one has: those of the user's own servers."""
    own = {section: rows for section, rows in before.models.items() if section not in after.models}
    return msgspec.structs.replace(after, models={**after.models, **own})


def write(table: PriceTable, path: Path) -> None:
    """Put a table in place of the file, which is whole at every moment. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(to_json(table))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
