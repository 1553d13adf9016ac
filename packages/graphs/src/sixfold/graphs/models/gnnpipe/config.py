"""Settings of GNNPipe.

Chen et al., "GNNPipe: Scaling Deep GNN Training with Pipelined Model Parallelism".
arXiv:2308.10087
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
from sixfold.graphs.data.labels import Target

Architecture = Literal["gcn", "sage", "gcnii", "resgcn", "custom"]


class GNNPipeConfig(Config):
    """The model and its training; the defaults are the paper's GCN on Squirrel.

    The number of stages is not a setting: it is the number of processes divided by ``ways``, and
    changes no number.

    Args:
        architecture: Model: gcn, sage (GraphSAGE), gcnii or resgcn (ResGCN+); custom is one that is
            passed to `GNNPipe`.
        features: Number of input features per node; inferred from the data if unset.
        classes: Number of classes; inferred from the data if unset.
        hidden: Width of every layer.
        layers: Number of layers that aggregate.
        dropout: Dropout rate of hidden values.
        initial_residual: Weight of the first hidden values in every layer (GCNII only; alpha).
        identity_decay: Speed at which layers approach the identity (GCNII only; lambda).
        chunks: Number of parts that the nodes are divided into; with as many chunks as ways the
            training is exact graph parallelism.
        ways: Number of groups of processes among which the chunks are divided.
        history_period: Number of epochs between renewals of the stale embeddings (technique 2); 1
            uses those of the epoch before.
        discard_gradients: Whether to discard the gradients of the epoch before and to double those
            of the present epoch (technique 3).
        shuffle: Whether every epoch draws a new order of the chunks (technique 1).
        partition: Graph partitioner: metis (needs pymetis), greedy (built in), or auto, which is
            metis where pymetis is installed.
        learning_rate: Learning rate of Adam.
        weight_decay: Weight decay of Adam, added to the gradient.
        epochs: Number of epochs, of one optimiser step each.
        evaluate_every: Number of epochs between exact evaluations on ``val_mask``, of which the
            best weights are kept.
        target: Kind of ``y``: a class for each node, several labels, or one number or several, of
            which ``classes`` is the number.
        class_weight: Weight of each class in the loss; balanced weighs them by the inverse of their
            frequency among the training nodes.
        seed: Seed of all draws: initial weights, chunk orders, dropout, and the partition by metis;
            unset, that of torch's default generator.
    """

    architecture: Architecture = "gcn"
    features: PositiveInt = 2089
    classes: PositiveInt = 5
    hidden: PositiveInt = 1000
    layers: Depth = 32
    dropout: float = Field(default=0.5, ge=0, lt=1)
    initial_residual: float = Field(default=0.1, ge=0, le=1)
    identity_decay: PositiveFloat = 0.5
    chunks: PositiveInt = 32
    ways: PositiveInt = 1
    history_period: PositiveInt = 23
    discard_gradients: bool = True
    shuffle: bool = True
    partition: Literal["auto", "metis", "greedy"] = "auto"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    epochs: PositiveInt = 5000
    evaluate_every: PositiveInt = 25
    target: Target = "multiclass"
    class_weight: tuple[PositiveFloat, ...] | Literal["balanced"] | None = None
    seed: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _fits(self) -> "GNNPipeConfig":
        if self.chunks % self.ways:
            raise ValueError(
                f"{self.chunks} chunks cannot be divided among {self.ways} ways; "
                f"try chunks={-(-self.chunks // self.ways) * self.ways}"
            )
        if self.class_weight is not None and self.target != "multiclass":
            raise ValueError(f"class_weight is for classes, not for target {self.target}")
        return self
