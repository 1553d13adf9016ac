"""Parity with the official implementations, over every golden case found.

``support/golden_<system>.py`` builds each from its config.json and compares all its tensors; an
unknown tensor or kind of case is a failure.
"""

import importlib
from pathlib import Path

import pytest
from golden_cases import golden_cases

SYSTEMS = ("cmusenet", "adafortitran", "icgnn")


@pytest.mark.parametrize(("system", "folder"), golden_cases(SYSTEMS))
def test_golden(system: str, folder: Path):
    importlib.import_module(f"golden_{system}").check(folder)
