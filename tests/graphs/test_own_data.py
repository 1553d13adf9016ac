"""A graph of one's own from the command line: weights and predictions, for every system."""

import csv
import subprocess
import sys

import pytest
import torch
from torch_geometric.data import Data

from sixfold.core import UserError, train
from sixfold.core.cli import main
from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.data.files import read_graph_file

FAST = {
    "forwardgnn": {"layers": 2, "hidden": 16, "epochs": 20, "seed": 0},
    "mowst": {"layers": 2, "hidden": 16, "epochs": 4, "patience": 2, "big_patience": 0, "seed": 0},
    "gnnpipe": {"layers": 2, "hidden": 16, "chunks": 2, "epochs": 10, "seed": 0},
}
CLASSES = {"forwardgnn": ForwardGNN, "mowst": Mowst, "gnnpipe": GNNPipe}


@pytest.fixture
def file(graph, tmp_path):
    path = tmp_path / "my.pt"
    torch.save(Data(x=graph.x, edge_index=graph.edge_index, y=graph.y), path)
    return path


def rows(folder):
    with (folder / "predictions.csv").open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize("name", FAST)
def test_the_command_writes_weights_and_predictions(name, file, monkeypatch, capsys):
    out = file.parent / "run"
    words = [f"--{key.replace('_', '-')}={value}" for key, value in FAST[name].items()]
    words = ["train", f"graphs/{name}", "--data", str(file), "--out", str(out), *words]
    monkeypatch.setattr(sys, "argv", ["sixfold", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "drawn with seed 0 from 60 labelled nodes: train_mask 36" in printed
    assert "test accuracy: " in printed
    model = CLASSES[name].from_pretrained(out / "model.safetensors")
    every = torch.ones(60, dtype=torch.bool)
    expected = model.predict(read_graph_file(file, seed=0).data, every)
    found = rows(out)
    assert [int(row["class"]) for row in found] == expected.tolist()
    assert sorted({row["split"] for row in found}) == ["test", "train", "val"]
    assert all(0 < float(row["probability"]) <= 1 for row in found)
    before = (out / "model.safetensors").read_bytes()
    train(f"graphs/{name}", data=file, out=out, config=FAST[name])
    assert (out / "model.safetensors").read_bytes() == before
    assert not (file.parent / "run.old-1").exists()
    train(f"graphs/{name}", data=file, out=out, config=FAST[name] | {"seed": 1})
    assert (file.parent / "run.old-1").is_dir()


def test_numbers_to_predict(graph, tmp_path):
    y = torch.stack([graph.x.sum(1), graph.x[:, 0]], 1)
    torch.save(Data(x=graph.x, edge_index=graph.edge_index, y=y), tmp_path / "my.pt")
    config = FAST["gnnpipe"] | {"target": "regression"}
    train("graphs/gnnpipe", data=tmp_path / "my.pt", out=tmp_path / "run", config=config)
    assert list(rows(tmp_path / "run")[0]) == ["node", "split", "output_0", "output_1"]


def test_links_are_refused(file):
    with pytest.raises(UserError, match="from Python"):
        train("graphs/forwardgnn", data=file, out=file.parent / "run", config={"task": "link"})
    assert not (file.parent / "run").exists()


@pytest.mark.slow
def test_gnnpipe_on_two_processes_writes_what_one_does(file):
    words = [f"--{key.replace('_', '-')}={value}" for key, value in FAST["gnnpipe"].items()]
    found = []
    for processes in (1, 2):
        out = file.parent / f"run-{processes}"
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command = [sys.executable, *launch, "-m", "sixfold.graphs.gnnpipe", str(file)]
        subprocess.run([*command, "--folder", str(out), *words], check=True)
        found.append([row["class"] for row in rows(out)])
    assert found[0] == found[1]
