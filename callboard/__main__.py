"""The `callboard` command, also `python -m callboard`: runs a command and turns every expected error into one line and an exit code.

Exit codes: 0 done; 1 some jobs, rows or checks failed; 2 bad input, or a database that cannot be used; 70 the worker gave up;
78 bad configuration; 130 interrupted.
"""

import io
import os
import sys
from collections.abc import Sequence

EXIT_INPUT = 2
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process. `CALLBOARD_DEBUG=1` shows tracebacks of expected errors too."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. Errors go to stderr as `callboard: error: …` and a hint."""
    import click

    from callboard.cli import cli

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer may hold what this terminal cannot show
    try:
        code = cli.main(args=arguments, prog_name="callboard", standalone_mode=False, obj=list(arguments))
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted", None)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our stdout has gone (`| head`): say nothing, and let nothing be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        known = _explain(error)
        if known is None or os.environ.get("CALLBOARD_DEBUG"):
            raise
        message, hint, exit_code = known
        _say(message, hint)
        return exit_code
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> tuple[str, str | None, int] | None:
    """Message, hint and exit code of an error that users are expected to meet; None for a defect, which keeps its traceback."""
    import click

    from callboard.cli.errors import explain

    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "callboard"
        return error.format_message(), f"see `{command} --help`", EXIT_INPUT
    if isinstance(error, click.ClickException):
        return error.format_message(), getattr(error, "hint", None), EXIT_INPUT
    return explain(error)


def _say(message: str, hint: str | None) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"callboard: error: {message}\n")
    if hint:
        sys.stderr.write(f"callboard: hint: {hint}\n")


if __name__ == "__main__":
    main()
