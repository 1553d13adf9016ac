"""The example of TorchRec: two processes that share a table train the model of one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import sample_tables
import torch

from sixfold.recsys import FinalMLP
from sixfold.recsys.tables.schema import Column, Schema

EXAMPLE = Path(__file__).resolve().parents[2] / "packages/recsys/examples/sharded_finalmlp.py"
COLUMNS = ["user", "item", "city"]


def train(processes: int, schema: Path, table: Path, folder: Path) -> FinalMLP:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", *map(str, (EXAMPLE, schema, table, folder))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return FinalMLP.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchrec") is None, reason="TorchRec is not installed")
def test_two_processes_that_share_a_table_train_the_model_of_one(tmp_path):
    rows = sample_tables.interactions(2000).select(*COLUMNS, "click")
    table, schema = tmp_path / "t.parquet", tmp_path / "schema.yaml"
    sample_tables.write(rows, table)
    Schema(labels=("click",), columns={name: Column() for name in COLUMNS}).write(schema)
    one, two = (train(count, schema, table, tmp_path / str(count)) for count in (1, 2))
    torch.testing.assert_close(two.embedding.table, one.embedding.table, rtol=0, atol=1e-5)
    expected, found = (model.predict(table)["click"] for model in (one, two))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert one.score(table).labels["click"].values["auc"] > 0.6
