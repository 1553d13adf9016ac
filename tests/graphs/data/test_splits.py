"""Splits equal the published ones, cover all nodes, and are disjoint."""

import os
from pathlib import Path

import pytest
import torch

from sixfold.core import UserError
from sixfold.graphs.data.splits import SPLITS, forwardgnn_split, linkx_split, split_links

MIRROR = os.environ.get("SIXFOLD_MIRROR") or str(Path(__file__).parents[4] / "shared" / "data")
OFFICIAL = Path(MIRROR.split(os.pathsep)[0]) / "forwardgnn_splits"
NODES = {
    "CitationFull-Cora_ML": 2995,
    "CitationFull-CiteSeer": 4230,
    "CitationFull-PubMed": 19717,
    "Amazon-Photo": 7650,
    "GitHub": 37700,
}


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"no official splits: no folder {OFFICIAL}")
@pytest.mark.parametrize("split", range(SPLITS))
@pytest.mark.parametrize("graph", NODES)
def test_the_rule_reproduces_the_published_splits(graph, split):
    folder = OFFICIAL / graph / "node-5splits"
    masks = forwardgnn_split(NODES[graph], split)
    for name in ("train", "val", "test"):
        nodes = torch.load(folder / f"{name}-node-index-split{split}.pt", weights_only=True).long()
        assert torch.equal(nodes.sort()[0], masks[f"{name}_mask"].nonzero()[:, 0])


@pytest.mark.parametrize("nodes", [25, 60, 1001])
def test_a_split_of_forwardgnn_covers_every_node_once(nodes):
    tested = torch.zeros(nodes, dtype=torch.long)
    for split in range(SPLITS):
        masks = forwardgnn_split(nodes, split)
        assert torch.equal(torch.stack([*masks.values()]).sum(0), torch.ones(nodes).long())
        assert int(masks["train_mask"].sum()) == pytest.approx(0.64 * nodes, abs=2)
        tested += masks["test_mask"]
    assert torch.equal(tested, torch.ones(nodes).long())


def test_a_split_of_linkx_leaves_out_nodes_without_a_label():
    y = torch.tensor([-1, 0, 1, 1] * 100)
    masks = linkx_split(y, 0)
    assert torch.equal(torch.stack([*masks.values()]).sum(0), (y >= 0).long())
    assert [int(masks[f"{name}_mask"].sum()) for name in ("train", "val", "test")] == [150, 75, 75]
    again, other = linkx_split(y, 0), linkx_split(y, 1)
    assert torch.equal(again["train_mask"], masks["train_mask"])
    assert not torch.equal(other["train_mask"], masks["train_mask"])


def test_links_of_validation_and_test_are_not_in_the_training_graph(graph):
    parts = split_links(graph, 0)
    test = parts[2]
    pairs = [set(map(tuple, part.edge_label_index.T.tolist())) for part in parts]
    edges = {tuple(sorted(pair)) for pair in graph.edge_index.T.tolist()}
    known = {tuple(sorted(pair)) for pair in test.edge_index.T.tolist()}
    positive = test.edge_label_index[:, test.edge_label == 1].T.tolist()
    assert all(pairs)
    assert all(
        tuple(sorted(pair)) in edges and tuple(sorted(pair)) not in known for pair in positive
    )
    negative = test.edge_label_index[:, test.edge_label == 0].T.tolist()
    assert all(tuple(sorted(pair)) not in edges for pair in negative)
    assert len(positive) == len(negative) == int(0.2 * len(edges))


def test_splitting_links_does_not_change_the_generators(graph):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = split_links(graph, 2)[0]
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(split_links(graph, 2)[0].edge_label_index, first.edge_label_index)


def test_there_is_no_sixth_split():
    with pytest.raises(UserError, match="splits 0 to 4, not 5"):
        forwardgnn_split(60, 5)
