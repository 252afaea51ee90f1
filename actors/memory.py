"""How much memory this process holds."""

import os
from pathlib import Path

_STATM = Path("/proc/self/statm")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20 if hasattr(os, "sysconf") else 0.0


def rss_mb() -> float | None:
    """Resident memory of this process in MB (2²⁰ bytes); None where the system does not say (only Linux does, cheaply)."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE_MB
    except (OSError, ValueError, IndexError):
        return None
