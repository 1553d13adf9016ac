"""ForwardGNN: graph neural networks trained layer by layer, without backpropagation through them.

N. Park, X. Wang, A. Simoulin, S. Yang, G. Yang, R. Rossi, P. Trivedi, N. Ahmed, "Forward Learning
of Graph Neural Networks", ICLR 2024. arXiv:2403.11004

The modes, each in its own file: `single_forward`, the method; `top_down`, its extensions with
signals from above; `forward_forward` and `backprop`, its baselines; `link_prediction`, the second
task. What they share is in `greedy` and `virtual_nodes`.

The defaults are the paper's four-layer GCN on Cora_ML. All modes compute what the official code
does; the frozen layers are computed once instead of at every validation.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sixfold.core import System, UserError, from_pretrained
from sixfold.core.training.run import Run
from sixfold.graphs.data.validate import (
    Data,
    adopt_sizes,
    check_graph,
    check_labels,
    check_sizes,
    check_type,
    chosen,
    fingerprint,
    labels_of,
    settle,
)
from sixfold.graphs.layers.convolutions import ConvName, MakeConv, make_conv
from sixfold.graphs.metrics import accuracy, roc_auc
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.convert import convert
from sixfold.graphs.models.forwardgnn.link_prediction import check_edge_labels
from sixfold.graphs.models.forwardgnn.modes import evidence, make_method, probabilities
from sixfold.graphs.models.stages import Row, open_run, train


class ForwardGNN(nn.Module):
    """Learn the classes of nodes, or links between them: ``ForwardGNN(layers=2).fit(data)``.

    Args:
        config: Or its fields by name, as in ``ForwardGNN(layers=2, conv="sage")``.
        conv: A name, or what makes another convolution of PyG from its numbers of features in and
            out, such as ``TransformerConv``.

    Raises:
        UserError: a setting is unknown or does not fit.
    """

    virtual_nodes: Tensor

    def __init__(
        self,
        config: ForwardGNNConfig | None = None,
        conv: ConvName | MakeConv | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if isinstance(conv, str):
            settings["conv"] = conv
        self.config = settle(ForwardGNNConfig, config, settings, "ForwardGNN")
        self._make_conv = None if isinstance(conv, str) else conv
        self.history: list[Row] = []
        self._build()

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "ForwardGNN":
        """Load an official or a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing, damaged, or another system's.
        """
        return cast(ForwardGNN, from_pretrained(path, SYSTEM))

    def fit(
        self,
        data: Data,
        validation: Data | None = None,
        *,
        folder: str | Path | None = None,
        seed: int = 0,
    ) -> "ForwardGNN":
        """Train, from the weights that are there, on the device where model and data are.

        With ``val_mask`` (classes) or a ``validation`` graph (links) the best weights are kept and
        training stops early. ``history`` then holds a row for every optimiser step.

        Args:
            data: For classes with ``y`` and ``train_mask``; for links with ``edge_label_index`` and
                ``edge_label``.
            validation: For links only, labelled edges as well.
            folder: A run folder. Fitting again into it goes on where it was killed.
            seed: Of the wrong labels that forward-forward draws.

        Raises:
            UserError: the graph cannot be learnt on; the message says why.
        """
        validation = self._check(data, validation)
        with open_run(folder, self.config, lambda: self._fingerprint(data, validation)) as run:
            if run.state != "fresh":
                run.load("model", self)
            if run.state != "done":
                run.register("model", self)
                self.history = self._train(data, validation, seed, run)
                run.finish({})
        return self.eval()

    def partial_fit(self, data: Data, layer: int, validation: Data | None = None) -> "ForwardGNN":
        """Train one layer, counted from 0, on top of those below as they are.

        Raises:
            UserError: there is no such layer, or the mode trains all layers together.
        """
        together = ("top_to_input", "top_to_loss", "backprop")
        if self.config.mode in together or not 0 <= layer < self.config.layers:
            raise UserError(
                f"partial_fit trains one of the layers 0 to {self.config.layers - 1} in a mode "
                f"that trains them one by one, got layer {layer} in {self.config.mode}"
            )
        validation = self._check(data, validation)
        run = Run.open(None, self.config, "")
        self.history = self._train(data, validation, 0, run, range(layer, layer + 1))
        return self.eval()

    def forward(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return the evidence that `predict` takes the largest of, see `forward_modes.evidence`.

        Args:
            data: The graph that was fitted, or one with more edges. The labels of its training
                nodes go in; forward-forward reads those of ``val_mask`` too.
            nodes: Which to tell the classes of; ``test_mask`` if not given.
        """
        check_graph(data)
        check_type(data.x, self)
        if self.config.task == "link":
            check_edge_labels(data, "given")
        else:
            nodes = chosen(data, nodes)
        if self.config.task == "node" and self.config.mode != "backprop":  # its labels go in
            check_labels(data, ["train_mask"], self.config.classes)
        check_sizes(self.config, {"features": data.x.shape[1]}, "ForwardGNN")
        return evidence(list(self.layers), self._virtual(), self.config, data, nodes)

    def predict_proba(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return probabilities of the classes of some nodes, or of the labelled edges."""
        return probabilities(self(data, nodes), self.config)

    def predict(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return the classes of some nodes, or whether each labelled edge is one."""
        said = self.predict_proba(data, nodes)
        return said > 0.5 if self.config.task == "link" else said.argmax(1)

    def score(self, data: Data, nodes: Tensor | None = None) -> float:
        """Return the accuracy in per cent, or for links the ROC-AUC between 0 and 1."""
        if self.config.task == "link":
            return roc_auc(self.predict_proba(data), data.edge_label)
        nodes = chosen(data, nodes)
        return accuracy(self(data, nodes), labels_of(data)[nodes])

    def _build(self) -> None:
        """Draw layers and then virtual nodes, as official training does."""
        config, last = self.config, self.config.layers - 1
        self.layers = nn.ModuleList()
        for number, (features, width) in enumerate(config.sizes()):
            if self._make_conv is not None:
                self.layers.append(self._make_conv(features, width))
                continue
            average = config.mode == "backprop" and number == last
            self.layers.append(
                make_conv(config.conv, features, width, heads=config.heads, average=average)
            )
        drawn = torch.randn(config.classes, config.features) if config.virtual else None
        self.register_buffer("virtual_nodes", drawn)

    def _virtual(self) -> Tensor | None:
        return self.virtual_nodes if self.config.virtual else None

    def _check(self, data: Data, validation: Data | None) -> Data | None:
        """Check the graphs, fit the sizes to them if they were left open, say what validates."""
        check_graph(data)
        check_type(data.x, self)
        if self.config.task == "link":
            check_edge_labels(data, "training")
            if validation is not None:
                check_graph(validation)
                check_edge_labels(validation, "validation")
            self._adopt({"features": data.x.shape[1]})
            return validation
        if validation is not None:
            raise UserError("classes are validated on val_mask of the same graph; pass one graph")
        validated = getattr(data, "val_mask", None) is not None
        given = self.config.classes if "classes" in self.config.model_fields_set else None
        masks = ["train_mask", "val_mask"] if validated else ["train_mask"]
        classes = check_labels(data, masks, given)
        self._adopt({"features": data.x.shape[1], "classes": classes})
        return data if validated else None

    def _adopt(self, sizes: dict[str, int]) -> None:
        config = adopt_sizes(self.config, sizes, "ForwardGNN")
        if config is not None:
            like, self.config = next(self.parameters()), config
            self._build()
            self.to(like)

    def _train(
        self,
        data: Data,
        validation: Data | None,
        seed: int,
        run: Run,
        stages: range | None = None,
    ) -> list[Row]:
        generator = torch.Generator().manual_seed(seed)
        layers = list(self.layers)
        self.train()
        method = make_method(layers, self._virtual(), self.config, data, validation, generator)
        return train(method, run, stages)

    def _fingerprint(self, data: Data, validation: Data | None) -> str:
        graphs = [data] if validation is None else [data, validation]
        return fingerprint(*graphs) + str(self.layers)


SYSTEM = System(
    name="forwardgnn",
    paper="arXiv:2403.11004",
    config=ForwardGNNConfig,
    build=ForwardGNN,
    convert=convert,
    published={"cora_ml_gcn_4": (ForwardGNNConfig(), 418_176)},
)
