"""FM: factorisation machine, products of all pairs of fields.

S. Rendle, "Factorization Machines", ICDM 2010; as a baseline in arXiv:2407.13349

logit = bias + sum of the ids' weights + sum over pairs of fields of the product of their vectors,
which is half of |sum of vectors|^2 - sum of |vector|^2.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core import System
from sixfold.recsys.layers.baselines import EmbeddedConfig, no_official_weights
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.losses import loss
from sixfold.recsys.models.ranker import Ranker

__all__ = ["FM", "SYSTEM", "FMConfig", "loss"]


class FMConfig(EmbeddedConfig):
    """Fields, tasks, and the width of the vectors of each task; see `EmbeddedConfig`."""


class FM(Ranker):
    """Map a batch of encoded fields to logits (batch, task), each task with its own vectors."""

    def __init__(self, config: FMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FMConfig()
        tasks = len(config.labels)
        self.weights = FieldEmbedding(config.fields, tasks)
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim * tasks)
        self.bias = nn.Parameter(torch.zeros(tasks))

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        vectors = self.embedding(batch).unflatten(2, (len(self.config.labels), -1))
        pairs = (vectors.sum(1).square() - vectors.square().sum(1)).sum(2) / 2
        return pairs + self.weights(batch).sum(1) + self.bias


SYSTEM = System(
    name="fm",
    paper="arXiv:2407.13349",
    config=FMConfig,
    build=FM,
    convert=partial(no_official_weights, "fm"),
    published={"Frappe, a fifth of it": (FMConfig(), 5_304 * 11 + 1)},
    export="sixfold.recsys.layers.exporting:columns_exportable",
    run="sixfold.recsys.own_data:run_fm",
    train="sixfold.recsys.own_data:train_fm",
)
