"""Training of graph neural networks: ForwardGNN, Mowst, GNNPipe.

Importing this costs no import of torch_geometric, which takes seconds: its parts are imported where
they are first used.
"""

from sixfold.graphs.forward_config import ForwardGNNConfig
from sixfold.graphs.forwardgnn import SYSTEM as FORWARDGNN
from sixfold.graphs.forwardgnn import ForwardGNN
from sixfold.graphs.gnnpipe import SYSTEM as GNNPIPE
from sixfold.graphs.gnnpipe import GNNPipe, GNNPipeConfig
from sixfold.graphs.mowst import SYSTEM as MOWST
from sixfold.graphs.mowst import Mowst
from sixfold.graphs.mowst_config import MowstConfig

SYSTEMS = (FORWARDGNN, MOWST, GNNPIPE)

__all__ = [
    "SYSTEMS",
    "ForwardGNN",
    "ForwardGNNConfig",
    "GNNPipe",
    "GNNPipeConfig",
    "Mowst",
    "MowstConfig",
]
