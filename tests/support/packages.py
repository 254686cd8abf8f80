"""Packages that only comparisons need: skipped without them, except in CI, where everything has to be there."""

import importlib.util
import os

import pytest

PARITY = "pip install -r requirements/parity.in"


def demand(name: str, install: str = PARITY) -> None:
    """Skip where a package is missing; fail instead where the variable CI says that nothing may be left out."""
    if importlib.util.find_spec(name) is None:
        report = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        report(f"{name} is not installed; to run this comparison: {install}")
