"""Parity with the official implementations, over every golden case found.

``support/golden_<kind>.py`` builds each from its config.json and compares all its tensors; an
unknown tensor or kind of case is a failure.
"""

import importlib
import json
from pathlib import Path

import pytest
from golden_cases import golden_cases

# The module of a case: that of the first entry whose key is in its settings, of its system.
KINDS = {
    "sinenet": (("phiflow", "golden_ins_generator"), ("", "golden_sinenet")),
    "lesnets": (("turb_stats", "golden_physics"), ("", "golden_lesnets")),
}


@pytest.mark.parametrize(("system", "folder"), golden_cases(tuple(KINDS)))
def test_golden(system: str, folder: Path):
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    module = next(module for key, module in KINDS[system] if not key or key in settings)
    importlib.import_module(module).check(folder)
