"""Showing things: hostile text made harmless, and numbers, times and money in words. Pure, and without rich.

Model output and payloads may hold escape sequences that would drive the reader's terminal. What is shown to a person passes `plain`; JSON
for programs passes `json_line`, where such characters are escaped.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

# A whole escape sequence: CSI, OSC and the other strings with their terminator, or a two-character escape.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]", re.DOTALL
)
# Control characters but tab and newline, C1 controls, and the marks that reorder text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def plain(text: str) -> str:
    """Text with nothing in it that a terminal would obey; a piece of a stream may be given by itself."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str, width: int) -> str:
    """`plain` on one line of at most `width` characters."""
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else f"{flat[: max(width - 1, 0)]}…"


def json_line(value: Any, *, indent: int | None = None) -> str:
    """JSON that is readable (no escaped letters) and harmless: what a terminal would obey is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    # Outside strings JSON has no such characters (newline and tab are not among them), so escaping them everywhere is right.
    return _CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def moment(at_ms: int | None, to: str = "milliseconds") -> str:
    """Epoch milliseconds as local time, ISO 8601, to the millisecond or `to` the minute or second; always with the zone, as its distance from UTC."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().isoformat(sep=" ", timespec=to)


def time_of_day(at_ms: int | None) -> str:
    """As `moment`, without the day."""
    return moment(at_ms).rpartition(" ")[2]


def iso(at_ms: int | None) -> str | None:
    """Epoch milliseconds as UTC, ISO 8601: for programs."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that say something: 0.42s, 12s, 3m 05s, 2h 10m."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"


def money(nano: int | None) -> str:
    """Nano-dollars as dollars: cents where cents say enough, more digits below. Unknown is said, never shown as 0."""
    if nano is None:
        return "unknown"
    dollars = nano / 1e9
    return (
        f"${dollars:.2f}"
        if nano == 0 or dollars >= 1
        else f"${dollars:.4f}"
        if dollars >= 0.0001
        else f"${dollars:.7f}"
    )


def dollars(nano: int | None) -> float | None:
    """Nano-dollars as dollars, for JSON."""
    return None if nano is None else nano / 1e9


def plural(number: int, word: str) -> str:
    """Say how many there are of something whose plural takes an s."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def count(number: int | None) -> str:
    """Show a number with thousands apart."""
    return "-" if number is None else f"{number:,}"
