"""Two gloo processes under torchrun train as one does on the same global batches."""

import os
import subprocess
import sys

import numpy as np
import pytest
import sample_tables

from sixfold.recsys import CrossNetV2


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(tmp_path):
    data = sample_tables.write(sample_tables.interactions(600), tmp_path / "t.parquet")
    sample_tables.SCHEMA.write(tmp_path / "schema.yaml")
    options = {"epochs": 2, "batch": 64, "threads": 1, "embedding_l2": 0.01, "stream": True}
    schema = tmp_path / "schema.yaml"
    alone = CrossNetV2.from_schema(schema).fit(data, valid=0.2, **options)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "sixfold.core.cli", "train", "recsys/crossnet_v2", "--data", str(data)]
    command += ["--out", str(tmp_path / "run"), "--valid", "0.2", "--epochs", "2", "--batch", "64"]
    command += ["--threads", "1", "--embedding-l2", "0.01", "--stream"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    together = CrossNetV2.from_pretrained(tmp_path / "run")
    expected, found = (model.predict(data)["click"] for model in (alone, together))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
