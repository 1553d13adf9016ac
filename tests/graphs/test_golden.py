"""Parity with the official implementations, over every golden case found.

``SIXFOLD_GOLDEN`` names the folder. A case is a folder with an ``io.safetensors``, whose tensors
are grouped in parts by the prefixes of their names. ``support/golden_<system>.py`` computes each
part and compares its tensors; an unknown tensor or part is a failure.
"""

import os
from pathlib import Path

import golden_forwardgnn
import golden_gnnpipe
import golden_mowst
import pytest
from safetensors import safe_open

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[2] / "shared" / "golden"))


CHECKS = {"forwardgnn": golden_forwardgnn, "mowst": golden_mowst, "gnnpipe": golden_gnnpipe}


def tensor_names(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in ("io.safetensors", "state_dict.safetensors"):
        with safe_open(folder / file, "pt") as tensors:
            names |= set(tensors.keys())
    return names


def cases() -> list:
    found = []
    for system, module in CHECKS.items():
        for file in sorted((ROOT / system).rglob("io.safetensors")):
            case = "/".join(file.parent.relative_to(ROOT).parts)
            for part in sorted({module.part_of(name) for name in tensor_names(file.parent)}):
                found.append(pytest.param(system, file.parent, part, id=f"{case}/{part}"))
    return found


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no golden cases: {ROOT} does not exist")
def test_the_golden_folder_is_there():
    assert any(ROOT.iterdir()), f"SIXFOLD_GOLDEN names {ROOT}, which is empty"


@pytest.mark.parametrize(("system", "folder", "part"), cases())
def test_golden(system: str, folder: Path, part: str):
    CHECKS[system].check(folder, part)
