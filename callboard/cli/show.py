"""`callboard show`: everything about one job."""

from typing import TYPE_CHECKING, Any

import click

from .options import config_options, json_option, open_queue, read_config

if TYPE_CHECKING:
    from callboard.persistence.job import Job


@click.command()
@click.argument("job_id", metavar="ID", type=int)
@json_option
@config_options
def show(job_id: int, as_json: bool, config_path: str | None, database: str | None) -> None:
    """Show a job: its state and why, its timeline, its calls with tokens and cost, its result."""
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        job = queue.get(job_id)
        if as_json:
            _print_json(job)
        else:
            _print_report(job)


def _print_json(job: "Job") -> None:
    from .batches import request_json
    from .family import family_json
    from .records import call_json, row_json, transition_json
    from .text import json_line

    row = job.row()
    found: dict[str, Any] = {
        **row_json(row),
        "why": job.why(),
        "description": job.description,
        "data": job.data,
        "result": job.result if row.state == "completed" else None,
        "error": job.error,
        "family": family_json(job.family()),
        "needed_by": [{"id": one.id, "state": str(one.state)} for one in job.dependents()],
        "transitions": [transition_json(transition) for transition in job.transitions()],
        "calls": [call_json(call) for call in job.calls()],
        "cost": _cost_json(job),
        "batches": [request_json(request) for request in job.batches()],
    }
    click.echo(json_line(found, indent=2))


def _cost_json(job: "Job") -> dict[str, Any]:
    """What the job and all that it created has cost; what calls under way may cost, and those of which nobody knows, apart."""
    from .text import dollars

    tree = job.tree_cost()
    own = [call.cost for call in job.calls() if call.cost is not None]
    return {
        "own_usd": dollars(sum(own)) if own else None,
        "tree_usd": dollars(tree.cost),
        "tree_jobs": tree.jobs,
        "tree_unpriced": tree.unpriced,
        "tree_reserved_usd": dollars(tree.reserved),
        "tree_unknown_usd": dollars(tree.unknown_cost),
    }


def _cost_line(job: "Job") -> str:
    from .text import count, money

    tree = job.tree_cost()
    own = [call.cost for call in job.calls() if call.cost is not None]
    parts = [f"cost {money(sum(own) if own else None)}"]
    if tree.jobs > 1:
        parts.append(f"with the {count(tree.jobs - 1)} jobs it created {money(tree.cost)}")
    if tree.unpriced:
        parts.append(f"{count(tree.unpriced)} answers without a known price")
    if tree.reserved:
        parts.append(f"{money(tree.reserved)} reserved by calls under way")
    if tree.unknown_cost:
        parts.append(f"{money(tree.unknown_cost)} perhaps spent by calls with an unknown outcome")
    return "; ".join(parts)


def _print_report(job: "Job") -> None:
    from .display import console, print_table, state_cell
    from .family import family_lines
    from .follow import answer_text
    from .records import call_tokens, now_ms, took
    from .text import count, duration, json_line, moment, money, one_line, plain, time_of_day

    row = job.row()
    out = console()
    names = [("type", row.type), ("model", row.model), ("tag", row.tag), ("key", row.key), ("priority", row.priority)]
    out.print(f"job {row.id} ", state_cell(row.state), sep="", end="")
    out.print("  " + "  ".join(f"{name} {plain(str(value))}" for name, value in names if value not in (None, 0)))
    out.print(plain(job.why()))
    if job.description:
        out.print(plain(job.description))
    tries = f"attempt {row.attempt}; failures {row.failures} of {row.max_attempts}, losses {row.losses}, deferrals {row.deferrals}"
    progress = f"; progress {row.progress}%" + (f" {plain(row.progress_message)}" if row.progress_message else "")
    out.print(f"{tries}{progress}; took {took(row, now_ms())}\n")
    family = job.family()
    if family.below:
        out.print("what it waits on and what it created:")
        for depth, line, state in family_lines(family):
            out.print("  " * depth + line + " ", state_cell(state), sep="")
        out.print()
    needed_by = job.dependents()
    if needed_by:
        told = ", ".join(f"job {one.id} ({one.state})" for one in needed_by[:10])
        more = f" and {len(needed_by) - 10} more" if len(needed_by) > 10 else ""
        out.print(f"needed by {told}{more}\n")
    print_table(
        [("at", "left"), ("from", "left"), ("to", "left"), ("epoch", "right"), ("by", "left"), ("reason", "left")],
        [
            [moment(t.at), t.from_state, state_cell(t.to_state), t.epoch, t.actor, one_line(t.reason or "", 300)]
            for t in job.transitions()
        ],
        wide=5,
        title="timeline",
    )
    for request in job.batches():
        place = f"{request.kind} {request.batch} at {request.provider}, driven by job {request.job_id}"
        out.print(plain(f"step {request.step}: {request.state} in {place} ({request.batch_state})"))
    calls = job.calls()
    if calls or family.below:
        out.print(f"\n{_cost_line(job)}")
    if calls:
        out.print()
        print_table(
            [
                ("call", "right"),
                ("step", "left"),
                ("model", "left"),
                ("state", "left"),
                ("sent", "left"),
                ("first", "right"),
                ("took", "right"),
                ("in", "right"),
                ("out", "right"),
                ("cost", "right"),
                ("note", "left"),
            ],
            [
                [
                    call.id,
                    call.step,
                    f"{call.provider}:{call.model}",
                    call.state,
                    time_of_day(call.sent_at),
                    "-" if call.first_token_ms is None else duration(call.first_token_ms / 1000),
                    "-" if call.finished_at is None else duration((call.finished_at - call.sent_at) / 1000),
                    *(count(tokens) for tokens in call_tokens(call)),
                    money(call.cost),
                    one_line(str((call.error or {}).get("message") or call.error_class or call.finish or ""), 200),
                ]
                for call in calls
            ],
            wide=10,
            title="calls",
        )
    out.print("\ndata:")
    out.print(plain(json_line(job.data, indent=2)))
    if row.state == "completed":
        out.print("\nresult:")
        out.print(plain(answer_text(job.result)))
    elif job.error is not None:
        out.print("\nlast error:")
        out.print(plain(json_line(job.error, indent=2)))
