"""Same seed, same bytes: prepared data, weights, results and report, whatever the surroundings."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from toy_pipelines import PARAMS, SIXFOLD, make, outcome, prepared

pytestmark = pytest.mark.slow

DOMAINS = sorted(file.stem for file in PARAMS.glob("*.yaml"))
# Another hash seed, another number of threads, another language and time zone.
ELSEWHERE = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
ELSEWHERE |= {"PYTHONHASHSEED": "7", "LC_ALL": "C", "LANG": "C", "TZ": "Asia/Tokyo"}


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
    here, there = prepared(tmp_path / "here", domain), make(tmp_path / "there", domain)
    run(there, "prepare", domain, **ELSEWHERE)
    assert tree(there / "data") == tree(here / "data")
    run(here, "train", domain, PYTHONHASHSEED="1")
    run(there, "train", domain, **ELSEWHERE)
    weights = outcome(here, domain)
    assert weights
    assert outcome(there, domain) == weights
    print(f"{domain}: {len(weights)} files are the same elsewhere")


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
