"""What the package's README shows runs as it stands, on a small graph."""

import re
from pathlib import Path

import torch
from torch_geometric.data import Data

from sixfold.graphs.data import load

README = Path(__file__).resolve().parents[2] / "packages/graphs/README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_code_runs(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "load_graph", lambda name, split: graph)
    monkeypatch.chdir(tmp_path)
    torch.save(Data(x=graph.x, edge_index=graph.edge_index, y=graph.y), "my.pt")
    names: dict = {}
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        exec(compile(block, README, "exec"), names)
    assert (tmp_path / "runs/mine/predictions.csv").is_file()
    expected = names["conv"](graph.x, graph.edge_index).relu()
    assert torch.allclose(names["hidden"], expected, atol=1e-6)
