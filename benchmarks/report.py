"""The findings as a table for people, Markdown for docs/performance.md, and JSON for comparison over time."""

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from callboard.persistence.engine import driver

from .measure import Finding

VERDICTS = {True: "met", False: "short", None: "unclear"}
HEADER = ("", "Callboard", "floor or peer", "ratio", "CPU/op", "floor's CPU/op", "target", "")


def machine() -> dict[str, str]:
    """What the figures depend on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "python": platform.python_version(),
        "sqlite": driver.sqlite_version,
        "cores": str(os.cpu_count()),
        "cpu": model,
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "date": time.strftime("%Y-%m-%d"),
    }


def cells(finding: Finding) -> tuple[str, ...]:
    """One finding as the columns of `HEADER`."""
    return (
        finding.what,
        f"{_number(finding.ours)} {finding.unit}",
        "" if finding.floor is None else f"{_number(finding.floor)} {finding.unit}",
        "" if finding.ratio is None else f"{finding.ratio:.2f}",
        _cpu(finding.cpu_us),
        _cpu(finding.floor_cpu_us),
        finding.verdict.target if finding.verdict else "",
        "" if finding.verdict is None else VERDICTS[finding.verdict.met],
    )


def as_text(title: str, findings: list[Finding]) -> str:
    """A benchmark's findings in aligned columns."""
    rows = [(title, *HEADER[1:]), *map(cells, findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def as_markdown(results: Mapping[str, list[Finding]], facts: Mapping[str, str]) -> str:
    """All findings, as docs/performance.md quotes them."""
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    for title, findings in results.items():
        rows = [(title, *HEADER[1:]), ("---",) * len(HEADER), *map(cells, findings)]
        lines += [*("| " + " | ".join(row) + " |" for row in rows), ""]
    return "\n".join(lines)


def write(directory: Path, results: Mapping[str, list[Finding]], facts: Mapping[str, str]) -> None:
    """Write results.json and results.md."""
    found = {title: [asdict(finding) for finding in findings] for title, findings in results.items()}
    (directory / "results.json").write_text(json.dumps({"machine": facts, "results": found}, indent=1) + "\n")
    (directory / "results.md").write_text(as_markdown(results, facts))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cpu(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1000:.2f} ms" if value >= 1000 else f"{value:.0f} µs"
