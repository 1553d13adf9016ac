"""The convolutions that systems are built of, made by name: PyG's own, with its parameter names."""

from collections.abc import Callable
from typing import Literal

from torch import nn

ConvName = Literal["gcn", "sage", "gat"]
MakeConv = Callable[[int, int], nn.Module]  # features in and out to a convolution of PyG


def make_conv(
    name: ConvName, features: int, width: int, *, heads: int = 1, average: bool = False
) -> nn.Module:
    """Make a convolution.

    Args:
        name: Which.
        features: Of its input.
        width: Of its output.
        heads: Of ``gat``, which put out width / heads features each.
        average: The heads of ``gat`` put out width features each, and their mean counts.
    """
    from torch_geometric.nn import GATConv, GCNConv, SAGEConv

    match name:
        case "gcn":
            return GCNConv(features, width)
        case "sage":
            return SAGEConv(features, width)
        case "gat":
            each = width if average else width // heads
            return GATConv(features, each, heads=heads, concat=not average)
