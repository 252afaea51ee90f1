"""What commands share: options that change settings, and opening the board."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from callboard.config import Config, load_config

if TYPE_CHECKING:
    from callboard.persistence.job_queue import JobQueue

STATES = ("waiting", "delayed", "waiting_children", "active", "completed", "failed", "cancelled")
"""As options take them; a test compares them with the lifecycle's."""

_F = TypeVar("_F", bound=Callable[..., Any])


def config_options(command: _F) -> _F:
    """`--config` and `--database`, as `config_path` and `database`."""
    command = click.option("--database", metavar="PATH|URL", help="The database. Default: sqlite:///callboard.db")(
        command
    )
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        help="The configuration. Default: $CALLBOARD_CONFIG, then ./callboard.toml",
    )(command)


def json_option(command: _F) -> _F:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def read_config(config_path: str | None, database: str | None, options: Mapping[str, Any] | None = None) -> Config:
    """Read the configuration with this command's options, by dotted key, on top."""
    return load_config(config_path, overrides={"database": database, **(options or {})})


def open_queue(config: Config, *, create: bool = False) -> "JobQueue":
    """Open the board this configuration names. Reading commands do not create one: a mistyped path is an error, not an empty board."""
    from callboard.persistence.job_queue import JobQueue

    return JobQueue(config.database, create=create)
