"""Settings of Mowst.

Zeng et al., "Mixture of Weak & Strong Experts on Graphs", ICLR 2024. arXiv:2311.05185
"""

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sixfold.core import Config
from sixfold.core.config import Depth

ExpertName = Literal[
    "mlp", "gcn", "sage", "gin", "gat", "gcn_skip", "sage_skip", "gin_skip", "custom"
]


class MowstConfig(Config):
    """The experts and their training; the defaults are the authors' best for Flickr with a GCN.

    Args:
        experts: Experts, weakest first; a single one is trained without a gate. The last one is
            custom if it is passed to `Mowst`.
        method: mowst draws an expert for each node and is trained in turns; mowst_star mixes
            logits and is trained jointly.
        gate: Input of a gate: the dispersion of its expert's logits; the dispersion and the node's
            features; or the dispersion, with gate weights that a hypernetwork makes of the
            features.
        hidden: Width of every expert and gate.
        layers: Number of layers of every expert and gate.
        features: Number of input features per node; inferred from the data if unset.
        classes: Number of classes; inferred from the data if unset.
        heads: Number of attention heads (GAT only).
        edge_dim: Number of attributes of each edge that attention reads (GAT only); inferred from
            ``edge_attr`` of the data if unset.
        batch_norm: Whether experts and gates use batch normalisation.
        hyper_hidden: Width of the hypernetworks (hyper gate only).
        hyper_layers: Number of layers of the hypernetworks.
        hyper_dropout: Dropout rate in the hypernetworks.
        pretrain: Experts that are first trained alone, counted from 0.
        early_signal: Early stopping criterion of pretraining.
        dropout: Dropout rate during pretraining.
        dropout_gate: Dropout rate after pretraining, and in the gates.
        learning_rate: Learning rate of AdamW in pretraining and in turns.
        learning_rate_gate: Learning rate of AdamW in joint training.
        weight_decay: Weight decay of AdamW.
        epochs: Maximum number of epochs of each pretraining, of joint training, and of each turn.
        patience: Number of consecutive epochs without improvement that are tolerated.
        big_patience: Number of consecutive rounds of turns without improvement that are tolerated.
        class_weight: Weight of each class in the loss; balanced weighs them by the inverse of their
            frequency among the training nodes.
        seed: Seed of all draws: initial weights and dropout; unset, torch's default generator is
            used.
        official_behaviour: Whether to reproduce the official code where it departs from the paper,
            for comparisons. Gates are not restored together with their experts; the loss that stops
            pretraining early is that of the training nodes; turns are validated by 50 draws instead
            of the expected accuracy; Mowst* computes dispersions of probabilities in the place of
            logits, which flattens them, and mixes probabilities.
    """

    experts: tuple[ExpertName, ...] = Field(default=("mlp", "gcn"), min_length=1)
    method: Literal["mowst", "mowst_star"] = "mowst"
    gate: Literal["dispersion", "dispersion_and_features", "hyper"] = "dispersion"
    hidden: PositiveInt = 128
    layers: Depth = 3
    features: PositiveInt = 500
    classes: PositiveInt = 7
    heads: PositiveInt = 1
    edge_dim: NonNegativeInt = 0
    batch_norm: bool = True
    hyper_hidden: PositiveInt = 64
    hyper_layers: Depth = 2
    hyper_dropout: float = Field(default=0.5, ge=0, lt=1)
    pretrain: tuple[int, ...] = (1,)
    early_signal: Literal["loss", "accuracy"] = "loss"
    dropout: float = Field(default=0.3, ge=0, lt=1)
    dropout_gate: float = Field(default=0.5, ge=0, lt=1)
    learning_rate: PositiveFloat = 0.1
    learning_rate_gate: PositiveFloat = 0.01
    weight_decay: NonNegativeFloat = 5e-4
    epochs: PositiveInt = 20_000
    patience: NonNegativeInt = 100
    big_patience: NonNegativeInt = 10
    class_weight: tuple[PositiveFloat, ...] | Literal["balanced"] | None = None
    seed: NonNegativeInt | None = None
    official_behaviour: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "MowstConfig":
        unknown = [i for i in self.pretrain if not 0 <= i < len(self.experts)]
        if unknown and len(self.experts) > 1:
            raise ValueError(
                f"pretrain names the experts {unknown}, but there are {len(self.experts)}, from 0"
            )
        return self
