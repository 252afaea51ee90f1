"""`callboard follow`: a job's answer as it is produced, from its beginning, however late one comes."""

import sys
from typing import TYPE_CHECKING

import click

from .options import config_options, open_queue, read_config
from .text import plain

if TYPE_CHECKING:
    from callboard.persistence.job import Job
    from callboard.persistence.model import Chunk

PATIENCE = 3.0
"""Seconds of silence until a person is told why."""


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
    from callboard.persistence.errors import WaitTimeoutError

    shown = _Shown()
    quiet = Quiet(job)
    last: Chunk | None = None
    while True:
        try:
            for chunk in job.stream(after=last, timeout=PATIENCE):
                last = chunk
                shown.chunk(chunk.epoch, chunk.step, chunk.text)
            break
        except WaitTimeoutError:
            if (news := quiet.news()) is not None:
                shown.interrupt()
                click.echo(news, err=True)
    job.refresh()
    row = job.row()
    if row.state == "completed" and not shown.anything:
        shown.text(answer_text(job.result))
    shown.end()
    said = f"callboard: job {job.id} {row.state}"
    click.echo(plain(f"{said}: {row.reason}" if row.state != "completed" and row.reason else said), err=True)
    return 0 if row.state == "completed" else 1


def wait_for(job: "Job", patience: float = PATIENCE) -> None:
    """Wait until the job has ended, saying on stderr why it is not worked on, whenever that changes."""
    from callboard.persistence.errors import WaitTimeoutError

    quiet = Quiet(job)
    while True:
        try:
            job.wait(timeout=patience)
        except WaitTimeoutError:
            if (news := quiet.news()) is not None:
                click.echo(news, err=True)
        else:
            return


class Quiet:
    """Why nothing happens to a job, said once for each reason."""

    def __init__(self, job: "Job") -> None:
        self._job = job
        self._said = ""

    def news(self) -> str | None:
        """A line about it; None while the job is worked on, and if it was said already."""
        if self._job.state in ("active", "completed", "failed", "cancelled"):
            return None
        why = self._job.why()
        if why == self._said:
            return None
        self._said = why
        hint = (
            " (does a `callboard worker` run? has its model room: `callboard limits`?)"
            if why.startswith("waiting for a free runner")
            else ""
        )
        return f"callboard: job {self._job.id}: {plain(why)}{hint}"


def answer_text(result: object) -> str:
    """Find what a person would call the answer in a job's result: its text, or all of it as JSON, as where the answer is calls of tools."""
    from .text import json_line

    if (
        isinstance(result, dict)
        and isinstance(result.get("text"), str)
        and (result["text"] or not result.get("tool_calls"))
    ):
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

    def interrupt(self) -> None:
        """Make room on a terminal for a line about something else."""
        if not self._exact:
            self.end()

    def end(self) -> None:
        """End the line, if one is open."""
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._line_open = False
