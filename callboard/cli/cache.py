"""`callboard cache`: what is kept of answers, and dropping it."""

import click

from .options import config_options, json_option, open_queue, read_config


@click.command()
@click.argument("what", required=False, type=click.Choice(("clear",)))
@json_option
@config_options
def cache(what: str | None, as_json: bool, config_path: str | None, database: str | None) -> None:
    """Show how many answers are kept, how often they were given again, and what that saved; `clear` drops them all.

    Nothing that a job has received is lost by it: only who asks next is answered by the provider again.
    """
    from callboard.persistence import cache as kept

    from .text import dollars, iso, json_line, money, plural

    with open_queue(read_config(config_path, database)) as queue:
        if what == "clear":
            total = 0
            while dropped := queue.clear_cache():
                total += dropped
            click.echo(json_line({"dropped": total}) if as_json else f"{plural(total, 'answer')} dropped")
            return
        found: kept.CacheStatus = queue.cache_status()
    if as_json:
        told = found._asdict()
        told |= {"oldest": iso(found.oldest), "newest": iso(found.newest), "saved_usd": dollars(told.pop("saved"))}
        click.echo(json_line(told))
        return
    click.echo(
        f"kept: {plural(found.entries, 'answer')}, {plural(found.bytes, 'byte')}, given again {plural(found.hits, 'time')}"
    )
    saved = f", which saved {money(found.saved)}" if found.given else ""
    click.echo(f"in all {plural(found.given, 'answer')} came from the cache{saved}")
