"""DCNv2: a cross network and a multilayer perceptron side by side.

R. Wang, R. Shivanna, D. Cheng, S. Jain, D. Lin, L. Hong, E. Chi, "DCN V2: Improved Deep & Cross
Network and Practical Lessons for Web-scale Learning to Rank Systems", WWW 2021. arXiv:2008.13535

The parallel form, with full-rank weights.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core import System
from sixfold.core.config import Depth
from sixfold.recsys.layers.baselines import EmbeddedConfig, no_official_weights
from sixfold.recsys.layers.crossing import CrossLayersV2
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.mlp import MLPConfig, reset_linear
from sixfold.recsys.losses import loss
from sixfold.recsys.models.ranker import Ranker

__all__ = ["SYSTEM", "DCNv2", "DCNv2Config", "loss"]


class DCNv2Config(EmbeddedConfig):
    """Sizes of the usual baseline on Frappe.

    Args:
        layers: Number of cross layers.
        mlp: Hidden layers of the perceptron.
    """

    layers: Depth = 3
    mlp: MLPConfig = MLPConfig(dropout=0.2)


class DCNv2(Ranker):
    """Map a batch of encoded fields to logits (batch, task)."""

    def __init__(self, config: DCNv2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or DCNv2Config()
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim)
        self.cross = CrossLayersV2(config.width, config.layers)
        self.mlp = config.mlp.build(config.width)
        self.head = nn.Linear(config.width + self.mlp.width, len(config.labels))
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        x = self.embedding(batch).flatten(1)
        return self.head(torch.cat([self.cross(x), self.mlp(x)], 1))


SYSTEM = System(
    name="dcnv2",
    paper="arXiv:2008.13535",
    config=DCNv2Config,
    build=DCNv2,
    convert=partial(no_official_weights, "dcnv2"),
    published={"Frappe, a fifth of it": (DCNv2Config(), 5_304 * 10 + 3 * 10_100 + 363_600 + 501)},
    export="sixfold.recsys.layers.exporting:columns_exportable",
    run="sixfold.recsys.own_data:run_dcnv2",
    train="sixfold.recsys.own_data:train_dcnv2",
)
