"""Run the benchmarks. Needs a quiet machine; a full run takes about a quarter of an hour."""

import argparse
import tempfile
from pathlib import Path

from . import board, calls, contention, drain, limiter, memory, pickup, report, store
from .measure import Bench, Benchmark, Finding

BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "store": ("The store alone", store.run),
    "drain": ("No-op jobs through the whole company", drain.run),
    "calls": ("Model calls", calls.run),
    "pickup": ("Pick-up between processes", pickup.run),
    "contention": ("A host beside a worker flat out", contention.run),
    "board": ("A board of a million finished and a hundred thousand waiting jobs", board.run),
    "limiter": ("Rate limits, by the provider's own count", limiter.run),
    "memory": ("Memory and start", memory.run),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes and fewer rounds: a look, not a measurement"
    )
    options = parser.parse_args()
    facts = report.machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    results: dict[str, list[Finding]] = {}
    for name in options.only or BENCHMARKS:
        title, benchmark = BENCHMARKS[name]
        with tempfile.TemporaryDirectory(prefix=f"callboard-bench-{name}-") as directory:
            results[title] = list(benchmark(Bench(Path(directory), options.quick)))
        print(f"\n{report.as_text(title, results[title])}", flush=True)
    report.write(Path(__file__).parent, results, facts)


if __name__ == "__main__":
    main()
