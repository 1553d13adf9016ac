"""PLE: layers of shared experts and of each task's own, "progressive layered extraction".

H. Tang, J. Liu, M. Zhao, X. Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task
Learning (MTL) Model for Personalized Recommendations", RecSys 2020; as a baseline in
arXiv:2308.05996

Two variants: FuxiCTR's shared gate mixes the shared experts alone, and has a gate in the last layer
whose output goes nowhere; the paper's mixes the experts of all tasks too.

Keys of checkpoints are FuxiCTR's. Behaviour sequences are pooled by their mean or by attention to
the target, the same for every task.
"""

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from pydantic import Field as Setting
from pydantic import PositiveInt
from torch import Tensor

from sixfold.core import System
from sixfold.core.config import Depth
from sixfold.recsys.layers.behaviours import PooledBehaviours, with_pooled
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.mlp import reset_linear
from sixfold.recsys.layers.multitask import (
    PLENet,
    PooledConfig,
    task_outputs,
)
from sixfold.recsys.layers.multitask import multitask_loss as loss
from sixfold.recsys.layers.multitask_official import (
    filled,
    read_common,
    read_ple,
    to_official,
)
from sixfold.recsys.models.ranker import Ranker

__all__ = [
    "PLE",
    "SYSTEM",
    "PLEConfig",
    "convert",
    "from_official",
    "loss",
    "to_official",
]  # fmt: skip


class PLEConfig(PooledConfig):
    """Sizes of the experiment of this repository, on MovieLens-100k.

    Args:
        variant: What the shared gate mixes.
        layers: Number of layers of experts.
        shared_experts: Number of shared experts of a layer.
        specific_experts: Number of each task's own experts of a layer.
        expert_hidden: Widths of the layers of an expert.
        gate_hidden: Widths of the hidden layers of a gate.
    """

    variant: Literal["fuxictr", "paper"] = "fuxictr"
    layers: Depth = 1
    shared_experts: Depth = 2
    specific_experts: Depth = 1
    expert_hidden: tuple[PositiveInt, ...] = Setting(default=(128, 64), min_length=1)
    gate_hidden: tuple[PositiveInt, ...] = (32,)


class PLE(Ranker):
    """Map a batch of encoded fields to logits (batch, task)."""

    batch_loss = staticmethod(loss)

    def __init__(self, config: PLEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PLEConfig()
        self.pooled = PooledBehaviours(config.fields, config.embedding_dim, config.pooling)
        self.embedding = FieldEmbedding(self.pooled.behaviours.plain, config.embedding_dim)
        self.backbone = PLENet(config.width, config)
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        x = with_pooled(self.pooled, self.embedding, batch).flatten(1)
        return task_outputs(self.backbone(x), self.config)


def from_official(official: Mapping[str, Tensor], config: PLEConfig) -> PLE:
    """Build a model from FuxiCTR's weights and the settings that they were trained with.

    Raises:
        UserError: a key is missing or unknown, a shape differs, or a padding row is not zero.
    """
    return filled(PLE(config), official)


def convert(official: Mapping[str, Tensor]) -> tuple[PLEConfig, dict[str, Tensor]]:
    """Read settings off FuxiCTR's weights; the tasks are named task1, task2 ...

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    values = read_common(official) | read_ple(official)
    config = PLEConfig.parse(values, "this checkpoint")
    return config, from_official(official, config).state_dict()


SYSTEM = System(
    name="ple",
    paper="arXiv:2308.05996",
    config=PLEConfig,
    build=PLE,
    convert=convert,
    # not published: counted here, of the settings of this repository's experiment
    published={"MovieLens-100k": (PLEConfig(), 175_418)},
    export="sixfold.recsys.layers.behaviours:behaviours_exportable",
    run="sixfold.recsys.own_data:run_ple",
    train="sixfold.recsys.own_data:train_ple",
)
