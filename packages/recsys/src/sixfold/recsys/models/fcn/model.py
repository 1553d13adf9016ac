"""FCN: an exponential and a linear cross network on one embedding, and each of them alone.

arXiv:2407.13349; see the package's docstring for the citation and the departures.
"""

from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field as Setting
from pydantic import PositiveInt, model_validator
from torch import Tensor

from sixfold.core import Config
from sixfold.core.config import Depth
from sixfold.recsys.data.vocabularies import CRITEO_X4
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.fields import Field, check_fields
from sixfold.recsys.layers.mlp import reset_linear
from sixfold.recsys.models.fcn.layers import (
    CrossNetwork,
    first_products,
    refuse_half,
    split_heads,
)
from sixfold.recsys.models.fcn.loss import loss
from sixfold.recsys.models.ranker import Ranker


class CrossConfig(Config):
    """What FCN, ECN and LCN have in common; defaults are of the training on Criteo_x4.

    Args:
        fields: Input columns.
        labels: Names of the tasks; published models have one.
        embedding_dim: Width of a field's vector in one head, an even number.
        heads: Number of heads; the tables are so many times wider.
        layer_norm: Whether masks are normalised over a head's coordinates.
        batch_norm: Whether products are normalised per head, over samples and coordinates.
    """

    fields: tuple[Field, ...] = CRITEO_X4
    labels: tuple[str, ...] = Setting(default=("label",), min_length=1)
    embedding_dim: PositiveInt = 16
    heads: PositiveInt = 1
    layer_norm: bool = True
    batch_norm: bool = False

    @model_validator(mode="after")
    def _fields_fit(self) -> "CrossConfig":
        check_fields(self.fields)
        if self.embedding_dim % 2:
            raise ValueError(
                f"embedding_dim {self.embedding_dim} cannot be halved, but every field's vector is "
                "cut into two views; give an even number"
            )
        return self


class FCNConfig(CrossConfig):
    """Sizes of the published training on Criteo_x4.

    Args:
        deep_layers: Number of layers of the exponential network.
        shallow_layers: Number of layers of the linear network.
        deep_dropout: Probability of dropout behind each layer of the exponential network.
        shallow_dropout: Probability of dropout behind each layer of the linear network.
        loss: Published loss, the same with constant weights, or plain cross-entropy.
    """

    deep_layers: Depth = 3
    shallow_layers: Depth = 4
    deep_dropout: float = Setting(default=0.1, ge=0, lt=1)
    shallow_dropout: float = Setting(default=0.2, ge=0, lt=1)
    loss: Literal["tri_bce", "tri_bce_detached", "bce"] = "tri_bce"


class FCN(Ranker):
    """Map a batch of encoded fields to logits (batch, task), the mean of two networks' logits."""

    batch_loss = staticmethod(loss)

    def __init__(self, config: FCNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FCNConfig()
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim * config.heads)
        self.deep = _network(config, config.deep_layers, config.deep_dropout, exponential=True)
        self.shallow = _network(
            config, config.shallow_layers, config.shallow_dropout, exponential=False
        )
        reset_linear(self)

    def forward(self, batch: Batch, apart: bool = False) -> Any:
        """Return the logits, or those of the exponential and of the linear network apart."""
        x = _heads(self, batch)
        first_deep, first_shallow = first_products(x, self.deep, self.shallow)
        deep = self.deep(x, first_deep).mean(1)
        shallow = self.shallow(x, first_shallow).mean(1)
        return (deep, shallow) if apart else (deep + shallow) / 2


class ECNConfig(CrossConfig):
    """Sizes of the published training on Criteo_x4.

    Args:
        layers: Number of layers.
        dropout: Probability of dropout behind each layer.
    """

    layers: Depth = 4
    dropout: float = Setting(default=0.1, ge=0, lt=1)


class LCNConfig(ECNConfig):
    """Sizes of the linear network in the published FCN on Criteo_x4."""

    dropout: float = Setting(default=0.2, ge=0, lt=1)


class ECN(Ranker):
    """Map a batch of encoded fields to logits (batch, task) by an exponential cross network."""

    def __init__(self, config: ECNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ECNConfig()
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim * config.heads)
        self.cross = _network(config, config.layers, config.dropout, exponential=True)
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        return self.cross(_heads(self, batch)).mean(1)


class LCN(Ranker):
    """Map a batch of encoded fields to logits (batch, task) by a linear cross network."""

    def __init__(self, config: LCNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LCNConfig()
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim * config.heads)
        self.cross = _network(config, config.layers, config.dropout, exponential=False)
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        return self.cross(_heads(self, batch)).mean(1)


def _heads(model: Any, batch: Batch) -> Float[Tensor, "batch head width"]:
    embedded = model.embedding(batch)
    refuse_half(embedded)
    return split_heads(embedded, model.config.heads)


def _network(
    config: CrossConfig, layers: int, dropout: float, *, exponential: bool
) -> CrossNetwork:
    return CrossNetwork(
        len(config.fields) * config.embedding_dim,
        layers,
        exponential=exponential,
        heads=config.heads,
        layer_norm=config.layer_norm,
        batch_norm=config.batch_norm,
        dropout=dropout,
        outputs=len(config.labels),
    )
