"""A convolution of PyG as a layer of GNNPipe."""

from torch import nn
from torch_geometric.nn import GCNConv


class WrappedGCN(nn.Module):
    """A convolution of PyG as a layer: its map before the aggregation, its bias after it."""

    matrix = "gcn"

    def __init__(self, conv: GCNConv, last: bool) -> None:
        super().__init__()
        self.conv, self.last = conv, last

    def pre(self, state):
        return self.conv.lin(state[0]), ()

    def post(self, aggregated, kept):
        out = aggregated + self.conv.bias
        return (out if self.last else out.relu(),)
