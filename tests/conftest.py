"""What every test runs under: shapes and types checked, one thread, Triton interpreted."""

import importlib.util
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: threads cost more than they give

import jaxtyping
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read where a kernel is defined

if not jaxtyping.config.jaxtyping_disable:
    jaxtyping.install_import_hook(
        ["sixfold.kernels", "sixfold.speech", "sixfold.graphs"], "beartype.beartype"
    )


def pytest_runtest_setup(item):
    """Kernels run compiled on a GPU, interpreted without one, and not at all without Triton."""
    if item.get_closest_marker("interp") and not importlib.util.find_spec("triton"):
        pytest.skip("triton is not installed")


@pytest.fixture
def unchecked():
    """Switch shape checking off: dynamo cannot trace through it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
