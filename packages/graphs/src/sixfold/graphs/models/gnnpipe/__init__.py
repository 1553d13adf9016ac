"""GNNPipe: full-graph training of deep GNNs, with the layers divided among processes.

J. Chen, Z. Chen, X. Qian, "GNNPipe: Scaling Deep GNN Training with Pipelined Model Parallelism".
arXiv:2308.10087

The graph is partitioned into chunks, which go through the stages one after the other. A chunk's
neighbours in later chunks are represented by stale embeddings, those of an older epoch. Between
stages a chunk's hidden values are sent once, however many layers there are; if the graph itself is
divided (graph parallelism), rows of neighbours are sent at every layer.

Part of the paper -> file:

    a stage, chunk after chunk forward and backward  -> stage.py
    chunks of the graph                              -> partition.py
    techniques 2 and 3: stale embeddings, gradients  -> stale_embeddings.py
    technique 1, shuffled chunks; the optimiser      -> training.py
    GCN, GraphSAGE, GCNII, ResGCN+                   -> layers.py
    hybrid parallelism: ways times stages            -> process_grid.py, adjacency.py
    messages, and the bytes of an epoch by formula   -> transport.py, traffic.py

`estimator` is what users call, with settings in `config`; `__main__` is its command line. The names
beyond those of every system belong to the invention: how a graph and a model are divided among
processes (`partition`, `process_grid`, `stage`, `adjacency`, `stale_embeddings`), and what these
send each other (`transport`, `traffic`). On several processes:

    torchrun --nproc-per-node 2 -m sixfold.graphs.models.gnnpipe cora --layers 8 --chunks 8

Departs from the paper: where pymetis is not installed, a built-in greedy partitioner replaces
METIS; `fit` prints which one was used.
"""

from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.estimator import SYSTEM, GNNPipe
from sixfold.graphs.models.gnnpipe.layers import Layer
from sixfold.graphs.models.gnnpipe.traffic import expected_traffic
from sixfold.graphs.models.gnnpipe.transport import RankFailedError

__all__ = ["SYSTEM", "GNNPipe", "GNNPipeConfig", "Layer", "RankFailedError", "expected_traffic"]
