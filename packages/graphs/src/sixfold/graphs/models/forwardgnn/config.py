"""Settings of ForwardGNN, and what each mode stands for.

N. Park, X. Wang, A. Simoulin, S. Yang, G. Yang, R. Rossi, P. Trivedi, N. Ahmed, "Forward Learning
of Graph Neural Networks", ICLR 2024. arXiv:2403.11004
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from sixfold.core import Config
from sixfold.graphs.layers.convolutions import ConvName
from sixfold.graphs.models.forwardgnn.virtual_nodes import Direction

Mode = Literal[
    "single_forward",
    "top_to_loss",
    "top_to_input",
    "forward_forward_labels",
    "forward_forward_virtual",
    "forward_forward",
    "backprop",
]
MODES: Mapping[str, tuple[Mode, ...]] = {
    "node": (
        "single_forward",
        "top_to_loss",
        "top_to_input",
        "forward_forward_labels",
        "forward_forward_virtual",
        "backprop",
    ),
    "link": ("single_forward", "top_to_input", "forward_forward", "backprop"),
}


class ForwardGNNConfig(Config):
    """The network and its training; the defaults are the paper's GCN of four layers on Cora_ML.

    Args:
        task: Classes of nodes, or links between them.
        mode: How the layers are trained; see the modules of these names. For links, forward_forward
            is that of section 3.4.
        conv: Unless one is passed to `ForwardGNN`.
        layers: How many.
        hidden: Features that each puts out.
        features: Of the nodes; taken from the data if not given.
        classes: Likewise.
        heads: Of ``gat``.
        temperature: That logits of virtual nodes are divided by.
        direction: Of the edges between nodes and virtual nodes.
        append_label: Where label columns are appended to what a layer reads.
        alternating: top_to_input: even layers first, then odd ones.
        epochs: Of each layer; with signals from above and backprop, of all together.
        validate_every: Epochs between validations.
        patience: Validations in a row without improvement.
        learning_rate: Of Adam.
        weight_decay: Of Adam. If not given 5e-4; for links in top_to_input 0, which is what the
            official code trains these with.
    """

    task: Literal["node", "link"] = "node"
    mode: Mode = "single_forward"
    conv: ConvName = "gcn"
    layers: PositiveInt = 4
    hidden: PositiveInt = 128
    features: PositiveInt = 2879
    classes: PositiveInt = 7
    heads: PositiveInt = 4
    temperature: PositiveFloat = 1.0
    direction: Direction = "bidirection"
    append_label: Literal["none", "input", "all"] = "none"
    alternating: bool = True
    epochs: PositiveInt = 1000
    validate_every: PositiveInt = 2
    patience: PositiveInt | None = 100
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = Field(default_factory=lambda given: official_decay(given))

    @model_validator(mode="after")
    def _fits(self) -> "ForwardGNNConfig":
        if self.mode not in MODES[self.task]:
            raise ValueError(f"task {self.task} has the modes {', '.join(MODES[self.task])}")
        if self.conv == "gat" and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} should be a multiple of heads {self.heads}")
        allowed = ("single_forward", "forward_forward_virtual")
        if self.append_label == "all" and self.mode not in allowed:
            raise ValueError(f"append_label all is for the modes {' and '.join(allowed)}")
        if self.append_label != "none" and not self.virtual:
            raise ValueError("append_label is for modes with virtual nodes")
        return self

    @property
    def virtual(self) -> bool:
        """Whether there is a virtual node for each class."""
        return self.task == "node" and self.mode not in ("backprop", "forward_forward_labels")

    @property
    def forward_forward(self) -> bool:
        """Whether the mode is one of the forward-forward baselines."""
        return self.mode.startswith("forward_forward")

    def sizes(self) -> list[tuple[int, int]]:
        """Return how many features each layer reads and puts out."""
        labels = self.classes if self.task == "node" else 0
        appended = {"none": 0, "input": labels, "all": labels}[self.append_label]
        if self.mode == "forward_forward_labels":
            appended = labels
        read = [self.features + appended] + [self.hidden] * (self.layers - 1)
        put = [self.hidden] * self.layers
        if self.append_label == "all":
            read[1:] = [width + labels for width in read[1:]]
        if self.mode == "top_to_input":
            above = [*put[1:], labels]
            read = [own + seen for own, seen in zip(read, above, strict=True)]
        if self.mode == "backprop" and self.task == "node":
            put[-1] = self.classes
        return list(zip(read, put, strict=True))


def official_decay(settings: Mapping[str, Any]) -> float:
    """Return the weight decay that the official code trains a task and a mode with."""
    links_from_above = (settings.get("task"), settings.get("mode")) == ("link", "top_to_input")
    return 0.0 if links_from_above else 5e-4
