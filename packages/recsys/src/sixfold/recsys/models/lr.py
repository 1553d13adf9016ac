"""LR: logistic regression on ids, the simplest baseline of click-through rates.

M. Richardson, E. Dominowska, R. Ragno, "Predicting Clicks: Estimating the Click-Through Rate for
New Ads", WWW 2007; as a baseline in arXiv:2407.13349

logit = bias + sum over fields of the id's weight (of a number: weight times value).
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core import System
from sixfold.recsys.layers.baselines import BaselineConfig, no_official_weights
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.losses import loss
from sixfold.recsys.models.ranker import Ranker


class LRConfig(BaselineConfig):
    """Fields and tasks; see `BaselineConfig`."""


class LR(Ranker):
    """Map a batch of encoded fields to logits (batch, task), linear in the ids."""

    def __init__(self, config: LRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LRConfig()
        self.weights = FieldEmbedding(config.fields, len(config.labels))
        self.bias = nn.Parameter(torch.zeros(len(config.labels)))

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        return self.weights(batch).sum(1) + self.bias


__all__ = ["LR", "SYSTEM", "LRConfig", "loss"]

SYSTEM = System(
    name="lr",
    paper="arXiv:2407.13349",
    config=LRConfig,
    build=LR,
    convert=partial(no_official_weights, "lr"),
    published={"Frappe, a fifth of it": (LRConfig(), 5_304 + 1)},
    export="sixfold.recsys.layers.exporting:columns_exportable",
    run="sixfold.recsys.own_data:run_lr",
    train="sixfold.recsys.own_data:train_lr",
)
