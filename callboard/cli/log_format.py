"""The worker's log on stderr: a line of text, or one JSON object, per record. Prompts and answers are never logged above debug."""

import json
import logging
import sys
import time
from typing import Literal

# What every record has; anything beyond these came with `extra=` and is shown.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _UtcFormatter(logging.Formatter):
    """Times in UTC, to the millisecond, whatever the machine's zone."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    @staticmethod
    def converter(seconds: float | None = None) -> time.struct_time:
        """Break the time down in UTC."""
        return time.gmtime(seconds)


class TextFormatter(_UtcFormatter):
    """`2026-11-21T10:00:00.123Z INFO callboard.supervisor: sentence key=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Append what came with `extra=`; keep the record on one line."""
        line = super().formatMessage(record).replace("\n", "\\n")
        return line + "".join(f" {name}={value!r}" for name, value in _extra(record).items())


class JsonFormatter(_UtcFormatter):
    """One JSON object per line: at, level, logger, message, whatever came with `extra=`, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        entry = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Send this process's log to stderr. For processes of our own only: an embedded company leaves logging to its host."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their request lines at info would drown ours, and name URLs.
    for noisy in ("httpx", "httpcore", "asyncio", "pykka"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
