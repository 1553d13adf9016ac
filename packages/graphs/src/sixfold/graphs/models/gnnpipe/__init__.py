"""GNNPipe: full-graph training of deep GNNs, with the layers divided among processes.

J. Chen, Z. Chen, X. Qian, "GNNPipe: Scaling Deep GNN Training with Pipelined Model Parallelism".
arXiv:2308.10087

The graph is cut into chunks, which go through the stages one after the other. A chunk's neighbours
in chunks that are still to come are represented by embeddings of an older epoch. What travels
between stages is a chunk's hidden values, once, however many layers there are; if the graph itself
is divided (graph parallelism), neighbours' rows travel at every layer.

Top-down: `estimator` is what users call, `pipeline` is an epoch, `history` the aggregation with old
embeddings, `layers` the models and what a model of your own needs. On several processes:

    torchrun --nproc-per-node 2 -m sixfold.graphs.models.gnnpipe cora --layers 8 --chunks 8
"""

from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.estimator import SYSTEM, GNNPipe
from sixfold.graphs.models.gnnpipe.layers import Layer
from sixfold.graphs.models.gnnpipe.traffic import expected_traffic
from sixfold.graphs.models.gnnpipe.transport import RankFailedError

__all__ = ["SYSTEM", "GNNPipe", "GNNPipeConfig", "Layer", "RankFailedError", "expected_traffic"]
