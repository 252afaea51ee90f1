"""Words for what sentences of hosts share. It imports nothing of the database."""

from datetime import UTC, datetime


def when(at: int | None) -> str:
    """Epoch milliseconds as a time in a sentence: in UTC, which it says."""
    return "an unknown time" if at is None else datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
