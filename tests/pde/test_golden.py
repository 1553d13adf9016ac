"""Parity with the official implementations, over every golden case found.

``SIXFOLD_GOLDEN`` names the folder; a case is a folder with an ``io.safetensors``. A module
``support/golden_<kind>.py`` builds each from its files alone and compares all its tensors; an
unknown tensor or kind of case is a failure.
"""

import importlib
import json
import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[2] / "shared" / "golden"))
# The module of a case: that of the first entry whose words are in its settings, of its system.
KINDS = {
    "lesnets": (("turb_stats", "golden_physics"), ("", "golden_lesnets")),
}


def cases() -> list:
    return [
        pytest.param(system, file.parent, id="/".join(file.parent.relative_to(ROOT).parts))
        for system in KINDS
        for file in sorted((ROOT / system).rglob("io.safetensors"))
    ]


def module_of(system: str, folder: Path) -> str:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return next(module for key, module in KINDS[system] if not key or key in settings)


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no golden cases: {ROOT} does not exist")
def test_the_golden_folder_is_there():
    assert any(ROOT.iterdir()), f"SIXFOLD_GOLDEN names {ROOT}, which is empty"


@pytest.mark.parametrize(("system", "folder"), cases())
def test_golden(system: str, folder: Path):
    importlib.import_module(module_of(system, folder)).check(folder)
