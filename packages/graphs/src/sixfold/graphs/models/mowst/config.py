"""Settings of Mowst.

H. Zeng, H. Lyu, D. Hu, Y. Xia, J. Luo, "Mixture of Weak & Strong Experts on Graphs", ICLR 2024.
arXiv:2311.05185
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
from sixfold.graphs.models.mowst.experts import ExpertName


class MowstConfig(Config):
    """The experts and their training; the defaults are the authors' best for Flickr with a GCN.

    Args:
        experts: Weakest first. One alone is trained without a gate.
        method: mowst chooses an expert for each node and is trained in turns; mowst_star mixes
            their logits and is trained jointly.
        gate: What a gate reads: the dispersion of its expert's answer; that and the node's
            features; or the dispersion, by a network that is made of the features.
        hidden: Width of every expert, and of the gates.
        layers: Of every expert, and of the gates.
        features: Of the nodes; taken from the data if not given.
        classes: Likewise.
        heads: Of ``gat``.
        batch_norm: In experts and gates.
        hyper_hidden: Width of the networks that make a ``hyper`` gate.
        hyper_layers: Of these networks.
        hyper_dropout: In these networks.
        pretrain: Which of several experts, counted from 0, are first trained alone.
        early_signal: What is watched meanwhile.
        dropout: Meanwhile.
        dropout_gate: Afterwards, and in the gates.
        learning_rate: Of AdamW alone and in turns.
        learning_rate_gate: Of AdamW in joint training.
        weight_decay: Of AdamW.
        epochs: At most, of each expert alone, of joint training, and of each turn.
        patience: Epochs in a row without improvement that are allowed.
        big_patience: Rounds of turns in a row without improvement that are allowed.
        quirks: Do as the official code does, for comparing with it. Gates are not put back together
            with the experts; the loss that stops pretraining early is that of the training nodes;
            Mowst is scored by 50 draws instead of the expected accuracy; Mowst* is asked with
            probabilities where logits belong, which flattens the dispersion, and mixes these.
    """

    experts: tuple[ExpertName, ...] = Field(default=("mlp", "gcn"), min_length=1)
    method: Literal["mowst", "mowst_star"] = "mowst"
    gate: Literal["dispersion", "dispersion_and_features", "hyper"] = "dispersion"
    hidden: PositiveInt = 128
    layers: PositiveInt = 3
    features: PositiveInt = 500
    classes: PositiveInt = 7
    heads: PositiveInt = 1
    batch_norm: bool = True
    hyper_hidden: PositiveInt = 64
    hyper_layers: PositiveInt = 2
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
    quirks: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "MowstConfig":
        bad = [i for i in self.pretrain if not 0 <= i < len(self.experts)]
        if bad and len(self.experts) > 1:
            raise ValueError(
                f"pretrain names the experts {bad}, but there are {len(self.experts)}, from 0"
            )
        return self
