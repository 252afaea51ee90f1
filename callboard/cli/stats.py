"""`callboard stats`: the board in numbers."""

import click

from .options import config_options, json_option, read_config


@click.command()
@json_option
@config_options
def stats(as_json: bool, config_path: str | None, database: str | None) -> None:
    """Count jobs by state, type and tag; tokens and cost so far; the rate of the last minute; how long the oldest has waited."""
    config = read_config(config_path, database)
    from .board import Board
    from .records import now_ms
    from .text import count, dollars, duration, json_line, money

    now = now_ms()
    with Board(config) as board:
        by_type = {
            name: {str(state): n for state, n in states.items()}
            for name, states in board.queue.counts_by_type().items()
        }
        counts = {str(state): n for state, n in board.queue.counts().items()}
        usage = board.queue.usage()
        ended = board.ended_since(now - 60_000)
        oldest = board.oldest_waiting()
        tags = board.by_tag()
        name = board.name
    used_in = usage.input_uncached + usage.cache_read + usage.cache_write + usage.cache_write_1h
    used_out = usage.output_visible + usage.output_reasoning
    waited = None if oldest is None else (now - oldest) / 1000
    if as_json:
        found = {
            "database": name,
            "jobs": counts,
            "jobs_by_type": by_type,
            "calls": usage.calls,
            "tokens": {
                **{key: value for key, value in usage._asdict().items() if key not in ("calls", "cost", "unpriced")}
            },
            "cost_usd": dollars(usage.cost),
            "calls_without_price": usage.unpriced,
            "ended_in_last_minute": {"completed": ended.get("completed", 0), "failed": ended.get("failed", 0)},
            "oldest_waiting_seconds": waited,
            "tags": [
                {"tag": tag, "jobs": total, "completed": done, "failed": failed, "unfinished": open_}
                for tag, total, done, failed, open_ in tags
            ],
        }
        click.echo(json_line(found, indent=2))
        return
    from .display import console, print_table, state_cell

    out = console()
    out.print(name)
    print_table(
        [("type", "left"), *((state_cell(state).plain, "right") for state in counts)],
        [[kind, *(count(n) for n in states.values())] for kind, states in by_type.items()]
        + ([["all", *(count(n) for n in counts.values())]] if len(by_type) != 1 else []),
    )
    unpriced = f" ({count(usage.unpriced)} of them without a known price)" if usage.unpriced else ""
    out.print(
        f"\ncalls {count(usage.calls)}, tokens in {count(used_in)} out {count(used_out)}, cost {money(usage.cost) if usage.calls else '-'}{unpriced}"
    )
    out.print(f"last minute: {count(ended.get('completed', 0))} completed, {count(ended.get('failed', 0))} failed")
    out.print(f"oldest waiting job: {'none waits' if waited is None else duration(waited)}")
    if tags:
        out.print()
        print_table(
            [("tag", "left"), ("jobs", "right"), ("completed", "right"), ("failed", "right"), ("unfinished", "right")],
            [[tag, *(count(number) for number in numbers)] for tag, *numbers in tags],
        )
