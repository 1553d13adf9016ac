"""A pipeline whose every stage ran."""

from pathlib import Path

import pytest

from sixfold.core.pipeline import stages
from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import write_report


def finished_pipeline(root: Path, name: str, params: str) -> Pipeline:
    """Run every stage of every task of some params.yaml in an empty repository."""
    folder = root / "pipelines" / name
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        pipeline = Pipeline.find(name)
        for task in pipeline.tasks.values():
            stages.prepare(task)
            stages.train(task, workers=1)
            stages.evaluate(task, workers=1)
        write_report(pipeline)
    return pipeline
