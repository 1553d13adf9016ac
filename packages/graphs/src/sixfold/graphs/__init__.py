"""Training of graph neural networks.

ForwardGNN: layers trained one by one by forward passes. Mowst: a mixture of a weak and a strong
expert. GNNPipe: deep networks with their layers divided among processes. `convolve` computes PyG's
convolutions on a `Topology`, the edges of a fixed graph, several times as fast.

Importing this package does not import torch_geometric, which takes seconds: that is imported at its
first use.
"""

from sixfold.graphs.layers.message_passing import convolve
from sixfold.graphs.layers.topology import Topology
from sixfold.graphs.models.forwardgnn import SYSTEM as FORWARDGNN
from sixfold.graphs.models.forwardgnn import ForwardGNN, ForwardGNNConfig
from sixfold.graphs.models.gnnpipe import SYSTEM as GNNPIPE
from sixfold.graphs.models.gnnpipe import GNNPipe, GNNPipeConfig
from sixfold.graphs.models.mowst import SYSTEM as MOWST
from sixfold.graphs.models.mowst import Mowst, MowstConfig

SYSTEMS = (FORWARDGNN, MOWST, GNNPIPE)

__all__ = [
    "SYSTEMS",
    "ForwardGNN",
    "ForwardGNNConfig",
    "GNNPipe",
    "GNNPipeConfig",
    "Mowst",
    "MowstConfig",
    "Topology",
    "convolve",
]
