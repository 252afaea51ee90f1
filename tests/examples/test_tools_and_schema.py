"""The example of tools and schemas does what it says, with nothing but what is installed."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "tools_and_schema.py"


def test_it_prints_what_both_ways_return():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["report {'told': '12', 'headline': 'x', 'degrees': 0}", "by-hand 8"]
