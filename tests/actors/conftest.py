"""The world of the simulations is a module beside the tests; it is loaded only by those who ask for it."""

import importlib
import logging
from pathlib import Path

import pytest


@pytest.fixture
def company(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("company_world")


@pytest.fixture
def quiet():
    """Thousands of crashes on purpose, each logged with its traceback, would cost most of the time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
