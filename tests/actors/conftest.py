"""The world of the simulations is a module beside the tests; it is loaded only by those who ask for it."""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def company():
    name = "callboard_test_company_world"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("company_world.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look themselves up here
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def quiet():
    """Thousands of crashes on purpose, each logged with its traceback, would cost most of the time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
