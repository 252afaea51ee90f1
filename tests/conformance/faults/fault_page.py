"""Writes docs/failures.md from the table of faults: `make failures`."""

from pathlib import Path
from typing import Any

from fault_kinds import End
from fault_lane import BatchEnd
from fault_table import BEHIND, CHATS, EMBEDDINGS, HOSTS, LANE, SECTIONS, Section

PAGE = Path(__file__).parents[3] / "docs" / "failures.md"
COLUMNS = ("what the server does", "the job", "requests", "attempts", "billed", "concerns", "its key")
HEAD = """# Failures

What becomes of a job when its provider, or the way to it, misbehaves: {rows} faults, each played to a whole company over real sockets, by a server that
speaks the wire format byte for byte. `tests/conformance/faults` plays them, and this page is made from its table (`make failures`): what is written here
is what the test has seen.

{picture}

Each job has two attempts (one where a deadline passes) and no fallback; the fault is there at every request unless the row says "once".

- **the job**: *completed*, with its finish; *failed*, with the class of its error; or *waiting*: its key is on hold and the job costs no attempt.
- **requests**: how many requests the server has read whole.
- **attempts**: how many are counted as failed. A failure that no retry would heal ends the job with its first.
- **billed**: whether a failed call may have been paid for. *maybe* is an unknown outcome: a job with `on_unknown = "park"` is parked instead of trying again.
- **concerns**: the request, the model, the provider, or the credential.
- **its key**: what is on hold. `rate` is held for as long as the provider asks, or else 1 s and twice as long each time; `auth` and `quota` for 30 s and up
  (half of that at random), until a person has put it right or lifts it (`callboard limits --resume`).
"""
WORDS = {
    CHATS.title: "Streamed calls, at the five wire formats.",
    BEHIND.title: """Calls that OpenAI goes on with when the connection is lost (`background = true`). **made** is how many of the requests asked for an answer, and may be paid
for; the others follow up what is under way, or look at it. Where following fails, it is tried five times more, and then the call is looked at.""",
    EMBEDDINGS.title: "Two texts, at the three wire formats. Connections, refusals and headers end as for chats; an answer has no finish.",
    HOSTS.title: """What a host's own class (`wire = "own"`) may do wrong in `complete` and `embed`. A request is a call of one of them.""",
    LANE.title: """Two jobs with `latency = "batch"`, in one batch of OpenAI's, Anthropic's or Gemini's. What is refused or has no answer goes into another batch, without an attempt being
counted; after three batches it is asked for by itself.

- **the jobs**: what becomes of them. *waiting*: the provider is asked again and again, more and more seldom; a job with a deadline leaves in time to be asked
  for by itself.
- **sent**: how often a file of requests (OpenAI). **made**: how often a batch was asked for. **looked for**: how often in the provider's list, after a reply that was
  not heard. **asked after**, **fetched**: how often for its state, and for its results. …: again and again.
- **alone**: how many jobs were asked for by themselves.
- **maybe**: how many calls are booked with an unknown outcome: they may be paid for though their answers never came.""",
}
OF_BATCHES = (
    "what the server does",
    "the jobs",
    "sent",
    "made",
    "looked for",
    "asked after",
    "fetched",
    "alone",
    "maybe",
)


def page() -> str:
    return "".join(
        [HEAD.format(rows=sum(len(section.rows) for section in SECTIONS), picture=_picture()), *map(_section, SECTIONS)]
    )


def _picture() -> str:
    lines = ["| | faults | at |", "|---|---|---|"]
    for section in SECTIONS:
        counts = ", ".join(f"`{part}` {len(section.of(part))}" for part in section.parts)
        link = section.title.lower().replace(" ", "-").replace("'", "")
        lines.append(f"| [{section.title}](#{link}) | {len(section.rows)} | {counts} |")
    return "\n".join(lines)


def _section(section: Section) -> str:
    columns = OF_BATCHES if section is LANE else (*COLUMNS[:3], "made", *COLUMNS[3:]) if section is BEHIND else COLUMNS
    parts = [f"\n## {section.title}\n\n{WORDS[section.title]}\n"]
    for group in dict.fromkeys(fault.group for fault in section.rows):
        lines = [f"\n### {group}\n", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        for fault in section.rows:
            if fault.group == group:
                lines += _rows(section, fault)
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _rows(section: Section, fault: Any) -> list[str]:
    only = "" if fault.only == section.parts else f" ({', '.join(f'`{part}`' for part in fault.only)})"
    told = _of_a_batch if section is LANE else _of_a_job
    rows = [told(section, f"{fault.does}{only}", fault.end, fault)]
    return rows + [told(section, f"… at `{part}`", end, fault) for part, end in fault.but.items()]


def _of_a_job(section: Section, does: str, end: End, fault: Any) -> str:
    job = f"{end.state}: `{end.what}`" if end.state != "waiting" and end.what else end.state
    if end.state == "completed" and not end.usage:
        job += ", tokens and cost unknown"
    held = f"`{end.held}`" if end.held else "after it, `rate`" if fault.once and not end.attempts else ""
    if end.held == "rate" and end.code:
        held += f" (`{end.code}`)"
    elif end.held == "rate":
        held += f", {end.wait:g} s"
    made = [str(end.made)] if section is BEHIND else []
    return _line([does, job, str(end.requests), *made, str(end.attempts), end.billed, end.scope, held])


def _of_a_batch(_: Section, does: str, end: BatchEnd, fault: Any) -> str:
    ends = [
        f"{end.completed} completed" if end.completed else "",
        f"{end.failed} failed: `{end.error}`" if end.failed else "",
    ]
    jobs = "waiting" if end.waits else ", ".join(filter(None, ends))
    counts = {
        name: "…" if name == end.waits else str(getattr(end, name))
        for name in ("upload", "create", "find", "poll", "fetch", "alone", "maybe")
    }
    if "openai-batches" not in fault.only:
        counts["upload"] = ""
    return _line([does, jobs, *("" if count == "0" else count for count in counts.values())])


def _line(told: list[str]) -> str:
    return f"| {' | '.join(told)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
