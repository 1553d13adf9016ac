"""What every test runs under: one thread, Triton interpreted, shapes and types checked.

beartype checks shapes and types, of the installed parts of sixfold; without it the tests run
unchecked.
"""

import importlib.util
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: threads cost more than they give

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read where a kernel is defined


def installed(module: str) -> bool:
    """Return whether a module could be imported; the packages around it are imported."""
    return importlib.util.find_spec(module) is not None


CHECKED = [
    "sixfold.kernels",
    "sixfold.speech",
    "sixfold.graphs",
    "sixfold.vision",
    "sixfold.recsys",
    "sixfold.wireless",
    "sixfold.pde",
]

# Core alone does without jaxtyping.
jaxtyping: Any = importlib.import_module("jaxtyping") if installed("jaxtyping") else None

if jaxtyping and installed("beartype") and not jaxtyping.config.jaxtyping_disable:
    jaxtyping.install_import_hook(list(filter(installed, CHECKED)), "beartype.beartype")


def pytest_collection_modifyitems(config, items):
    """Keep tests that share a costly fixture in one process; any process may take the others."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        own = [f for found in fixtures for f in found if f.baseid.startswith("tests")]
        if any(fixture.scope != "function" for fixture in own):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


def pytest_runtest_setup(item):
    """Skip tests of kernels without Triton, or without the NumPy that its interpreter needs."""
    if item.get_closest_marker("interp"):
        for module in ("triton", "numpy"):
            if not installed(module):
                pytest.skip(f"{module} is not installed")


@pytest.fixture
def unchecked():
    """Switch shape checking off: dynamo cannot trace through it."""
    if jaxtyping is None:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
