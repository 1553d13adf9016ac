"""Training of graph neural networks: ForwardGNN, Mowst, GNNPipe.

Importing this costs no import of torch_geometric, which takes seconds: its parts are imported where
they are first used.
"""

from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.estimator import SYSTEM as FORWARDGNN
from sixfold.graphs.models.forwardgnn.estimator import ForwardGNN
from sixfold.graphs.models.gnnpipe import SYSTEM as GNNPIPE
from sixfold.graphs.models.gnnpipe import GNNPipe, GNNPipeConfig
from sixfold.graphs.models.mowst.config import MowstConfig
from sixfold.graphs.models.mowst.model import SYSTEM as MOWST
from sixfold.graphs.models.mowst.model import Mowst

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
