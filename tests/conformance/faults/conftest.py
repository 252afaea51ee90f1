"""The table of faults and what plays it are modules beside the tests."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def until():
    """Wait until a function returns something true."""

    def wait(holds, timeout=30.0):
        deadline = time.monotonic() + timeout
        while not (value := holds()):
            assert time.monotonic() < deadline, "it never came about"
            time.sleep(0.01)  # paces the looks; what ends the wait is what is seen
        return value

    return wait
