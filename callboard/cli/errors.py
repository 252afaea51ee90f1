"""Which errors users are expected to meet, as one line, a hint and an exit code. Anything else is a defect and keeps its traceback."""

import sys

import click

from callboard.config import ConfigError


class InputError(click.ClickException):
    """Something the user gave cannot be used: exit code 2."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def explain(error: Exception) -> tuple[str, str | None, int] | None:
    """Message, hint and exit code; None for a defect."""
    if isinstance(error, ConfigError):
        return str(error), error.hint, 78
    # Only a command that opened the board can have raised the board's errors, and then these modules are loaded.
    errors = sys.modules.get("callboard.persistence.errors")
    if errors is not None and isinstance(error, errors.CallboardError):
        return str(error), getattr(error, "hint", None), 2
    return None
