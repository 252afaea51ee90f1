"""The table of prices: what models cost that no `[models.X.price]` prices. Read when it is first needed; a file that changes is read anew.

`prices.json` beside this module is shipped, with its source, date and licence; a file of the user's (`[prices] file`) goes before it. A model is
found by its name, and by its name without a snapshot's date. By no prefix: `gpt-5-pro` costs twelve times what `gpt-5` does. A server of one's own
has no price here, whatever wire format it speaks, unless the user's file has a section of the provider's name.
"""

import functools
import logging
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
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


class _Read(NamedTuple):
    """What a file held when it was read: a table, or why there is none. `stamp` and `day` (UTC): of which file that was, and when."""

    stamp: tuple[int, int, int] | None
    day: str
    found: PriceTable | PriceTableError


_read: dict[str | None, _Read] = {}
_looking = threading.Lock()
_edition = 0
"""Prices that were looked up before the last change are those of an earlier edition, and not asked for any more."""


def price_for(file: str | None, provider: str, base_url: str, model: str) -> PriceSettings | None:
    """The price of a model at a provider; None: unknown. Looked up once, until `look_again` finds a change. Callable from any thread.

    A file of the user's that cannot be read is told in the log, and then prices are unknown rather than other than meant.
    """
    return _price_for(_edition, file, provider, base_url, model)


def look_again() -> None:
    """Read the user's files anew that have changed since they were read, and look up anew what prices may have ended with a day. From any thread.

    A file that is gone, or is no table any more, is told in the log once, and what was read before stays. To be called once in a while: it asks for
    the status of a file, and reads only what is new.
    """
    global _edition  # noqa: PLW0603 - what is in use in this process is one thing
    with _looking:
        day = _today()
        anew = {
            file: read for file, before in list(_read.items()) if (read := _read_again(file, before, day)) is not before
        }
        _read.update(anew)
        if anew:
            _edition += 1


def _read_again(file: str | None, before: _Read, day: str) -> _Read:
    """What a file holds now; `before` itself if nothing has changed."""
    stamp = None if file is None else _stamp(file)
    if stamp == before.stamp:
        return before if before.day == day else before._replace(day=day)
    try:
        table = load_table(file)
    except PriceTableError as error:
        logger.error("%s; prices stay as they were read before", error)  # noqa: TRY400 - the message says it all
        return before._replace(stamp=stamp)
    logger.info("the prices in %s have changed, and are those of %s now", file, table.date)
    return _Read(stamp, day, table)


@functools.lru_cache(maxsize=512)
def _price_for(edition: int, file: str | None, provider: str, base_url: str, model: str) -> PriceSettings | None:  # noqa: ARG001 - it tells old from new
    vendor = vendor_of(base_url)
    today = _today()
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


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _loaded(file: str | None) -> PriceTable:
    """Raises PriceTableError."""
    if (known := _read.get(file)) is None:
        stamp = (
            None if file is None else _stamp(file)
        )  # before it is read: what is written meanwhile is then seen as a change
        found: PriceTable | PriceTableError
        try:
            found = load_table(file)
        except PriceTableError as error:
            found = error
        known = _read[file] = _Read(stamp, _today(), found)
    if isinstance(known.found, PriceTableError):
        raise known.found
    return known.found


def _stamp(file: str) -> tuple[int, int, int] | None:
    """What differs when a file was written or replaced; None: it is not there."""
    try:
        status = Path(file).expanduser().stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


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
