"""What every test runs under: shapes and types checked, one thread, Triton interpreted."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: threads cost more than they give

import jaxtyping
import pytest

if not jaxtyping.config.jaxtyping_disable:
    jaxtyping.install_import_hook(["sixfold.kernels", "sixfold.speech"], "beartype.beartype")


@pytest.fixture
def unchecked():
    """Switch shape checking off: dynamo cannot trace through it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
