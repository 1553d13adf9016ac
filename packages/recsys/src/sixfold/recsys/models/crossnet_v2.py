"""CrossNetV2: the cross network of DCNv2 alone; what FCN's linear network departs from.

R. Wang, R. Shivanna, D. Cheng, S. Jain, D. Lin, L. Hong, E. Chi, "DCN V2: Improved Deep & Cross
Network and Practical Lessons for Web-scale Learning to Rank Systems", WWW 2021. arXiv:2008.13535

``batch_norm`` is not of the paper: FCN's networks have it, so that it is the control that tells
what their layers are worth.
"""

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core import System
from sixfold.core.config import Depth
from sixfold.recsys.layers.baselines import EmbeddedConfig, no_official_weights
from sixfold.recsys.layers.crossing import CrossLayersV2
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.mlp import reset_linear
from sixfold.recsys.losses import loss
from sixfold.recsys.models.ranker import Ranker

__all__ = ["SYSTEM", "CrossNetV2", "CrossNetV2Config", "loss"]


class CrossNetV2Config(EmbeddedConfig):
    """Sizes as FCN's on Frappe.

    Args:
        layers: Number of cross layers.
        batch_norm: Whether each layer's product is normalised, as in FCN.
    """

    layers: Depth = 3
    batch_norm: bool = False


class CrossNetV2(Ranker):
    """Map a batch of encoded fields to logits (batch, task)."""

    def __init__(self, config: CrossNetV2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or CrossNetV2Config()
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim)
        self.cross = CrossLayersV2(config.width, config.layers, config.batch_norm)
        self.head = nn.Linear(config.width, len(config.labels))
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        return self.head(self.cross(self.embedding(batch).flatten(1)))


SYSTEM = System(
    name="crossnet_v2",
    paper="arXiv:2008.13535",
    config=CrossNetV2Config,
    build=CrossNetV2,
    convert=partial(no_official_weights, "crossnet_v2"),
    published={"Frappe, a fifth of it": (CrossNetV2Config(), 5_304 * 10 + 3 * 10_100 + 101)},
    export="sixfold.recsys.layers.exporting:columns_exportable",
    run="sixfold.recsys.own_data:run_crossnet_v2",
    train="sixfold.recsys.own_data:train_crossnet_v2",
)
