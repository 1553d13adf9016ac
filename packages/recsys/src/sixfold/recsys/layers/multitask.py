"""Networks of several tasks on one input: a shared bottom, mixtures of experts, and their loss.

Each takes flat inputs (batch, width) that all tasks share, or (task, batch, width), one for each
task, and returns logits (batch, task). The names of the parts are FuxiCTR's.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field as Setting
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config
from sixfold.core.config import unknown_name_error
from sixfold.recsys.data.vocabularies import categorical
from sixfold.recsys.layers.behaviours import Behaviours, Pooling
from sixfold.recsys.layers.embedding import Batch
from sixfold.recsys.layers.fields import Field, check_fields
from sixfold.recsys.layers.mlp import ACTIVATIONS, MLP, Activation
from sixfold.recsys.losses import stacked_labels

Inputs = Float[Tensor, "*task batch width"]

# As counted in the first 80 % of MovieLens-100k; see sixfold.recsys.data.movielens.
_ITEMS = 1618
MOVIELENS_100K = (
    *categorical(user=753, age=9, gender=4, occupation=23, item=_ITEMS, year=73),
    Field(name="genres", kind="sequence", vocab_size=21),
    *(
        Field(name=name, kind="sequence", vocab_size=_ITEMS, share="item")
        for name in ("liked", "disliked", "rated")
    ),
)


class MultiTaskConfig(Config):
    """What systems of several tasks have in common.

    Args:
        fields: Input columns; sequences that share a field's table are behaviours.
        labels: Names of the tasks.
        embedding_dim: Width of a field's vector.
        tower_hidden: Widths of the hidden layers of each task's tower.
        activation: Activation behind every hidden layer.
        dropout: Probability of dropout behind every hidden layer.
        batch_norm: Whether there is a batch norm before each activation.
        task_weights: Weights of tasks in the loss; a task that is not named has 1.
        masks: Tasks that learn only from rows where another label is 1, and this label: a
            conversion from clicked rows.
        products: Tasks whose probability is their tower's times that of another task, and this
            task: a click that converts.
    """

    fields: tuple[Field, ...] = MOVIELENS_100K
    labels: tuple[str, ...] = Setting(default=("like", "love"), min_length=1)
    embedding_dim: PositiveInt = 16
    tower_hidden: tuple[PositiveInt, ...] = (32,)
    activation: Activation = "relu"
    dropout: float = Setting(default=0.1, ge=0, lt=1)
    batch_norm: bool = False
    task_weights: dict[str, NonNegativeFloat] = Setting(default_factory=dict)
    masks: dict[str, str] = Setting(default_factory=dict)
    products: dict[str, str] = Setting(default_factory=dict)

    @property
    def width(self) -> int:
        """Width of the vectors of all fields and behaviours, one behind the other."""
        return len(self.fields) * self.embedding_dim

    def mlp(self, inputs: int, hidden: tuple[int, ...], output: int | None = None) -> MLP:
        """Build an MLP as all of this network are: activation, dropout, batch norm."""
        kind = ACTIVATIONS[self.activation]
        return MLP(
            inputs, hidden, output,
            activation=kind, dropout=self.dropout, batch_norm=self.batch_norm,
        )  # fmt: skip

    @model_validator(mode="after")
    def _parts_fit(self) -> "MultiTaskConfig":
        check_fields(self.fields)
        known = {field.name for field in Behaviours(self.fields).plain}
        for field in self.fields:
            if field.share is not None and field.share not in known:
                raise ValueError(f"field {field.name!r} shares the table of a sequence")
        for name in ("task_weights", "masks", "products"):
            pairs: dict[str, Any] = getattr(self, name)
            for label in (*pairs, *(v for v in pairs.values() if isinstance(v, str))):
                if label not in self.labels:
                    raise ValueError(unknown_name_error(name, "label", label, self.labels))
        if chained := {*self.products} & {*self.products.values()}:
            raise ValueError(f"{', '.join(sorted(chained))} is a product and a factor of another")
        return self


class PooledConfig(MultiTaskConfig):
    """What the systems have in common whose behaviours are pooled alike for every task.

    Args:
        pooling: Plain mean of a behaviour's vectors, or attention to the target's.
    """

    pooling: Pooling = "mean"


class SharedBottomNet(nn.Module):
    """One MLP for all tasks, and a tower for each."""

    def __init__(self, width: int, config: Any) -> None:
        super().__init__()
        self.bottom = config.mlp(width, config.bottom_hidden)
        self.tower = _towers(self.bottom.width, config)

    def forward(self, x: Inputs) -> Float[Tensor, "batch task"]:
        hidden = _rowwise(self.bottom, x)
        return _logits(self.tower, [_of_task(hidden, t) for t in range(len(self.tower))])


class MMoENet(nn.Module):
    """Experts that all tasks share, mixed by a gate of each task, and a tower for each."""

    def __init__(self, width: int, config: Any) -> None:
        super().__init__()
        self.mmoe_layer = _Mixture(width, config)
        self.tower = _towers(config.expert_hidden[-1], config)

    def forward(self, x: Inputs) -> Float[Tensor, "batch task"]:
        experts = torch.stack([_rowwise(e, x) for e in self.mmoe_layer.experts], -2)
        gates = self.gate_weights(x)
        mixed = [_mix(gate, _of_task(experts, t, shared=3)) for t, gate in enumerate(gates)]
        return _logits(self.tower, mixed)

    def gate_weights(self, x: Inputs) -> list[Float[Tensor, "batch expert"]]:
        """Return the weights of the experts, which sum to 1, for each task."""
        return [g(_of_task(x, t)).softmax(1) for t, g in enumerate(self.mmoe_layer.gate)]


class _Mixture(nn.Module):
    def __init__(self, width: int, config: Any) -> None:
        super().__init__()
        experts = (config.mlp(width, config.expert_hidden) for _ in range(config.experts))
        self.experts = nn.ModuleList(experts)
        self.gate = nn.ModuleList(
            config.mlp(width, config.gate_hidden, config.experts) for _ in config.labels
        )


class PLENet(nn.Module):
    """Layers of shared and of each task's own experts, and a tower for each task."""

    def __init__(self, width: int, config: Any) -> None:
        super().__init__()
        widths = [width] + [config.expert_hidden[-1]] * config.layers
        last = config.layers - 1
        self.cgc_layers = nn.ModuleList(
            CGC(widths[number], config, last=number == last) for number in range(config.layers)
        )
        self.tower = _towers(widths[-1], config)

    def forward(self, x: Inputs) -> Float[Tensor, "batch task"]:
        tasks = len(self.tower)
        # the shared experts see what all tasks see, or the mean of what each of them does
        shared = x if x.ndim == 2 else x.mean(0)
        found = [*(_of_task(x, t) for t in range(tasks)), shared]
        for layer in self.cgc_layers:
            found = layer(found)
        return _logits(self.tower, found[:tasks])


class CGC(nn.Module):
    """One layer of PLE: "customized gate control".

    A task's gate mixes the task's own experts and the shared ones. The shared gate mixes, in the
    paper, the experts of all tasks and the shared ones; in FuxiCTR the shared ones alone. What it
    mixes in the last layer goes nowhere: FuxiCTR has a gate there, the paper has none.

    Args:
        width: Width of the inputs.
        config: Settings of the network.
        last: Whether this is the last layer.
    """

    def __init__(self, width: int, config: Any, last: bool) -> None:
        super().__init__()
        tasks, own, shared = len(config.labels), config.specific_experts, config.shared_experts
        self.mixes_all, self.last = config.variant == "paper", last

        def experts(number: int) -> nn.ModuleList:
            return nn.ModuleList(config.mlp(width, config.expert_hidden) for _ in range(number))

        self.shared_experts = experts(shared)
        self.specific_experts = nn.ModuleList(experts(own) for _ in range(tasks))
        sizes = [own + shared] * tasks
        if not (last and self.mixes_all):
            sizes.append(tasks * own + shared if self.mixes_all else shared)
        self.gate = nn.ModuleList(config.mlp(width, config.gate_hidden, size) for size in sizes)

    def forward(
        self, inputs: list[Float[Tensor, "batch width"]]
    ) -> list[Float[Tensor, "batch outputs"]]:
        *own, shared_input = inputs
        shared = [expert(shared_input) for expert in self.shared_experts]
        specific = [
            [expert(x) for expert in experts]  # type: ignore[union-attr]
            for experts, x in zip(self.specific_experts, own, strict=True)
        ]
        mixed = [found + shared for found in specific]
        if not self.last:
            every = [expert for found in specific for expert in found]
            mixed.append(every + shared if self.mixes_all else shared)
        return [
            _mix(gate(x).softmax(1), torch.stack(experts, 1))
            for gate, x, experts in zip(self.gate, inputs, mixed, strict=False)
        ]


BACKBONES = {"shared_bottom": SharedBottomNet, "mmoe": MMoENet, "ple": PLENet}
Backbone = Literal["shared_bottom", "mmoe", "ple"]


def _towers(width: int, config: Any) -> nn.ModuleList:
    return nn.ModuleList(config.mlp(width, config.tower_hidden, 1) for _ in config.labels)


def _rowwise(mlp: nn.Module, x: Inputs) -> Float[Tensor, "*task batch outputs"]:
    """Run an MLP on every row of every task."""
    return mlp(x) if x.ndim == 2 else mlp(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _of_task(x: Tensor, task: int, shared: int = 2) -> Tensor:
    """Return a task's part of what has ``shared`` axes if all tasks share it."""
    return x if x.ndim == shared else x[task]


def _mix(
    weights: Float[Tensor, "batch expert"], experts: Float[Tensor, "batch expert width"]
) -> Float[Tensor, "batch width"]:
    return (weights[:, None] @ experts)[:, 0]


def _logits(towers: nn.ModuleList, found: list[Tensor]) -> Float[Tensor, "batch task"]:
    return torch.cat([tower(x) for tower, x in zip(towers, found, strict=True)], 1)


def task_outputs(
    logits: Float[Tensor, "batch task"], config: MultiTaskConfig
) -> Float[Tensor, "batch task"]:
    """Turn the towers' logits into the tasks': those of products into the products' logits.

    With p and q the probabilities of both factors, 1 - pq = (1 - p) + p (1 - q), all in logarithms.
    """
    if not config.products:
        return logits
    columns = dict(zip(config.labels, logits.unbind(1), strict=True))
    for label, factor in config.products.items():
        p, q = columns[factor], columns[label]
        log_p = functional.logsigmoid(p)
        neither = torch.logaddexp(functional.logsigmoid(-p), log_p + functional.logsigmoid(-q))
        columns[label] = log_p + functional.logsigmoid(q) - neither
    return torch.stack(list(columns.values()), 1)


def multitask_loss(model: Any, batch: Batch) -> Float[Tensor, ""]:
    """Return the weighted sum over tasks of the mean binary cross-entropy.

    A row that a task's mask leaves out adds zero to the sum that is divided by all rows: a task
    weighs the less, the fewer rows it learns from.

    Args:
        model: The model.
        batch: Batch with labels, maybe with weights of samples.
    """
    config: MultiTaskConfig = getattr(model, "module", model).config
    logits = model(batch)
    expected = stacked_labels(batch, config.labels).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, expected, reduction="none")
    if "weight" in batch:
        losses = losses * batch["weight"][:, None]
    if config.masks:
        every = torch.ones_like(expected[:, 0])
        masks = [batch[config.masks[k]] if k in config.masks else every for k in config.labels]
        losses = losses * torch.stack(masks, 1).to(losses.dtype)
    weights = [config.task_weights.get(label, 1.0) for label in config.labels]
    return (losses.mean(0) * losses.new_tensor(weights)).sum()
