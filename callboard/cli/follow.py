"""`callboard follow`: a job's answer as it is produced, from its beginning, however late one comes."""

import sys
from typing import TYPE_CHECKING

import click

from .options import config_options, open_queue, read_config
from .text import plain

if TYPE_CHECKING:
    from callboard.persistence.job import Job


@click.command()
@click.argument("job_id", metavar="ID", type=int)
@config_options
def follow(job_id: int, config_path: str | None, database: str | None) -> int:
    """Print a job's answer as it is produced; end with the job. Its state goes to stderr.

    Exit code 0 if it completed, 1 if it failed or was cancelled. Into a pipe or a file the text is written exactly as it came.
    """
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        return follow_job(queue.get(job_id))


def follow_job(job: "Job") -> int:
    """Stream to stdout until the job ends, then say how. Returns the exit code."""
    shown = _Shown()
    if not job.row().finished and job.row().started_at is None:
        click.echo(f"callboard: job {job.id} waits for a worker (callboard worker)", err=True)
    for chunk in job.stream():
        shown.chunk(chunk.epoch, chunk.step, chunk.text)
    job.refresh()
    row = job.row()
    if row.state == "completed" and not shown.anything:
        shown.text(answer_text(job.result))
    shown.end()
    said = f"callboard: job {job.id} {row.state}"
    click.echo(plain(f"{said}: {row.reason}" if row.state != "completed" and row.reason else said), err=True)
    return 0 if row.state == "completed" else 1


def answer_text(result: object) -> str:
    """Find what a person would call the answer in a job's result: its text, or all of it as JSON."""
    from .text import json_line

    if isinstance(result, dict) and isinstance(result.get("text"), str):
        return str(result["text"])
    return result if isinstance(result, str) else json_line(result, indent=2)


class _Shown:
    """What is already on the screen."""

    def __init__(self) -> None:
        self.anything = False
        self._at: tuple[int, str] | None = None
        self._line_open = False
        self._exact = not sys.stdout.isatty()

    def chunk(self, epoch: int, step: str, text: str) -> None:
        """Show a piece, after saying so if it belongs to a new attempt or another step."""
        if self._at is not None and self._at != (epoch, step):
            self.end()
            if self._at[0] != epoch:
                click.echo("callboard: the attempt was restarted; the answer begins again", err=True)
        elif self._at is not None and not text:
            self.end()
            click.echo("callboard: another model is asked; the answer begins again", err=True)
        self._at = (epoch, step)
        self.text(text)

    def text(self, text: str) -> None:
        """Show text."""
        shown = text if self._exact else plain(text)
        if shown:
            self.anything = True
            self._line_open = not shown.endswith("\n")
            sys.stdout.write(shown)
            sys.stdout.flush()

    def end(self) -> None:
        """End the line, if one is open."""
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._line_open = False
