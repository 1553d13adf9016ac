"""Without the extras of core, the tests of what the extras bring skip and say so."""

from importlib.util import find_spec
from pathlib import Path

import pytest

TRAIN = {"lightning_fabric": "train"}
PIPELINE = dict.fromkeys(["cyclopts", "jinja2", "matplotlib", "pooch", "rich", "scipy"], "pipeline")
NEEDS = {
    "data": PIPELINE,
    "pipeline": PIPELINE | TRAIN,
    "test_doctor.py": PIPELINE | TRAIN,
    "test_published.py": PIPELINE,
    "training": PIPELINE | TRAIN,
}


def pytest_runtest_setup(item):
    parts = item.path.relative_to(Path(__file__).parent).parts  # folder, file
    needs = NEEDS.get(parts[0], {}) | NEEDS.get(parts[-1], {})
    for package, extra in needs.items():
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it comes with sixfold-core[{extra}]")
