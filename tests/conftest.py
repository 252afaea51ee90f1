"""What holds for every test: the same examples every time, boards in memory, code compiled once."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The suite tries the same examples every time: a failure that comes and goes helps nobody. To look further: --hypothesis-profile=explore.
# Nor may it depend on how busy the machine is: how long an example takes is no failure.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, max_examples=1000, print_blob=True)
settings.load_profile("suite")

LONG = frozenset({"scenarios", "examples", "packaging"})
"""The folders of tests that start processes."""
IN_MEMORY = Path("/dev/shm")
"""A file system in memory, where Linux has one."""
ROOM = 1 << 30
"""Bytes it must have free. The suite leaves some 20 MB behind, and has several times that at most."""


def pytest_configure(config: pytest.Config) -> None:
    """Before the workers of `-n` start: they inherit the environment."""
    _keep_files_in_memory(config)
    _compile_once(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long goes first, and mostly to one worker: at the end there are short tests to share out, and who waits does so beside one who computes."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))


def _keep_files_in_memory(config: pytest.Config) -> None:
    """Every commit waits for the disk, thousands of times, to survive the end of power, which no test is about: a killed process loses nothing here."""
    if config.option.basetemp or "PYTEST_DEBUG_TEMPROOT" in os.environ or not os.access(IN_MEMORY, os.W_OK):
        return
    may_execute = not os.statvfs(IN_MEMORY).f_flag & os.ST_NOEXEC  # the tests of the wheel run what they install
    if may_execute and shutil.disk_usage(IN_MEMORY).free >= ROOM:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(IN_MEMORY)


def _compile_once(config: pytest.Config) -> None:
    """Where Python may not write beside the sources, more than a hundred processes would compile all they import: they share a folder instead."""
    if sys.dont_write_bytecode and (cache := getattr(config, "cache", None)) is not None:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(cache.mkdir("pycache"))
        sys.dont_write_bytecode = False
