"""The toy pipelines that the fault suite trains: every task, with parameters that are valid."""

import pytest
import yaml
from toy_pipelines import PARAMS, PIPELINES, check, make

DOMAINS = sorted(file.stem for file in PARAMS.glob("*.yaml"))


@pytest.mark.parametrize("domain", DOMAINS)
def test_toys_of_every_task_are_valid(tmp_path, monkeypatch, domain):
    pytest.importorskip(f"sixfold.{domain}")
    monkeypatch.chdir(make(tmp_path / "repository", domain))
    real = yaml.safe_load((PIPELINES / domain / "params.yaml").read_text())
    assert check(domain) == set(real["tasks"])
