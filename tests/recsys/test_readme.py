"""What the package's README shows runs as it stands, on a small table."""

import re
from pathlib import Path

import pytest
import sample_tables
import yaml

from sixfold.recsys.tables.schema import Schema

README = Path(__file__).resolve().parents[2] / "packages/recsys/README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = ["user", "item", "price", "genres", "click"]
    for name, seed in (("train.csv", 0), ("test.parquet", 1)):
        sample_tables.write(sample_tables.interactions(500, seed)[columns], tmp_path / name)
    return tmp_path


def test_a_model_is_trained_loaded_and_asked(folder, capsys):
    assert len(BLOCKS) == 2
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, README, "exec"), names)
    assert "click: gauc" in capsys.readouterr().out
    found = names["model"].score_rows([{"user": 1, "item": 2, "price": 3, "genres": "war"}])
    assert 0 < found[0]["click"] < 1


def test_the_schema_is_one():
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    schema = Schema.parse(yaml.safe_load(text), "the README")
    assert [c.kind for c in schema.columns.values()].count("sequence") == 1
