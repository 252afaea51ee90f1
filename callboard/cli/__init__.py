"""The command line: one module per command, imported when that command is called, so that `callboard worker` stays small.

Conventions: stdout carries data, stderr carries messages; listings take `--json`; no colour or cursor movement unless stdout is a terminal.
"""

import importlib
from typing import ClassVar

import click


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    commands_known: ClassVar[dict[str, tuple[str, str]]] = {
        "worker": ("worker:worker", "Run the supervisor process that performs the jobs."),
        "map": ("map:map_rows", "Run one prompt over every row of a file; resumable."),
        "add": ("add:add", "Post one job."),
        "list": ("list:list_jobs", "List jobs, or search for them."),
        "show": ("show:show", "Show one job: timeline, calls, cost, result."),
        "follow": ("follow:follow", "Watch a job's answer as it is produced, late or live."),
        "events": ("events:events", "Print what happens on the board, as it happens."),
        "cancel": ("cancel:cancel", "Cancel jobs, also running ones."),
        "retry": ("retry:retry", "Send failed or cancelled jobs back."),
        "promote": ("promote:promote", "Let delayed jobs run now."),
        "duplicate": ("duplicate:duplicate", "Post a job again."),
        "review": ("review:review", "Decide on jobs whose calls may or may not have been made."),
        "schedule": ("schedule:schedule", "Jobs that recur."),
        "conversation": ("conversation:conversation", "Read conversations, and branch off from them."),
        "delete": ("delete:delete", "Delete ended jobs."),
        "clean": ("clean:clean", "Delete what ended long ago."),
        "queues": ("queues:queues", "List queues and their jobs by state."),
        "pause": ("queues:pause", "Start no more jobs of a queue."),
        "resume": ("queues:resume", "Start jobs of a paused queue again."),
        "batches": ("batches:batches", "List requests that go out together."),
        "limits": ("limits:limits", "Show what is used of each limit, what is on hold, who waits."),
        "stats": ("stats:stats", "Count jobs, tokens and cost."),
        "costs": ("costs:costs", "What calls have cost, by model, tag, day, job, …"),
        "budgets": ("budgets:budgets", "How much may still be spent; budgets put, raised, dropped."),
        "cache": ("cache:cache", "What is kept of answers, and what that saved."),
        "prices": ("prices:prices", "What models cost; newer prices."),
        "simulate": ("simulate:simulate", "Run the simulated provider, a real HTTP server."),
        "db": ("db:db", "Upgrade or check the database."),
        "doctor": ("doctor:doctor", "Say what is wrong with the set-up, and what to do."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Every command, in the order a newcomer meets them."""
        return list(self.commands_known)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the signature is click's
        """Import the command's module now that it is wanted."""
        known = self.commands_known.get(cmd_name)
        if known is None:
            return None
        module, _, attribute = known[0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"callboard.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the signature is click's
        """Write the overview of `callboard --help` from the summaries above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.commands_known.items()])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"callboard {version('callboard')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Durable, supervised LLM work: jobs in a database, performed once, within limits, never paid for twice.

    Settings resolve option, then environment, then callboard.toml, then default (docs/configuration.md).
    Exit codes: 0 done; 1 some jobs, rows or checks failed; 2 bad input or database; 70 the worker gave up;
    78 bad configuration; 130 interrupted.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
