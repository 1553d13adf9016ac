"""The front page says what the committed results say."""

from pathlib import Path

import pytest

from sixfold.core.pipeline.page import markdown_table
from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import claims_table
from sixfold.core.system import domains

ROOT = Path(__file__).resolve().parents[1]
PIPELINES = sorted(path.parent.name for path in ROOT.glob("pipelines/*/params.yaml"))


@pytest.mark.skipif(
    not {name.removesuffix("-paper") for name in PIPELINES} <= domains().keys(),
    reason="not every domain is installed",
)
def test_the_table_of_claims_is_that_of_the_committed_results(monkeypatch):
    monkeypatch.chdir(ROOT)
    table = claims_table([Pipeline.find(name) for name in PIPELINES])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- claims -->\n")[2].partition("\n<!-- /claims -->")[0]
    assert shown == markdown_table(table.rows, table.columns), "sixfold claims --write README.md"
