"""Settings of GNNPipe.

J. Chen, Z. Chen, X. Qian, "GNNPipe: Scaling Deep GNN Training with Pipelined Model Parallelism".
arXiv:2308.10087
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from sixfold.core import Config

Architecture = Literal["gcn", "sage", "gcnii", "resgcn"]


class GNNPipeConfig(Config):
    """The model and its training; the defaults are the paper's GCN on Squirrel.

    The number of stages is no setting: it is the number of processes over ``ways``, and changes no
    number.

    Args:
        architecture: gcn, sage (GraphSAGE), gcnii or resgcn (ResGCN+).
        features: Of the nodes; taken from the data if not given.
        classes: Likewise.
        hidden: Width of every layer.
        layers: How many aggregate.
        dropout: Share of the hidden values that is dropped.
        initial_residual: Weight of the first hidden values in every layer of GCNII (alpha).
        identity_decay: How fast GCNII's layers turn from their weights to the identity (lambda).
        chunks: Parts that the nodes are cut into; as many as ``ways`` is exact graph parallelism.
        ways: Groups that the chunks are divided among, which work side by side.
        history_period: Epochs between renewals of the snapshot that embeddings of chunks that are
            still to come are taken from (technique 2); 1 takes those of the epoch before.
        discard_gradients: Use no gradient of the epoch before, and double those at hand
            (technique 3).
        shuffle: Draw a new order of the chunks in every epoch (technique 1).
        partition: metis needs pymetis; greedy is built in; auto takes metis where it is installed.
        learning_rate: Of Adam.
        weight_decay: Of Adam, coupled.
        epochs: One optimiser step each.
        evaluate_every: Epochs between exact evaluations on ``val_mask``; the best weights are kept.
        seed: Of the orders, dropout, and the partition by metis.
    """

    architecture: Architecture = "gcn"
    features: PositiveInt = 2089
    classes: PositiveInt = 5
    hidden: PositiveInt = 1000
    layers: PositiveInt = 32
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
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "GNNPipeConfig":
        if self.chunks % self.ways:
            raise ValueError(
                f"{self.chunks} chunks cannot be divided among {self.ways} ways; "
                f"try chunks={-(-self.chunks // self.ways) * self.ways}"
            )
        return self
