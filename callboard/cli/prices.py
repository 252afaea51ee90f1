"""`callboard prices`: the table of prices in use, and a newer one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import InputError
from .options import config_options, json_option, read_config

if TYPE_CHECKING:
    from callboard.actors.prices import PriceRow, PriceTable
    from callboard.config import Config

MOST_BYTES = 32 * 2**20
OLD_DAYS = 120


@click.group(invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="All of the table, also what no configured provider has.")
@json_option
@config_options
@click.pass_context
def prices(
    context: click.Context, everything: bool, as_json: bool, config_path: str | None, database: str | None
) -> None:
    """Show what models cost, in dollars per million tokens: your own prices first, then the table that is shipped."""
    if context.invoked_subcommand is not None:
        return
    from .text import json_line

    config = read_config(config_path, database)
    tables = _tables(config)
    rows = list(_rows(config, tables, everything=everything))
    if as_json:
        import msgspec

        for name, whose, row in rows:
            click.echo(json_line({"model": name, "from": whose, **msgspec.to_builtins(row)}))
        return
    _print(rows, tables)


def _tables(config: "Config") -> "dict[str, PriceTable]":
    from callboard.actors.prices import PriceTableError, load_table

    try:
        own = {} if config.prices.file is None else {config.prices.file: load_table(config.prices.file)}
        return {**own, "shipped": load_table(None)}
    except PriceTableError as error:
        raise InputError(str(error)) from error


def _rows(config: "Config", tables: "dict[str, PriceTable]", *, everything: bool) -> Any:
    from callboard.actors.prices import PriceRow, vendor_of

    for alias, model in config.models.items():
        if model.price is not None:
            import msgspec

            yield (
                alias,
                "configured",
                PriceRow(**{n: getattr(model.price, n) for n in msgspec.structs.asdict(model.price)}),
            )
    sections = {vendor_of(provider.base_url) for provider in config.providers.values()} | set(config.providers)
    seen: set[str] = set()
    for whose, table in tables.items():
        for section, models in table.models.items():
            if not everything and section not in sections:
                continue
            for model_name, row in models.items():
                if (name := f"{section}:{model_name}") not in seen:
                    seen.add(name)
                    yield name, whose, row


def _print(rows: "list[tuple[str, str, PriceRow]]", tables: "dict[str, PriceTable]") -> None:
    from .display import print_table
    from .text import count

    def dollars(value: float | None) -> str:
        return "" if value is None else f"{value:g}"

    print_table(
        [
            ("model", "left"),
            ("input", "right"),
            ("output", "right"),
            ("cached", "right"),
            ("to cache", "right"),
            ("for 1 h", "right"),
            ("batch", "right"),
            ("long context", "left"),
            ("from", "left"),
        ],
        [
            [
                name,
                dollars(row.input),
                dollars(row.output),
                dollars(row.cache_read),
                dollars(row.cache_write),
                dollars(row.cache_write_1h),
                f"x{row.batch:g}",
                "" if (long := row.long_context) is None else f">{count(long.above)}: {long.input:g}/{long.output:g}",
                whose if row.until is None else f"{whose}, until {row.until}",
            ]
            for name, whose, row in rows
        ],
    )
    for whose, table in tables.items():
        click.echo(f"{whose}: {table.date}, {table.source}")
    newest = max(table.date for table in tables.values())
    try:
        days = (datetime.now(UTC).date() - datetime.fromisoformat(newest).date()).days
    except ValueError:
        return
    if days > OLD_DAYS:
        click.echo(
            f"callboard: the newest of these prices are {days} days old; `callboard prices refresh` looks for newer ones",
            err=True,
        )


@prices.command()
@click.option(
    "--from",
    "source",
    metavar="FILE|URL",
    help="Where from, in our format or LiteLLM's. Default: LiteLLM's table on GitHub.",
)
@click.option("--to", "target", metavar="FILE", help="The file to write. Default: the configured [prices] file.")
@click.option("--force", is_flag=True, help="Take it although it looks like a mistake.")
@config_options
def refresh(source: str | None, target: str | None, force: bool, config_path: str | None, database: str | None) -> None:
    """Get newer prices, check them, and put them into the file of your own prices in one step.

    Workers that run take it up at their next sweep, for the calls that they make from then on.
    """
    from callboard.actors.prices import PriceTableError, load_table

    from . import price_refresh

    config = read_config(config_path, database)
    file = target or config.prices.file
    if file is None:
        raise InputError(
            "--to: there is no file of your own prices yet",
            'give one, and name it in the configuration: [prices] file = "prices.json"',
        )
    path = Path(file).expanduser()
    where = source or price_refresh.COMMUNITY
    try:
        before = load_table(str(path)) if path.exists() else load_table(None)
        after = price_refresh.read(_fetch(where), where, datetime.now(UTC).date().isoformat())
        if not force:
            price_refresh.check(before, after, where, same_kind=path.exists())
        price_refresh.write(price_refresh.keep(before, after) if path.exists() else after, path)
    except PriceTableError as error:
        raise InputError(
            str(error), None if force else "look at it; --force takes it as it is, if it can be read"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    _print_changes(price_refresh.changes(before, after), path)
    if config.prices.file is not None and Path(config.prices.file).expanduser().absolute() == path.absolute():
        click.echo(
            "callboard: workers that run look at it at every sweep; their next calls have these prices", err=True
        )
    elif config.prices.file is None:
        click.echo(
            f'callboard: hint: name it in the configuration, or nothing reads it: [prices] file = "{path}"', err=True
        )


def _fetch(where: str) -> bytes:
    if "://" not in where:
        try:
            return Path(where).expanduser().read_bytes()
        except OSError as error:
            raise InputError(f"--from: {where}: cannot be read: {error.strerror}") from error
    if not where.startswith("https://"):
        raise InputError(f"--from: {where}: prices are money: only https is taken, or a file")
    import httpx

    found = bytearray()
    try:
        with (
            httpx.Client(trust_env=False, follow_redirects=False, timeout=30.0) as client,
            client.stream("GET", where) as reply,
        ):
            if reply.status_code != 200:
                raise InputError(f"--from: {where}: answered with status {reply.status_code}")
            for piece in reply.iter_bytes():
                found += piece
                if len(found) > MOST_BYTES:
                    raise InputError(f"--from: {where}: is larger than {MOST_BYTES >> 20} MB")
    except httpx.HTTPError as error:
        raise InputError(
            f"--from: {where}: cannot be fetched: {error}", "download it by other means, and give the file"
        ) from error
    return bytes(found)


def _print_changes(found: Any, path: Path) -> None:
    new = sum(change.before is None for change in found)
    gone = sum(change.after is None for change in found)
    for change in found:
        if change.before is not None and change.after is not None:
            was, now = change.before, change.after
            click.echo(f"{change.section}:{change.model}: {was.input:g}/{was.output:g} -> {now.input:g}/{now.output:g}")
    click.echo(f"{path}: {new} models are new, {gone} are gone, {len(found) - new - gone} changed")
