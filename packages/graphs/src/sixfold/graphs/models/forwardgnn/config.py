"""Settings of ForwardGNN, and the values that each mode allows.

Park et al., "Forward Learning of Graph Neural Networks", ICLR 2024. arXiv:2403.11004
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

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
from sixfold.graphs.layers.convolutions import ConvName

Task = Literal["node", "link"]
Mode = Literal[
    "single_forward",
    "top_to_loss",
    "top_to_input",
    "forward_forward_labels",
    "forward_forward_virtual",
    "forward_forward",
    "backprop",
]
AppendLabel = Literal["none", "input", "all"]
Direction = Literal["bidirection", "unidirection"]


class Allowed(NamedTuple):
    """Values that a mode allows; modes without virtual nodes have no label columns to append."""

    append_label: tuple[AppendLabel, ...] = ("none",)
    weight_decay: float = 5e-4  # of the official code, the default


ALLOWED: Mapping[Task, Mapping[Mode, Allowed]] = {
    "node": {
        "single_forward": Allowed(append_label=("none", "input", "all")),
        "top_to_loss": Allowed(append_label=("none", "input")),
        "top_to_input": Allowed(append_label=("none", "input")),
        "forward_forward_labels": Allowed(),
        "forward_forward_virtual": Allowed(append_label=("none", "input", "all")),
        "backprop": Allowed(),
    },
    "link": {
        "single_forward": Allowed(),
        "top_to_input": Allowed(weight_decay=0.0),
        "forward_forward": Allowed(),
        "backprop": Allowed(),
    },
}


class ForwardGNNConfig(Config):
    """The network and its training; the defaults are the paper's GCN of four layers on Cora_ML.

    Args:
        task: Node classification or link prediction.
        mode: Training procedure, see `sixfold.graphs.models.forwardgnn`; for links,
            forward_forward is that of section 3.4.
        conv: Convolution; custom is one that is passed to `ForwardGNN`.
        layers: Number of layers.
        hidden: Number of output features of each layer.
        features: Number of input features per node; inferred from the data if unset.
        classes: Number of classes; inferred from the data if unset.
        heads: Number of attention heads (GAT only).
        edge_dim: Number of attributes of each edge that attention reads (GAT only); inferred from
            ``edge_attr`` of the data if unset.
        temperature: Divisor of the logits of virtual nodes.
        direction: Direction of the edges between nodes and virtual nodes.
        append_label: Layers whose input ends with label columns.
        alternating: Whether even layers are updated before odd ones (top_to_input only).
        epochs: Number of epochs of each layer, or of all layers if the mode trains them together.
        validate_every: Number of epochs between validations.
        patience: Number of consecutive validations without improvement before training stops.
        learning_rate: Learning rate of Adam.
        weight_decay: Weight decay of Adam, added to the gradient; unset, it is 5e-4, and 0 for
            links in top_to_input, as in the official code.
        target: Kind of ``y``: a class for each node, several labels, or one number or several; only
            backprop has other targets than classes, ``classes`` being the number of outputs.
        class_weight: Weight of each class in the loss; balanced weighs them by the inverse of their
            frequency among the training nodes.
        seed: Seed of all draws: initial weights, virtual nodes, and in training wrong labels
            (forward-forward) and dropout; unset, torch's default generator is used.
    """

    task: Task = "node"
    mode: Mode = "single_forward"
    conv: ConvName | Literal["custom"] = "gcn"
    layers: Depth = 4
    hidden: PositiveInt = 128
    features: PositiveInt = 2879
    classes: PositiveInt = 7
    heads: PositiveInt = 4
    edge_dim: NonNegativeInt = 0
    temperature: PositiveFloat = 1.0
    direction: Direction = "bidirection"
    append_label: AppendLabel = "none"
    alternating: bool = True
    epochs: PositiveInt = 1000
    validate_every: PositiveInt = 2
    patience: PositiveInt | None = 100
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = Field(default_factory=lambda given: official_decay(given))
    target: Target = "multiclass"
    class_weight: tuple[PositiveFloat, ...] | Literal["balanced"] | None = None
    seed: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _fits(self) -> "ForwardGNNConfig":
        modes = ALLOWED[self.task]
        if self.mode not in modes:
            raise ValueError(f"task {self.task} has the modes {', '.join(modes)}")
        if self.conv == "gat" and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} should be a multiple of heads {self.heads}")
        if self.append_label not in modes[self.mode].append_label:
            fitting = [mode for mode in modes if self.append_label in modes[mode].append_label]
            raise ValueError(
                f"append_label {self.append_label} of task {self.task} is for modes with virtual "
                f"nodes: {', '.join(fitting) or 'none'}"
            )
        if self.target != "multiclass" and (self.task, self.mode) != ("node", "backprop"):
            raise ValueError(
                f"target {self.target} is for mode backprop: the others link each node with the "
                "virtual node of its class, or learn links"
            )
        classes = self.task == "node" and self.target == "multiclass"
        if self.class_weight is not None and (not classes or self.mode.startswith("forward_for")):
            raise ValueError(
                "class_weight is for losses of classes; forward-forward compares true and wrong "
                "labels of a node, and links, labels and numbers have no classes"
            )
        return self

    def layer_sizes(self, *, first: int = 0, later: int = 0) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer.

        Args:
            first: Number of columns appended to the input of the first layer.
            later: Number of columns appended to the inputs of the other layers.
        """
        read = [self.features + first] + [self.hidden + later] * (self.layers - 1)
        return [(width, self.hidden) for width in read]


def official_decay(settings: Mapping[str, Any]) -> float:
    """Return the weight decay of the official code for a task and a mode."""
    modes = ALLOWED.get(settings.get("task", "node"), {})
    return modes.get(settings.get("mode", "single_forward"), Allowed()).weight_decay
