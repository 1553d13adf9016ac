"""Small graphs for the tests of this folder."""

from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from sixfold.graphs.data.synthetic import block_model


@pytest.fixture
def graph() -> Any:
    """Sixty nodes of three classes, most edges within a class, weak features."""
    torch.manual_seed(0)
    return block_model(
        nodes=60, classes=3, features=8, degree=6.0, homophily=0.9, signal=1.0, seed=1
    )


@pytest.fixture
def broken_up(graph: Any) -> Any:
    """The graph in two components, and five isolated nodes."""
    half = graph.edge_index < 30
    kept = (half[0] == half[1]) & (graph.edge_index >= 5).all(0)
    return Data(**{**graph.to_dict(), "edge_index": graph.edge_index[:, kept]})
