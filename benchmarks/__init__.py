"""What Callboard is measured by: every figure beside its floor or peer, taken in turns in one run.

`python -m benchmarks` (or `make bench`) prints one table and writes it to `benchmarks/results.json` and `benchmarks/results.md`.
"""
