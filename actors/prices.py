"""The table of prices: what models cost that no `[models.X.price]` prices. Read when it is first needed.

`prices.json` beside this module is shipped, with its source, date and licence; a file of the user's (`[prices] file`) goes before it. A model is
found by its name, and by its name without a snapshot's date. By no prefix: `gpt-5-pro` costs twelve times what `gpt-5` does. A server of one's own
has no price here, whatever wire format it speaks, unless the user's file has a section of the provider's name.
"""

import functools
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from .money_settings import PriceSettings

logger = logging.getLogger(__name__)

FORMAT = 1
SHIPPED = Path(__file__).with_name("prices.json")
VENDORS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
}
"""By the host that a provider's requests go to; OpenAI's hosts of a region (`eu.api.openai.com`) are OpenAI's as well."""
_SNAPSHOT = re.compile(r"(-\d{4}-\d{2}-\d{2}|-20\d{6}|-latest|-0\d\d)$")


class PriceRow(PriceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's prices, and what else is known of it. `until`: the last day (UTC) they hold, as YYYY-MM-DD; afterwards it has no known price."""

    context_window: int | None = None
    max_output: int | None = None
    until: str | None = None

    def price(self) -> PriceSettings:
        """The prices alone."""
        return PriceSettings(**{name: getattr(self, name) for name in PriceSettings.__struct_fields__})


class PriceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices by vendor (or provider) and model. `date`: when they were true; `source` and `licence`: whose word they are."""

    format: int
    date: str
    source: str
    licence: str = ""
    unit: str = "US dollars per million tokens"
    models: dict[str, dict[str, PriceRow]]


class PriceTableError(ValueError):
    """A file that is no table of prices; the message says where and why."""


def read_table(raw: bytes | str, where: str) -> PriceTable:
    """Read a table in our format. Raises PriceTableError."""
    try:
        table = msgspec.json.decode(raw, type=PriceTable)
    except msgspec.DecodeError as error:
        raise PriceTableError(f"{where}: not a table of prices: {error}") from error
    if table.format != FORMAT:
        raise PriceTableError(f"{where}: has format {table.format}, this release reads {FORMAT}")
    return table


def load_table(file: str | None) -> PriceTable:
    """The user's table, or (None) the one that is shipped. Raises PriceTableError."""
    path = SHIPPED if file is None else Path(file).expanduser()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PriceTableError(f"{path}: cannot be read: {error.strerror}") from error
    return read_table(raw, str(path))


def vendor_of(base_url: str) -> str | None:
    """Whose prices hold for what is sent there; None: nobody's that we know."""
    host = (urlsplit(base_url).hostname or "").lower()
    return next((vendor for known, vendor in VENDORS.items() if host == known or host.endswith(f".{known}")), None)


def row_of(table: PriceTable, section: str | None, model: str) -> PriceRow | None:
    """A model's row in one section of a table, by its name or its name without a snapshot's date."""
    rows = table.models.get(section or "", {})
    name = model.removeprefix("models/")
    return rows.get(name) or rows.get(_SNAPSHOT.sub("", name))


@functools.lru_cache(maxsize=512)
def price_for(file: str | None, provider: str, base_url: str, model: str) -> PriceSettings | None:
    """The price of a model at a provider; None: unknown. Looked up once in the life of a process.

    A file of the user's that cannot be read is told in the log, and then prices are unknown rather than other than meant.
    """
    vendor = vendor_of(base_url)
    today = datetime.now(UTC).date().isoformat()
    try:
        if file is not None:
            own = _loaded(file)
            row = row_of(own, provider, model) or row_of(own, vendor, model)
            if row is not None:
                return None if _over(row, today) else row.price()
        if vendor is None:
            return None
        row = row_of(_loaded(None), vendor, model)
    except PriceTableError as error:
        logger.error("%s; the price of %s:%s counts as unknown", error, provider, model)  # noqa: TRY400 - the message says it all
        return None
    return None if row is None or _over(row, today) else row.price()


def _over(row: PriceRow, today: str) -> bool:
    return row.until is not None and today > row.until


@functools.lru_cache(maxsize=4)
def _loaded(file: str | None) -> PriceTable:
    return load_table(file)


def to_json(table: PriceTable) -> bytes:
    """A table as it is written: one model a line, so that a change can be read."""
    head: dict[str, Any] = {
        name: getattr(table, name) for name in ("format", "date", "source", "licence", "unit") if getattr(table, name)
    }
    lines = [
        f"  {msgspec.json.encode(name).decode()}: {msgspec.json.encode(value).decode()},"
        for name, value in head.items()
    ]
    sections = []
    for section, rows in table.models.items():
        told = [
            f"      {msgspec.json.encode(name).decode()}: {msgspec.json.encode(_told(row)).decode()}"
            for name, row in rows.items()
        ]
        sections.append(f"    {msgspec.json.encode(section).decode()}: {{\n" + ",\n".join(told) + "\n    }")
    return ("{\n" + "\n".join(lines) + '\n  "models": {\n' + ",\n".join(sections) + "\n  }\n}\n").encode()


def _told(value: msgspec.Struct) -> dict[str, Any]:
    return {
        name: _told(part) if isinstance(part, msgspec.Struct) else part
        for name, part in msgspec.structs.asdict(value).items()
        if part is not None
    }
