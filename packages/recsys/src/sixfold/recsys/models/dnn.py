"""DNN: one multilayer perceptron on the vectors of all fields.

P. Covington, J. Adams, E. Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016;
as a baseline in arXiv:2407.13349
"""

from functools import partial

from jaxtyping import Float
from torch import Tensor

from sixfold.core import System
from sixfold.recsys.layers.baselines import EmbeddedConfig, no_official_weights
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.mlp import MLPConfig, reset_linear
from sixfold.recsys.losses import loss
from sixfold.recsys.models.ranker import Ranker

__all__ = ["DNN", "SYSTEM", "DNNConfig", "loss"]


class DNNConfig(EmbeddedConfig):
    """Sizes of the usual baseline on Frappe.

    Args:
        mlp: Hidden layers.
    """

    mlp: MLPConfig = MLPConfig(dropout=0.2)


class DNN(Ranker):
    """Map a batch of encoded fields to logits (batch, task)."""

    def __init__(self, config: DNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DNNConfig()
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim)
        self.mlp = config.mlp.build(config.width, len(config.labels))
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        return self.mlp(self.embedding(batch).flatten(1))


SYSTEM = System(
    name="dnn",
    paper="arXiv:2407.13349",
    config=DNNConfig,
    build=DNN,
    convert=partial(no_official_weights, "dnn"),
    published={"Frappe, a fifth of it": (DNNConfig(), 417_041)},
    export="sixfold.recsys.layers.exporting:columns_exportable",
    run="sixfold.recsys.own_data:run_dnn",
    train="sixfold.recsys.own_data:train_dnn",
)
