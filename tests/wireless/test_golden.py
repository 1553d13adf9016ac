"""Parity with reference values, over every golden case found.

``SIXFOLD_GOLDEN`` names the folder; a case is a folder with an ``io.safetensors``.
``support/golden_<system>.py`` builds each from its config.json and compares all its tensors; an
unknown tensor or kind of case is a failure.
"""

import importlib
import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[2] / "shared" / "golden"))
SYSTEMS = ("icgnn",)


def cases() -> list:
    return [
        pytest.param(system, file.parent, id="/".join(file.parent.relative_to(ROOT).parts))
        for system in SYSTEMS
        for file in sorted((ROOT / system).rglob("io.safetensors"))
    ]


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no golden cases: {ROOT} does not exist")
def test_the_golden_folder_is_there():
    assert any(ROOT.iterdir()), f"SIXFOLD_GOLDEN names {ROOT}, which is empty"


@pytest.mark.parametrize(("system", "folder"), cases())
def test_golden(system: str, folder: Path):
    importlib.import_module(f"golden_{system}").check(folder)
