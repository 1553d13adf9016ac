"""Convolutions by name: PyG's own, with PyG's parameter names."""

from collections.abc import Callable
from typing import Literal

from torch import nn

ConvName = Literal["gcn", "sage", "gat"]
MakeConv = Callable[[int, int], nn.Module]  # input and output features to a convolution of PyG


def make_conv(
    name: ConvName,
    features: int,
    width: int,
    *,
    heads: int = 1,
    average: bool = False,
    edge_dim: int = 0,
) -> nn.Module:
    """Make a convolution.

    Args:
        name: Kind of convolution.
        features: Number of input features.
        width: Number of output features.
        heads: Number of attention heads (GAT only), with width / heads features each.
        average: Whether GAT has heads with ``width`` features each and returns their mean.
        edge_dim: Number of attributes of each edge that attention reads (GAT only).
    """
    from torch_geometric.nn import GATConv, GCNConv, SAGEConv

    match name:
        case "gcn":
            return GCNConv(features, width)
        case "sage":
            return SAGEConv(features, width)
        case "gat":
            each = width if average else width // heads
            attributes = edge_dim or None
            return GATConv(features, each, heads=heads, concat=not average, edge_dim=attributes)
