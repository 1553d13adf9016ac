"""Same seed, same bytes: prepared data, weights, results and report, whatever the surroundings."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from toy_pipelines import PARAMS, SIXFOLD, make, outcome, prepared

pytestmark = pytest.mark.slow

DOMAINS = sorted(file.stem for file in PARAMS.glob("*.yaml"))
SURROUNDINGS = {
    "another hash seed": {"PYTHONHASHSEED": "7"},
    "two threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "another language": {"LC_ALL": "C", "LANG": "C", "TZ": "Asia/Tokyo"},
}


def run(root: Path, *words: str, **env: str) -> None:
    said = subprocess.run(
        [SIXFOLD, *words],
        cwd=root,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr


def tree(*folders: Path) -> dict[str, str]:
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(f.parts[-4:]): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("domain", DOMAINS)
def test_surroundings_change_nothing(tmp_path, domain):
    right = prepared(tmp_path / "right", domain)
    run(right, "train", domain, PYTHONHASHSEED="1")
    weights = outcome(right, domain)
    assert weights
    for name, env in SURROUNDINGS.items():
        root = make(tmp_path / name, domain)
        run(root, "prepare", domain, **env)
        assert tree(root / "data") == tree(right / "data"), name
        run(root, "train", domain, **env)
        assert outcome(root, domain) == weights, name
    print(f"{domain}: {len(weights)} files in {len(SURROUNDINGS)} surroundings")


def test_scores_and_report_are_the_same(tmp_path):
    root = prepared(tmp_path / "pipeline", "wireless")
    folder = root / "pipelines" / "wireless"
    found = []
    for seed, zone in (("1", "UTC"), ("9", "Asia/Tokyo")):
        env = {"PYTHONHASHSEED": seed, "TZ": zone}
        for verb in ("train", "evaluate", "report"):
            run(root, verb, "wireless", **env)
        found.append(tree(folder / "results", folder / "samples", root / "reports"))
    assert found[0] == found[1]
    print(f"{len(found[0])} files of scores, samples and report")
