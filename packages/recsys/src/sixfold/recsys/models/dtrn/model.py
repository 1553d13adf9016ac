"""DTRN: task-specific interests and field weights in front of Shared-Bottom, MMoE or PLE.

arXiv:2308.05996; see the package's docstring for the citation and the decisions.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field as Setting
from pydantic import PositiveInt, model_validator
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import Depth
from sixfold.recsys.layers.behaviours import Behaviours
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.mlp import reset_linear
from sixfold.recsys.layers.multitask import (
    BACKBONES,
    Backbone,
    MultiTaskConfig,
    multitask_loss,
    task_outputs,
)
from sixfold.recsys.models.dtrn.layers import FieldRefinement, TaskInterests
from sixfold.recsys.models.ranker import Ranker


class DTRNConfig(MultiTaskConfig):
    """Sizes of this repository's experiment on MovieLens-100k; the paper's are not known.

    Args:
        backbone: Network behind the task-specific inputs.
        conditional: Whether the transformer's norms depend on task and behaviour (TIM).
        refine: Whether each task weighs fields and interests (TRM).
        heads: Number of heads of the transformer.
        ffn: Width of the hidden layer of the transformer.
        task_dim: Width of the vectors of tasks and behaviours.
        hyper_hidden: Width of the hidden layer of the hypernetwork.
        max_length: Largest length of a sequence.
        reduction: Divisor of the refinement's hidden layer.
        bottom_hidden: Widths of the shared layers (shared_bottom).
        experts: Number of experts (mmoe).
        expert_hidden: Widths of the layers of an expert (mmoe, ple).
        gate_hidden: Widths of the hidden layers of a gate (mmoe, ple).
        variant: What the shared gate mixes (ple).
        layers: Number of layers of experts (ple).
        shared_experts: Number of shared experts of a layer (ple).
        specific_experts: Number of each task's own experts of a layer (ple).
    """

    backbone: Backbone = "mmoe"
    conditional: bool = True
    refine: bool = True
    heads: PositiveInt = 2
    ffn: PositiveInt = 64
    task_dim: PositiveInt = 16
    hyper_hidden: PositiveInt = 32
    max_length: PositiveInt = 50
    reduction: PositiveInt = 4
    bottom_hidden: tuple[PositiveInt, ...] = Setting(default=(128, 64), min_length=1)
    experts: Depth = 4
    expert_hidden: tuple[PositiveInt, ...] = Setting(default=(128, 64), min_length=1)
    gate_hidden: tuple[PositiveInt, ...] = (32,)
    variant: Literal["fuxictr", "paper"] = "fuxictr"
    layers: Depth = 1
    shared_experts: Depth = 2
    specific_experts: Depth = 1

    @model_validator(mode="after")
    def _heads_divide(self) -> "DTRNConfig":
        if self.embedding_dim % self.heads:
            raise ValueError(
                f"{self.heads} heads should divide embedding_dim {self.embedding_dim}; choose a "
                "divisor"
            )
        return self


class Views(NamedTuple):
    """What the tasks see of a batch.

    Args:
        interests: Interests of each task in each behaviour; None without behaviours.
        weights: Weights of fields and interests of each task; None without refinement.
        inputs: Inputs of the backbone.
    """

    interests: Float[Tensor, "task batch behaviour dim"] | None
    weights: Float[Tensor, "task batch field"] | None
    inputs: Float[Tensor, "*task batch width"]


class DTRN(Ranker):
    """Map a batch of encoded fields to logits (batch, task)."""

    batch_loss = staticmethod(multitask_loss)

    def __init__(self, config: DTRNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DTRNConfig()
        self.behaviours, tasks = Behaviours(config.fields), len(config.labels)
        self.embedding = FieldEmbedding(self.behaviours.plain, config.embedding_dim)
        self.interests = self.refinement = None
        if len(self.behaviours):
            self.interests = TaskInterests(len(self.behaviours), tasks, config)
        if config.refine:
            sizes = len(config.fields), config.embedding_dim, config.reduction
            self.refinement = FieldRefinement(tasks, *sizes)
        self.backbone = BACKBONES[config.backbone](config.width, config)
        reset_linear(self)
        if self.interests is not None:
            self.interests.reset_parameters()

    def forward(self, batch: Batch) -> Float[Tensor, "batch task"]:
        return task_outputs(self.backbone(self.views(batch).inputs), self.config)

    def views(self, batch: Batch) -> Views:
        """Compute what each task sees of a batch.

        Raises:
            UserError: the batch lacks a field, or a sequence is too long.
        """
        embedded = self.embedding(batch)
        x, interests = embedded[None], self._interests(embedded, batch)
        if self.refinement is not None:
            x = x.expand(len(self.config.labels), -1, -1, -1)
        if interests is not None:
            tasks = max(len(x), len(interests))  # 1 where all tasks have the same
            parts = x.expand(tasks, -1, -1, -1), interests.expand(tasks, -1, -1, -1)
            x = torch.cat(parts, 2)
        weights = None if self.refinement is None else self.refinement(x)
        if weights is not None:
            x = x * weights[..., None]
        return Views(interests, weights, x.flatten(2) if len(x) > 1 else x[0].flatten(1))

    def _interests(
        self, embedded: Float[Tensor, "batch field dim"], batch: Batch
    ) -> Float[Tensor, "task batch behaviour dim"] | None:
        if self.interests is None:
            return None
        ids = self.behaviours.ids(batch)
        if ids.shape[2] > self.config.max_length:
            raise UserError(
                f"a sequence has {ids.shape[2]} places, the model at most {self.config.max_length};"
                " cut it to its first ones, or train with a larger max_length"
            )
        vectors = self.behaviours.vectors(self.embedding, ids)
        return self.interests(vectors, ids != 0, self.behaviours.target_vectors(embedded))
