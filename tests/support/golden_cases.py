"""Golden cases: folders of a configuration, official weights, inputs and outputs.

``SIXFOLD_GOLDEN`` names their folder; a case is a folder with an ``io.safetensors``.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(
    os.environ.get("SIXFOLD_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden")
)


def golden_cases(systems: Sequence[str]) -> list[Any]:
    """Return a parameter (system, folder) for each case of some systems.

    Raises:
        FileNotFoundError: the folder of cases is empty.
    """
    if ROOT.is_dir() and not any(ROOT.iterdir()):
        raise FileNotFoundError(f"SIXFOLD_GOLDEN names {ROOT}, which is empty")
    return [
        pytest.param(system, file.parent, id="/".join(file.parent.relative_to(ROOT).parts))
        for system in systems
        for file in sorted((ROOT / system).rglob("io.safetensors"))
    ]
