"""`callboard simulate`: the simulated provider as a process of its own (docs/simulator.md)."""

import argparse
from pathlib import Path
from typing import Any

import click

from .errors import InputError


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default, takes a free one.")
@click.option("--rpm", type=int, help="Requests per minute for each key and model.")
@click.option("--rpd", type=int, help="Requests per day for each key and model (Gemini).")
@click.option("--tpm", type=int, help="Tokens per minute for each key and model.")
@click.option("--input-tpm", type=int, help="Input tokens per minute (Anthropic). Default: --tpm")
@click.option("--output-tpm", type=int, help="Output tokens per minute (Anthropic). Default: --tpm")
@click.option("--concurrency", type=int, help="Requests open at once for each key and model.")
@click.option(
    "--window-seconds", type=float, default=60.0, show_default=True, help="How long a minute of the limits lasts."
)
@click.option("--latency", type=float, default=0.0, show_default=True, help="Seconds before the first byte.")
@click.option("--tokens-per-second", type=float, help="Pace of the output. Default: as fast as it goes.")
@click.option(
    "--default-max-tokens", type=int, default=1024, show_default=True, help="Limit of a request that names none."
)
@click.option(
    "--batch-seconds",
    type=float,
    default=1.0,
    show_default=True,
    help="How long a batch takes; inf: until told to end.",
)
@click.option("--key", multiple=True, help="An API key to accept (invented: it is no secret). None accepts any.")
@click.option("--model", multiple=True, help="A model name to serve. None serves any name.")
@click.option("--fault", multiple=True, help="A fault rule: JSON, or KIND:name=value,...")
@click.option("--journal", type=click.Path(dir_okay=False, path_type=Path), help="Append every request to this file.")
@click.option("--watch-stdin", is_flag=True, help="End when standard input ends.")
def simulate(watch_stdin: bool, **given: Any) -> None:
    """Run the simulated provider on 127.0.0.1 until a signal; its URL is the first line on stdout.

    Point a provider's base_url at it: URL/v1 for wire = "openai-chat" and "openai-responses", URL for "anthropic-messages", "gemini" and "ollama".
    """
    from callboard.simulator.arguments import config_from
    from callboard.simulator.serve import run_forever

    try:
        run_forever(config_from(argparse.Namespace(**given)), watch_stdin=watch_stdin)
    except ValueError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"the simulator cannot start: {error}", "choose another --port or --journal") from error
