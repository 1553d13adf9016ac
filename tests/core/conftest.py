"""A toy domain and its pipeline, installed for one test; and tests of extras that are missing.

Without the extras of core, the tests of what the extras bring skip and say so.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import pytest

from sixfold.core import system
from sixfold.core.pipeline import code

TRAIN = {"lightning_fabric": "train"}
PIPELINE = dict.fromkeys(["cyclopts", "jinja2", "matplotlib", "pooch", "rich", "scipy"], "pipeline")
NEEDS = {
    "data": PIPELINE,
    "pipeline": PIPELINE | TRAIN,
    "test_cli.py": PIPELINE,
    "test_doctor.py": PIPELINE | TRAIN,
    "test_own_data.py": PIPELINE | TRAIN,
    "test_published.py": PIPELINE,
    "training": PIPELINE | TRAIN,
}


def pytest_runtest_setup(item):
    parts = item.path.relative_to(Path(__file__).parent).parts  # folder, file
    needs = NEEDS.get(parts[0], {}) | NEEDS.get(parts[-1], {})
    for package, extra in needs.items():
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it comes with sixfold-core[{extra}]")


DOMAIN = Path(__file__).parent / "support" / "toy_domain"
PARAMS = """
source: auto
budget: 0.5
seeds: [0, 1]
tasks:
  fitting:
    data: {points: 32}
    defaults: {system: line, train: {steps: 8, batch: 4, learning_rate: 1.0e-2, log_every: 2}}
    systems:
      line: {model: {width: 2}}
"""


@pytest.fixture
def toy(monkeypatch, tmp_path: Path) -> Iterator[Path]:
    """Install the domain `toy`; stand in a repository that holds its pipeline."""
    monkeypatch.syspath_prepend(str(DOMAIN))
    points = (EntryPoint("toy", "sixfold.toy", "sixfold.domains"),)
    monkeypatch.setattr(system, "_points", lambda: points)
    # autograd, which other tests used in this process, does not survive a fork
    monkeypatch.setattr("sixfold.core.pipeline.stages.max_workers", lambda *_: 1)
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SIXFOLD_MIRROR", raising=False)
    folder = tmp_path / "pipelines" / "toy"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("sixfold.toy")]:
        del sys.modules[name]
    for cached in (code._followed, code._path, code._tree, code._file_imports, code._without_docs):
        cached.cache_clear()
