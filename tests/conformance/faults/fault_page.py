"""Writes docs/failures.md from the table of faults: `make failures`."""

from pathlib import Path

from fault_bodies import NAMES
from fault_kinds import End, Fault
from fault_table import TABLE

PAGE = Path(__file__).parents[3] / "docs" / "failures.md"
COLUMNS = ("what the server does", "the job", "requests", "attempts", "billed", "concerns", "its key")
HEAD = """# Failures

What becomes of a job when its provider, or the way to it, misbehaves: {rows} faults, each played to a whole company over real sockets, by a server that
speaks the wire format byte for byte; at `openai-chat` {counts}. `tests/conformance/faults` plays
them, and this page is made from its table (`make failures`): what is written here is what the test has seen.

Each job has two attempts (one where a deadline passes), a streamed call, and no fallback; the fault is there at every request unless the row
says "once".

- **the job**: *completed*, with its finish; *failed*, with the class of its error; or *waiting*: its key is on hold and the job costs no attempt.
- **requests**: how many requests the server has read whole.
- **attempts**: how many are counted as failed. A failure that no retry would heal ends the job with its first.
- **billed**: whether a failed call may have been paid for. *maybe* is an unknown outcome: a job with `on_unknown = "park"` is parked instead of trying again.
- **concerns**: the request, the model, the provider, or the credential.
- **its key**: what is on hold. `rate` is held for as long as the provider asks, or else 1 s and twice as long each time; `auth` and `quota` for 30 s and up
  (half of that at random), until a person has put it right or lifts it (`callboard limits --resume`).
"""


def page() -> str:
    counts = [f"{sum(wire in fault.only for fault in TABLE)} at `{wire}`" for wire in NAMES]
    told = HEAD.format(rows=len(TABLE), counts=", ".join([counts[0].split(" at ")[0], *counts[1:]]))
    parts = [told]
    for group in dict.fromkeys(fault.group for fault in TABLE):
        lines = [f"\n## {group}\n", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        for fault in TABLE:
            if fault.group == group:
                lines += _rows(fault)
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _rows(fault: Fault) -> list[str]:
    only = "" if fault.only == NAMES else f" ({', '.join(f'`{wire}`' for wire in fault.only)})"
    rows = [_row(f"{fault.does}{only}", fault.end, fault.once)]
    return rows + [_row(f"… at `{wire}`", end, fault.once) for wire, end in fault.but.items()]


def _row(does: str, end: End, once: bool) -> str:
    job = f"{end.state}: `{end.what}`" if end.state != "waiting" else "waiting"
    if end.state == "completed" and not end.usage:
        job += ", tokens and cost unknown"
    held = f"`{end.held}`" if end.held else "after it, `rate`" if once and not end.attempts else ""
    if end.held == "rate" and end.code:
        held += f" (`{end.code}`)"
    elif end.held == "rate":
        held += f", {end.wait:g} s"
    told = [does, job, str(end.requests), str(end.attempts), end.billed, end.scope, held]
    return f"| {' | '.join(told)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
