"""FinalMLP: two MLP streams, each with gates of its own on the input, fused by a bilinear form.

arXiv:2304.00902; see the package's docstring for the citation and the departures.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field as Setting
from pydantic import PositiveInt, model_validator
from torch import Tensor

from sixfold.core import Config, UserError
from sixfold.recsys.data.vocabularies import MOVIELENS_TAGS
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.fields import Field, check_fields
from sixfold.recsys.layers.mlp import MLPConfig, reset_linear
from sixfold.recsys.models.finalmlp.layers import BilinearFusion, FeatureGate
from sixfold.recsys.models.ranker import Ranker


class FinalMLPConfig(Config):
    """Sizes of the published training on MovieLens tags.

    Args:
        fields: Input columns.
        labels: Names of the tasks; published models have one.
        embedding_dim: Width of a field's vector.
        mlp1: First stream.
        mlp2: Second stream.
        gating: Whether each stream has gates on its input.
        gate_hidden: Widths of the hidden layers of the gates.
        context1: Fields that decide on the gates of the first stream; none learns constant ones.
        context2: Fields that decide on the gates of the second stream.
        share_context: Whether the gates read the fields' own vectors, not tables of theirs.
        fusion: Sum of the streams' linear terms, with or without bilinear forms.
        heads: Number of chunks of a stream, each with a bilinear form.
    """

    fields: tuple[Field, ...] = MOVIELENS_TAGS
    labels: tuple[str, ...] = Setting(default=("label",), min_length=1)
    embedding_dim: PositiveInt = 10
    mlp1: MLPConfig = MLPConfig(hidden=(400,), dropout=0.4)
    mlp2: MLPConfig = MLPConfig(hidden=(800,), dropout=0.2)
    gating: bool = True
    gate_hidden: tuple[PositiveInt, ...] = (800,)
    context1: tuple[str, ...] = ()
    context2: tuple[str, ...] = ()
    share_context: bool = False
    fusion: Literal["bilinear", "sum"] = "bilinear"
    heads: PositiveInt = 10

    @model_validator(mode="after")
    def _parts_fit(self) -> "FinalMLPConfig":
        check_fields(self.fields)
        names = [field.name for field in self.fields]
        for name in (*self.context1, *self.context2):
            if name not in names:
                raise ValueError(f"context {name!r} is no field; fields: {', '.join(names)}")
        widths = self.mlp1.hidden[-1], self.mlp2.hidden[-1]
        if self.fusion == "bilinear" and any(width % self.heads for width in widths):
            raise ValueError(
                f"{self.heads} heads should divide the last widths of both streams, {widths[0]} "
                f"and {widths[1]}; choose a common divisor"
            )
        return self


class FinalMLP(Ranker):
    """Map a batch of encoded fields to logits (batch, task): ``model(batch)``."""

    def __init__(self, config: FinalMLPConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FinalMLPConfig()
        width = len(config.fields) * config.embedding_dim
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim)
        self.gate1, self.gate2 = _gate(config, config.context1), _gate(config, config.context2)
        self.mlp1, self.mlp2 = config.mlp1.build(width), config.mlp2.build(width)
        heads = config.heads if config.fusion == "bilinear" else None
        self.fusion = BilinearFusion(self.mlp1.width, self.mlp2.width, len(config.labels), heads)
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        x = self.embedding(batch).flatten(1)
        first = x if self.gate1 is None else self.gate1(x, batch)
        second = x if self.gate2 is None else self.gate2(x, batch)
        return self.fusion(self.mlp1(first), self.mlp2(second))

    @torch.no_grad()
    def fold_gates(self) -> "FinalMLP":
        """Return a copy for inference with constant gates folded into the streams' first layers.

        Gates of context fields stay. Without such, the copy is a FinalMLP without gating, which can
        be saved.

        Raises:
            UserError: the model is in training mode.
        """
        if self.training:
            raise UserError("fold_gates is for inference; call model.eval() first")
        folded = deepcopy(self)
        for name in ("1", "2"):
            gate = getattr(folded, f"gate{name}")
            if gate is not None and gate.constant is not None:
                first = getattr(folded, f"mlp{name}").mlp[0]
                first.weight.mul_(gate.gates(gate.constant))
                setattr(folded, f"gate{name}", None)
        if folded.gate1 is None and folded.gate2 is None:
            folded.config = self.config.model_copy(update={"gating": False})
        return folded


class DualMLPConfig(Config):
    """Sizes of the published training on MovieLens tags.

    Args:
        fields: Input columns.
        labels: Names of the tasks; published models have one.
        embedding_dim: Width of a field's vector.
        mlp1: First stream.
        mlp2: Second stream.
    """

    fields: tuple[Field, ...] = MOVIELENS_TAGS
    labels: tuple[str, ...] = Setting(default=("label",), min_length=1)
    embedding_dim: PositiveInt = 10
    mlp1: MLPConfig = MLPConfig(hidden=(400, 400, 400), dropout=0.4)
    mlp2: MLPConfig = MLPConfig(hidden=(400,), dropout=0.2)

    @model_validator(mode="after")
    def _fields_fit(self) -> "DualMLPConfig":
        check_fields(self.fields)
        return self


class DualMLP(Ranker):
    """Map a batch of encoded fields to logits (batch, task), the sum of two MLPs' logits."""

    def __init__(self, config: DualMLPConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DualMLPConfig()
        width = len(config.fields) * config.embedding_dim
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim)
        self.mlp1 = config.mlp1.build(width, len(config.labels))
        self.mlp2 = config.mlp2.build(width, len(config.labels))
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        x = self.embedding(batch).flatten(1)
        return self.mlp1(x) + self.mlp2(x)


def _gate(config: FinalMLPConfig, context: Sequence[str]) -> FeatureGate | None:
    if not config.gating:
        return None
    return FeatureGate(
        config.fields, context, config.embedding_dim, config.gate_hidden, config.share_context
    )
