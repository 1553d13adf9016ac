"""ForwardGNN as an estimator: build, fit, predict, score."""

from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.core import System, UserError
from sixfold.core.training.run import Run
from sixfold.core.training.sampling import derive_seed
from sixfold.graphs.data.labels import labelled, labels_of, resolve_mask
from sixfold.graphs.data.usual_forms import accepts_usual_forms
from sixfold.graphs.data.validate import (
    Data,
    fingerprint,
    resolve_config,
    resolve_sizes,
)
from sixfold.graphs.layers.convolutions import ConvName, MakeConv, make_conv
from sixfold.graphs.metrics import measure
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.convert import convert
from sixfold.graphs.models.forwardgnn.inputs import (
    check_edge_values,
    check_inputs,
    check_training,
    has_validation,
)
from sixfold.graphs.models.forwardgnn.link_prediction import (
    TopLinks,
    check_edge_label_index,
    check_edge_labels,
    find_links,
)
from sixfold.graphs.models.forwardgnn.modes import Procedure, link_procedure_of, procedure_of
from sixfold.graphs.models.forwardgnn.objective import Network
from sixfold.graphs.models.pretrained import load, refuse_other_sizes, save
from sixfold.graphs.models.seeding import resolve_seed, seeded
from sixfold.graphs.models.stages import Row, open_run, train
from sixfold.graphs.models.targets import predictions


class ForwardGNN(nn.Module):
    """Learn the classes of nodes, or links between them: ``ForwardGNN(layers=2).fit(data)``.

    Args:
        config: Settings; or give its fields by name, as in ``ForwardGNN(layers=2, conv="sage")``.
        conv: Name of a convolution, or a function from the numbers of input and output features to
            another convolution of PyG, such as ``TransformerConv``.
        settings: Fields of the config.

    Raises:
        UserError: a setting is unknown or invalid.
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
        self.config = resolve_config(ForwardGNNConfig, config, settings, "ForwardGNN")
        self._make_conv = None if isinstance(conv, str) else conv
        if self._make_conv is not None:
            self.config = self.config.model_copy(update={"conv": "custom"})
        elif self.config.conv == "custom":
            raise UserError(
                "conv is 'custom': pass the function that makes the convolutions, "
                "ForwardGNN(conv=...) or ForwardGNN.from_pretrained(path, conv=...)"
            )
        self.register_load_state_dict_pre_hook(refuse_other_sizes)
        self.history: list[Row] = []
        with seeded(self.config.seed, "weights"):
            self._build()

    @classmethod
    def from_pretrained(cls, path: str | Path, conv: MakeConv | None = None) -> "ForwardGNN":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of the file.
            conv: Function that makes the convolutions, if they were passed in when it was saved.

        Raises:
            UserError: the file is missing, damaged, another system's, or needs ``conv``.
        """
        return cast(ForwardGNN, load(path, SYSTEM, lambda config: cls(config, conv)))

    def save(self, path: str | Path) -> None:
        """Write weights and settings to a .safetensors file, which `from_pretrained` reads."""
        save(path, self, SYSTEM.name)

    @property
    def procedure(self) -> Procedure:
        """Training and prediction of the config's mode."""
        return procedure_of(self.config)

    @accepts_usual_forms
    def fit(
        self,
        data: Data,
        validation: Data | None = None,
        *,
        folder: str | Path | None = None,
    ) -> "ForwardGNN":
        """Train from the current weights, on the device of model and data.

        With ``val_mask`` (classes) or a ``validation`` graph (links) the best weights are kept and
        training stops early. ``history`` then holds a row for every optimiser step.

        Args:
            data: Graph with ``y`` and ``train_mask`` (classes), or with ``edge_label_index`` and
                ``edge_label`` (links).
            validation: Graph with labelled edges to validate on (links only).
            folder: Run folder; fitting again into the same folder, with the same seed, resumes a
                killed training.

        Raises:
            UserError: the graph cannot be trained on; the message says why.
        """
        validation = self._check(data, validation)
        with open_run(folder, self.config, lambda: self._fingerprint(data, validation)) as run:
            if run.state != "fresh":
                run.load("model", self)
            if run.state != "done":
                run.register("model", self)
                self.history = self._train(data, validation, run)
                run.finish({})
        return self.eval()

    @accepts_usual_forms
    def partial_fit(self, data: Data, layer: int, validation: Data | None = None) -> "ForwardGNN":
        """Train one layer, counted from 0, on top of the layers below as they are.

        Raises:
            UserError: there is no such layer, or the mode trains all layers together.
        """
        if not self.procedure.layer_by_layer or not 0 <= layer < self.config.layers:
            raise UserError(
                f"partial_fit trains one of the layers 0 to {self.config.layers - 1} in a mode "
                f"that trains them one by one, got layer {layer} in {self.config.mode}"
            )
        validation = self._check(data, validation)
        run = open_run(None, self.config, str)
        self.history = self._train(data, validation, run, range(layer, layer + 1))
        return self.eval()

    @accepts_usual_forms
    def forward(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Compute class scores of nodes, or scores of the pairs in ``edge_label_index``.

        Args:
            data: Graph that was fitted, or one with more edges. The labels of its training nodes
                are input; forward-forward reads those of ``val_mask`` too.
            nodes: Mask of the nodes to classify; ``test_mask`` if not given.
        """
        check_inputs(self, data)
        if self._predicts_links:
            check_edge_label_index(data, "given")
        else:
            nodes = resolve_mask(data, nodes)
        return self.procedure.class_scores(self._network(), data, nodes)

    @accepts_usual_forms
    def embed(self, data: Data) -> Float[Tensor, "node width"]:
        """Return embeddings of every node: the outputs of the last layer.

        In the mode backprop, where these are logits, its input: the hidden layer below. Labels of
        training nodes are input as in `forward`.
        """
        check_inputs(self, data)
        return self.procedure.embed(self._network(), data)

    @accepts_usual_forms
    def predict_proba(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return class probabilities of nodes, or those of links in ``edge_label_index``."""
        return self.procedure.probabilities(self(data, nodes), self.config)

    @accepts_usual_forms
    def predict(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return the most probable classes of nodes, or whether each pair of nodes is linked.

        For multilabel whether a node has each label, for regression its numbers.
        """
        if self._predicts_links:
            return self.predict_proba(data) > 0.5
        return predictions(self(data, nodes), self.config.target)

    @accepts_usual_forms
    def top_links(self, data: Data, k: int, nodes: Bool[Tensor, " node"] | None = None) -> TopLinks:
        """Return the k most probable links of nodes that the graph does not have yet.

        Args:
            data: Graph; it needs no pairs and no labels.
            k: Number of links of each node; where there are fewer, the rest is node -1.
            nodes: Mask of the nodes whose links are wanted; all if not given.

        Raises:
            UserError: the task is not link.
        """
        if not self._predicts_links:
            raise UserError("top_links is for ForwardGNN(task='link'), which learns links")
        check_inputs(self, data)
        every = torch.ones(len(data.x), dtype=torch.bool, device=data.x.device)
        chosen = every if nodes is None else resolve_mask(data, nodes)
        procedure = link_procedure_of(self.config)
        outputs = procedure.outputs(self._network(), data)
        return find_links(outputs, procedure.edge_loss, data.edge_index, k, chosen)

    @accepts_usual_forms
    def score(self, data: Data, nodes: Tensor | None = None, *, metric: str | None = None) -> float:
        """Return a metric of labelled nodes, or of labelled pairs.

        Args:
            data: Graph with ``y``, or with ``edge_label_index`` and ``edge_label``.
            nodes: Mask of the nodes to score; ``test_mask`` if not given.
            metric: Name in `sixfold.graphs.metrics.METRICS`; if not given, the accuracy in per
                cent, for multilabel the micro F1, for regression R2, for links the ROC-AUC.
        """
        if self._predicts_links:
            check_edge_labels(data, "given")
            return measure(metric, "links", self.predict_proba(data), data.edge_label)
        target = self.config.target
        y = labels_of(data, target)
        nodes = labelled(y, resolve_mask(data, nodes))
        outputs = self(data, nodes)
        if metric == "roc_auc":
            outputs = self.procedure.probabilities(outputs, self.config)
        return measure(metric, target, outputs, y[nodes])

    @property
    def _predicts_links(self) -> bool:
        return self.config.task == "link"

    def _build(self) -> None:
        """Draw layers and then virtual nodes, as official training does."""
        config, last = self.config, self.config.layers - 1
        self.layers = nn.ModuleList()
        for number, (features, width) in enumerate(self.procedure.layer_sizes(config)):
            if config.conv == "custom":
                assert self._make_conv is not None
                self.layers.append(self._make_conv(features, width))
                continue
            average = self.procedure.averages_last_heads and number == last
            self.layers.append(
                make_conv(
                    config.conv,
                    features,
                    width,
                    heads=config.heads,
                    average=average,
                    edge_dim=config.edge_dim,
                )
            )
        virtual = self.procedure.needs_virtual_nodes
        drawn = torch.randn(config.classes, config.features) if virtual else None
        self.register_buffer("virtual_nodes", drawn)

    def _network(self) -> Network:
        virtual = self.virtual_nodes if self.procedure.needs_virtual_nodes else None
        return Network(self.config, list(self.layers), virtual)

    def _check(self, data: Data, validation: Data | None) -> Data | None:
        """Check the graphs, fit unset sizes to them, and return the graph to validate on."""
        self._resolve_sizes(check_training(self, data, validation))
        check_edge_values(self, data, validation)
        if self._predicts_links:
            return validation
        return data if has_validation(data) else None

    def _resolve_sizes(self, sizes: dict[str, int]) -> None:
        """Build the layers again if sizes of the config were left to the data."""
        config = resolve_sizes(self.config, sizes, "ForwardGNN")
        if config is not None:
            like, self.config = next(self.parameters()), config
            with seeded(config.seed, "weights"):
                self._build()
            self.to(like)

    def _train(
        self,
        data: Data,
        validation: Data | None,
        run: Run,
        stages: range | None = None,
    ) -> list[Row]:
        seed = self.config.seed
        wrong_labels = derive_seed(resolve_seed(seed), "wrong labels")
        generator = torch.Generator().manual_seed(wrong_labels)
        self.train()
        with seeded(seed, "training"):
            method = self.procedure.training(self._network(), data, validation, generator)
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
    train="sixfold.graphs.own_data:train_forwardgnn",
)
