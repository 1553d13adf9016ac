"""What an installation says of its kernels, and that the package imports them late."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sixfold.kernels
from sixfold.kernels import _dispatch, status

FOLDER = Path(status.__file__).parent


def test_every_operator_with_kernels_is_named():
    text = "".join(file.read_text(encoding="utf-8") for file in FOLDER.glob("*.py"))
    assert set(status.FUSED) == set(re.findall(r"use_fused\(\"(\w+)\"", text))


def test_the_reason_is_the_first_that_holds(monkeypatch):
    monkeypatch.setattr(_dispatch, "triton", None)
    assert status.reference_reason() == "triton is not installed"
    monkeypatch.setenv("SIXFOLD_KERNELS", "reference")
    assert status.reference_reason() == "SIXFOLD_KERNELS=reference is set"


@pytest.mark.parametrize("cuda", [False, True])
def test_kernels_run_where_there_is_cuda(cuda, monkeypatch):
    monkeypatch.delenv("SIXFOLD_KERNELS", raising=False)
    monkeypatch.setattr(_dispatch, "triton", object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    assert status.reference_reason() == (None if cuda else "there is no CUDA device")


def test_a_type_checker_sees_the_operators_that_python_finds():
    tree = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: (node.module or "").rpartition(".")[2]
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == sixfold.kernels._HOME
    assert sorted(seen) == sorted(sixfold.kernels.__all__)
    assert set(seen) <= set(dir(sixfold.kernels))


def test_every_operator_is_found():
    for name in sixfold.kernels.__all__:
        assert getattr(sixfold.kernels, name).__name__ == name
    with pytest.raises(AttributeError, match=r"'sixfold\.kernels' has no attribute 'dwconv3d'"):
        sixfold.kernels.dwconv3d  # pyright: ignore # noqa: B018


def in_a_fresh_process(statement: str) -> str:
    """Run Python; return what it printed as errors and warnings."""
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_importing_the_package_imports_no_torch_and_says_nothing():
    said = in_a_fresh_process("import sys, sixfold.kernels; assert 'torch' not in sys.modules")
    assert not said  # PyTorch itself warns where NumPy is missing


def test_an_operator_hides_its_file_whichever_is_imported_first():
    in_a_fresh_process(
        "import sixfold.kernels.dwconv1d as operator\n"
        "from sixfold.kernels import complex_linear, dwconv1d\n"
        "from sixfold.kernels.dwconv1d import dwconv1d_reference\n"
        "assert operator is dwconv1d and operator.__name__ == 'dwconv1d'\n"
        "assert callable(complex_linear) and callable(dwconv1d_reference)"
    )


def test_a_compiler_traces_the_first_use():
    in_a_fresh_process(
        "import torch, sixfold.kernels as kernels\n"
        "x, weight = torch.ones(1, 9, 2, 4), torch.ones(4, 1, 3)\n"
        "filtered = torch.compile(lambda x: kernels.dwconv1d(x, weight), fullgraph=True,\n"
        "    backend='eager')(x)\n"
        "assert torch.equal(filtered, kernels.dwconv1d(x, weight))"
    )
