"""What the demo proves at its end: no row lost, none answered twice, no completed call made again.

The board says what was asked and answered; the simulator's journal, written by another process, says what was really sent. A call whose
process was killed before the answer was on the board may be made again, and is the only kind that may: nobody can know its outcome.
"""

import sys
from collections import defaultdict
from itertools import accumulate
from pathlib import Path
from typing import Any

from callboard import JobQueue
from callboard.persistence.lifecycle import TERMINAL_STATES
from callboard.simulator import read_journal


def check_journal(queue: JobQueue, journal: Path) -> list[str]:
    """Compare the board with the provider's journal; print what was found, and return what is wrong."""
    sent: dict[str, list[int]] = defaultdict(list)
    refused = 0
    entries = read_journal(journal)
    for entry in entries:
        messages = entry["body"].get("messages") if isinstance(entry["body"], dict) else None
        if messages:
            sent[messages[-1]["content"]].append(entry["at"])
        refused += entry["outcome"] == "rejected"
    problems: list[str] = []
    again = 0
    jobs = all_jobs(queue)
    for job_id in jobs:
        job = queue.get(job_id)
        requests = sorted(sent.pop(job.data["prompt"], []))
        completed = [call for call in job.calls() if call.state == "completed"]
        problems += _unanswered(queue, job_id, len(completed))
        again += max(len(requests) - 1, 0)
        if job.state == "completed" and not requests:
            problems.append(f"job {job_id} is completed, but the provider never saw its request")
        if completed and completed[0].finished_at is not None:
            late = [at for at in requests if at > completed[0].finished_at]
            problems += [f"job {job_id}: a request was sent after its answer was on the board" for _ in late]
    problems += [f"the provider saw a request that no job on the board made: {prompt[:60]!r}" for prompt in sent]
    say(f"checked {len(jobs)} jobs against the provider's own journal ({journal}):")
    if problems:
        for problem in problems:
            say(f"  ✗ {problem}")
    else:
        say("  ✓ no row lost, none answered twice, and no completed call was made again")
    if again:
        say(f"  · {again} requests were made again because their first outcome was lost: killed in flight, or failed")
    say(
        f"  · {most_at_once(entries)} requests were open at once at most; {refused} were refused for being over the provider's limits"
    )
    return problems


def most_at_once(entries: list[dict[str, Any]]) -> int:
    """Count the most requests that were open at the same moment, by the provider's own times."""
    ended = [(entry["ended_at"], -1) for entry in entries if entry["ended_at"] is not None]
    began = [(entry["at"], 1) for entry in entries if entry["ended_at"] is not None]
    # At the same millisecond an end counts first.
    return max(accumulate(change for _, change in sorted(ended + began)), default=0)


def check_calls(queue: JobQueue, model: str) -> list[str]:
    """Without a journal: what the board's own ledger says."""
    problems: list[str] = []
    jobs = all_jobs(queue, model)
    for job_id in jobs:
        completed = [call for call in queue.calls(job_id) if call.state == "completed"]
        problems += _unanswered(queue, job_id, len(completed))
    say(f"checked {len(jobs)} jobs by the ledger: " + ("; ".join(problems) or "no row lost, none answered twice"))
    return problems


def all_jobs(queue: JobQueue, model: str | None = None) -> list[int]:
    """List every job on the board, page by page."""
    ids: list[int] = []
    before = None
    while page := queue.list(limit=500, before=before):
        ids += [row.id for row in page if model is None or row.model == model]
        before = page[-1].id
    return ids


def _unanswered(queue: JobQueue, job_id: int, completions: int) -> list[str]:
    state = queue.row(job_id).state
    if state not in TERMINAL_STATES:
        return [f"job {job_id} is still {state}"]
    if state == "completed" and completions != 1:
        return [f"job {job_id} has {completions} completions instead of one"]
    return []


def say(message: str) -> None:
    """Tell the person who watches."""
    sys.stderr.write(f"demo: {message}\n")
