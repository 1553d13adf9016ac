"""Importing the package is cheap, and systems do not depend on each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sixfold.speech
from sixfold.speech import models

SLOW = ("librosa", "pesq", "pyroomacoustics", "pystoi", "scipy", "soundfile", "torchaudio")
MODELS = Path(models.__file__).parent


def test_importing_the_package_loads_no_slow_library():
    code = f"import sys, sixfold.speech; print([m for m in {SLOW} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert loaded.stdout.strip() == b"[]"


def test_every_public_name_exists():
    assert all(hasattr(sixfold.speech, name) for name in sixfold.speech.__all__)


@pytest.mark.parametrize("system", sorted(p.stem for p in MODELS.iterdir() if p.stem[0] != "_"))
def test_no_system_imports_another(system):
    folder = MODELS / system
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(models.__name__):
                assert f"{node.module}.".startswith(f"{models.__name__}.{system}."), file
