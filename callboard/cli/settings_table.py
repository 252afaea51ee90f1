"""The table of settings in docs/configuration.md, made from the settings' own types so that it cannot fall behind (a test compares them).

python -m callboard.cli.settings_table
"""

import sys
from typing import Any

from callboard.config import describe_type, scalar_settings

MEANINGS: dict[str, str] = {
    "database": "the board: an SQLite URL or a path",
    "runners.min": "runners kept ready",
    "runners.max": "jobs at once, at most",
    "runners.idle_timeout": "seconds before a runner above `min` that has nothing to do is let go",
    "runners.memory_mb": "the pool stops growing at this many MB of the process",
    "ageing.after": "seconds a job must have waited to be raised above its priority (any `ageing` setting turns ageing on)",
    "ageing.step": "how much it is raised by",
    "ageing.every": "seconds until it is raised again",
    "ageing.max": "how far it is raised at most; above the distance of the priorities in use, no job waits for ever",
    "batch.max_requests": 'a provider batch (of jobs with `latency = "batch"`) leaves when it has so many requests; its provider may take fewer',
    "batch.max_bytes": "or so many bytes",
    "batch.max_tokens": "or so many tokens of input, by an estimate",
    "batch.max_age": "or when its first request has waited for so many seconds",
    "batch.poll": "seconds until a batch is first looked after at its provider; then 1.5 times as long each time",
    "batch.poll_cap": "seconds between two looks, at most",
    "batch.deadline_margin": "seconds before its deadline that a request is asked for by itself",
    "batch.find_after": "seconds after a batch was asked for until its provider's list of batches is taken for complete",
    "batch.max_rounds": "batches that a request may be in without an answer before it is asked for by itself",
    "embeddings.group": "whether small requests of several `embed` jobs go in one",
    "embeddings.max_inputs": "texts of one such request, at most; its provider may take fewer",
    "embeddings.max_bytes": "bytes of one such request, at most",
    "embeddings.max_tokens": "tokens of one such request, at most, by an estimate",
    "embeddings.max_age": "seconds that a request waits for others, where there are any",
    "cache.max_age": "seconds old that an answer to exactly the same request may be to be given again, for jobs that say nothing of it; none: only jobs with the option `cache`",
    "cache.max_entries": "answers kept, at most; the least recently used go first",
    "cache.max_bytes": "bytes of answers kept, at most",
    "retries.kind": '"exponential": the back-off doubles with each failure. "fixed": it is always `retries.base`',
    "retries.base": "seconds: the first back-off",
    "retries.cap": "seconds: no exponential back-off is longer",
    "retries.jitter": "an exponential back-off is random between 0 and what it would be, a fixed one up to 10 % longer",
    "retries.max_attempts": "goes before what the job says; none leaves it to the job",
    "prices.file": "prices of your own for many models, in the format of the table that is shipped",
    "default_model": "for jobs that name none: an alias, or `provider:model`",
    "poll_interval": "seconds between looks at the board",
    "lease_ttl": "seconds without renewal until a job counts as lost (a dead process on this machine is noticed at once)",
    "sweep_interval": "seconds between looks for lost jobs",
    "retention_days": "days after its end until a job is deleted, with all that belongs to it; 0 keeps it for ever",
    "park_after": "seconds: a job that must wait longer for a limit leaves its runner",
    "drain_timeout": "seconds that running jobs are given to finish when the worker is told to stop",
    "job_timeout": "seconds for one attempt of a job",
    "first_token_timeout": "seconds from sending a call to the first piece of its answer",
    "no_progress_timeout": "seconds between two pieces of an answer; keep-alives do not count",
    "total_timeout": "seconds for one call",
    "max_abandoned": "hung handler threads left behind before the worker gives up (exit code 70)",
    "synchronous": '"FULL": what was committed survives a power cut. "NORMAL": faster, and the last moments may not',
    "profile": '"solo": one job at a time. "pool": between `runners.min` and `runners.max`',
    "log_level": "of the worker process",
    "log_format": "of the worker process: lines of text, or one JSON object a line",
}


def markdown() -> str:
    """Make the table."""
    lines = ["| key | environment | expected | default | meaning |", "|---|---|---|---|---|"]
    for setting in scalar_settings():
        meaning = MEANINGS[setting.key]
        lines.append(
            f"| `{setting.key}` | `{setting.variable}` | {describe_type(setting.type)} | {_default(setting.default)} | {meaning} |"
        )
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    return "none" if value is None else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
