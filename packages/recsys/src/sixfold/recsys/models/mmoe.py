"""MMoE: experts that all tasks share, mixed by a gate of each task.

J. Ma, Z. Zhao, X. Yi, J. Chen, L. Hong, E. Chi, "Modeling Task Relationships in Multi-task Learning
with Multi-gate Mixture-of-Experts", KDD 2018; as a baseline in arXiv:2308.05996

Keys of checkpoints are FuxiCTR's. Behaviour sequences are pooled by their mean or by attention to
the target, the same for every task.
"""

from collections.abc import Mapping

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
    MMoENet,
    PooledConfig,
    task_outputs,
)
from sixfold.recsys.layers.multitask import multitask_loss as loss
from sixfold.recsys.layers.multitask_official import (
    filled,
    read_common,
    read_mmoe,
    to_official,
)
from sixfold.recsys.models.ranker import Ranker

__all__ = [
    "SYSTEM", "MMoE", "MMoEConfig", "convert", "from_official", "loss", "to_official",
]  # fmt: skip


class MMoEConfig(PooledConfig):
    """Sizes of the experiment of this repository, on MovieLens-100k.

    Args:
        experts: Number of experts.
        expert_hidden: Widths of the layers of an expert.
        gate_hidden: Widths of the hidden layers of a gate.
    """

    experts: Depth = 4
    expert_hidden: tuple[PositiveInt, ...] = Setting(default=(128, 64), min_length=1)
    gate_hidden: tuple[PositiveInt, ...] = (32,)


class MMoE(Ranker):
    """Map a batch of encoded fields to logits (batch, task)."""

    batch_loss = staticmethod(loss)

    def __init__(self, config: MMoEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MMoEConfig()
        self.pooled = PooledBehaviours(config.fields, config.embedding_dim, config.pooling)
        self.embedding = FieldEmbedding(self.pooled.behaviours.plain, config.embedding_dim)
        self.backbone = MMoENet(config.width, config)
        reset_linear(self)

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        x = with_pooled(self.pooled, self.embedding, batch).flatten(1)
        return task_outputs(self.backbone(x), self.config)


def from_official(official: Mapping[str, Tensor], config: MMoEConfig) -> MMoE:
    """Build a model from FuxiCTR's weights and the settings that they were trained with.

    Raises:
        UserError: a key is missing or unknown, a shape differs, or a padding row is not zero.
    """
    return filled(MMoE(config), official)


def convert(official: Mapping[str, Tensor]) -> tuple[MMoEConfig, dict[str, Tensor]]:
    """Read settings off FuxiCTR's weights; the tasks are named task1, task2 ...

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    values = read_common(official) | read_mmoe(official)
    config = MMoEConfig.parse(values, "this checkpoint")
    return config, from_official(official, config).state_dict()


SYSTEM = System(
    name="mmoe",
    paper="arXiv:2308.05996",
    config=MMoEConfig,
    build=MMoE,
    convert=convert,
    # not published: counted here, of the settings of this repository's experiment
    published={"MovieLens-100k": (MMoEConfig(), 170_266)},
    export="sixfold.recsys.layers.behaviours:behaviours_exportable",
    run="sixfold.recsys.own_data:run_mmoe",
    train="sixfold.recsys.own_data:train_mmoe",
)
