"""Mowst as an estimator: build, fit, predict, score; the two ways of mixing experts."""

from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.core import System, UserError
from sixfold.graphs.data.labels import check_labels, labelled, labels_of, resolve_mask
from sixfold.graphs.data.usual_forms import accepts_usual_forms
from sixfold.graphs.data.validate import (
    Data,
    check_dtype_and_device,
    check_graph,
    check_sizes,
    edge_sizes,
    fingerprint,
    resolve_config,
    resolve_sizes,
)
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.metrics import measure
from sixfold.graphs.models.mowst.config import MowstConfig
from sixfold.graphs.models.mowst.convert import convert
from sixfold.graphs.models.mowst.experts import (
    CustomExpert,
    MakeExpert,
    check_edge_values,
    make_expert,
)
from sixfold.graphs.models.mowst.gates import (
    ExpertOutputs,
    Gate,
    HyperGate,
    dispersion,
    expected_accuracy,
    mixture_weights,
)
from sixfold.graphs.models.mowst.official_behaviour import (
    sampled_accuracy,
    with_probabilities_as_logits,
)
from sixfold.graphs.models.mowst.training import MowstTraining
from sixfold.graphs.models.pretrained import load, refuse_other_sizes, save
from sixfold.graphs.models.seeding import seeded
from sixfold.graphs.models.stages import Row, open_run, train


class Mowst(nn.Module):
    """Learn the classes of nodes with experts of growing strength: ``Mowst(layers=2).fit(data)``.

    Args:
        config: Settings; or give its fields by name, as in ``Mowst(experts=("mlp", "sage"))``.
        strong: Module that replaces the last expert, from (x, edge_index) to logits, or a function
            from the numbers of features and classes to such a module. A checkpoint cannot name the
            module: pass it to `from_pretrained` too.
        settings: Fields of the config.

    Raises:
        UserError: a setting is unknown or invalid.
    """

    def __init__(
        self,
        config: MowstConfig | None = None,
        strong: nn.Module | MakeExpert | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.config = resolve_config(MowstConfig, config, settings, "Mowst")
        self._strong = strong
        if strong is not None:
            experts = (*self.config.experts[:-1], "custom")
            self.config = self.config.model_copy(update={"experts": experts})
        if "custom" in self.config.experts[: None if strong is None else -1]:
            raise UserError(
                "an expert is 'custom': pass the last one as a module or a function that makes it, "
                "Mowst(strong=...) or Mowst.from_pretrained(path, strong=...)"
            )
        self.register_load_state_dict_pre_hook(refuse_other_sizes)
        self.history: list[Row] = []
        with seeded(self.config.seed, "weights"):
            self._build()

    @classmethod
    def from_pretrained(
        cls, path: str | Path, strong: nn.Module | MakeExpert | None = None
    ) -> "Mowst":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of the file.
            strong: Last expert, or the function that makes it, if it was passed in when the model
                was saved.

        Raises:
            UserError: the file is missing, damaged, another system's, or needs ``strong``.
        """
        return cast(Mowst, load(path, SYSTEM, lambda config: cls(config, strong)))

    def save(self, path: str | Path) -> None:
        """Write weights and settings to a .safetensors file, which `from_pretrained` reads."""
        save(path, self, SYSTEM.name)

    @accepts_usual_forms
    def fit(self, data: Data, *, folder: str | Path | None = None) -> "Mowst":
        """Train from the current weights, on the device of model and data.

        ``history`` then holds a row for every optimiser step.

        Args:
            data: Graph with ``y``, ``train_mask`` and ``val_mask``.
            folder: Run folder; fitting again into the same folder, with the same seed, resumes a
                killed training.

        Raises:
            UserError: the graph cannot be trained on; the message says why.
        """
        check_graph(data)
        check_dtype_and_device(data.x, self)
        given = self.config.classes if "classes" in self.config.model_fields_set else None
        classes = check_labels(data, ["train_mask", "val_mask"], given)
        self._resolve_sizes(self._sizes(data) | {"classes": classes})
        self._check_edge_values(data)
        with open_run(folder, self.config, lambda: fingerprint(data) + str(self.experts)) as run:
            if run.state == "done":
                run.load("model", self)
                return self.eval()
            run.register("model", self)
            with seeded(self.config.seed, "training"):
                self.history = train(MowstTraining(self, data), run)
            run.finish({})
        return self.eval()

    def expert_outputs(
        self,
        x: Float[Tensor, "node feature"] | Features,
        topology: Topology,
        trained_expert: int | None = None,
    ) -> ExpertOutputs:
        """Run all experts and gates on every node.

        Args:
            x: Features.
            topology: Edges.
            trained_expert: The only expert that gets a gradient, with its gate; all if not given.
        """
        logits, confidences, grad = [], [], torch.is_grad_enabled()
        for number, expert in enumerate(self.experts):
            with torch.set_grad_enabled(grad and trained_expert in (None, number)):
                logits.append(expert(x, topology))
                if number < len(self.gates):
                    confidences.append(self.gates[number](dispersion(logits[-1]), x))
        return ExpertOutputs(logits, confidences, mixture_weights(confidences, logits[0]))

    def log_probabilities(self, outputs: ExpertOutputs) -> Float[Tensor, "node classes"]:
        """Mix the experts: logits for Mowst*, probabilities for Mowst."""
        weights = outputs.mixture_weights.unbind(1)
        pairs = list(zip(weights, outputs.logits, strict=True))
        if self.config.method == "mowst_star":
            return torch.stack([w[:, None] * z for w, z in pairs]).sum(0).log_softmax(1)
        return torch.stack([w[:, None] * z.softmax(1) for w, z in pairs]).sum(0).log()

    @torch.no_grad()
    @accepts_usual_forms
    def forward(self, data: Data) -> ExpertOutputs:
        """Run all experts and gates on every node of a graph."""
        self._check_inputs(data)
        outputs = self.expert_outputs(data.x, Topology.of(data))
        if not self.config.official_behaviour:
            return outputs
        return with_probabilities_as_logits(self, outputs, data.x)

    @torch.no_grad()
    @accepts_usual_forms
    def embed(self, data: Data) -> Float[Tensor, "node width"]:
        """Return embeddings of every node: what enters the last layer of each expert, side by side.

        Raises:
            UserError: the last expert is a module of the user's own.
        """
        self._check_inputs(data)
        topology = Topology.of(data)
        hidden = [cast(Any, expert).hidden(data.x, topology) for expert in self.experts]
        return torch.cat(hidden, 1)

    @accepts_usual_forms
    def predict_proba(
        self, data: Data, nodes: Tensor | None = None
    ) -> Float[Tensor, "node classes"]:
        """Return class probabilities; for Mowst their expectation over the draw of an expert.

        Args:
            data: Graph.
            nodes: Mask of the nodes to classify; ``test_mask`` if not given.
        """
        nodes = resolve_mask(data, nodes)
        return self.log_probabilities(self(data))[nodes].exp()

    @accepts_usual_forms
    def predict(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return the most probable classes of nodes, those of ``test_mask`` if not given."""
        return self.predict_proba(data, nodes).argmax(1)

    @accepts_usual_forms
    def score(self, data: Data, nodes: Tensor | None = None, *, metric: str | None = None) -> float:
        """Return a metric of `predict` on labelled nodes.

        Args:
            data: Graph with ``y``.
            nodes: Mask of the nodes to score; ``test_mask`` if not given.
            metric: Name in `sixfold.graphs.metrics.METRICS`; the accuracy in per cent if not given.
        """
        y = labels_of(data)
        nodes = labelled(y, resolve_mask(data, nodes))
        return measure(metric, "multiclass", self.predict_proba(data, nodes), y[nodes])

    @accepts_usual_forms
    def expected_accuracy(self, data: Data, nodes: Tensor | None = None) -> float:
        """Return the expected accuracy of an expert drawn for each node, in per cent (Mowst only).

        This is the inference of the paper's Algorithm 1, by which training in turns is validated;
        `predict` chooses the class that is most probable over the draw.

        Args:
            data: Graph with ``y``.
            nodes: Mask of the nodes to score; ``test_mask`` if not given.

        Raises:
            UserError: the method is mowst_star, which draws no experts.
        """
        if self.config.method == "mowst_star":
            raise UserError("mowst_star mixes logits and draws no expert; score() is its accuracy")
        y = labels_of(data)
        return self.turn_accuracy(self(data), y, labelled(y, resolve_mask(data, nodes)))

    def turn_accuracy(
        self, outputs: ExpertOutputs, y: Tensor, nodes: Bool[Tensor, " node"]
    ) -> float:
        """Return the accuracy that turns are validated by, see `expected_accuracy`."""
        measure = sampled_accuracy if self.config.official_behaviour else expected_accuracy
        return measure(outputs, y, nodes)

    def _build(self) -> None:
        config = self.config
        experts = [make_expert(name, config) for name in config.experts if name != "custom"]
        if (strong := self._strong) is not None:
            if not isinstance(strong, nn.Module):
                strong = strong(config.features, config.classes)
            experts.append(CustomExpert(strong, config.classes))
        self.experts = nn.ModuleList(experts)
        make_gate = HyperGate if config.gate == "hyper" else Gate
        self.gates = nn.ModuleList(make_gate(config) for _ in experts[1:])

    def _sizes(self, data: Data) -> dict[str, int]:
        attends = "gat" in self.config.experts
        return {"features": data.x.shape[1]} | (edge_sizes(data, self.config) if attends else {})

    def _check_inputs(self, data: Data) -> None:
        """Check that a fitted network can read a graph."""
        check_graph(data)
        check_dtype_and_device(data.x, self)
        check_sizes(self.config, self._sizes(data), "Mowst")
        self._check_edge_values(data)

    def _check_edge_values(self, data: Data) -> None:
        for expert in self.experts:
            check_edge_values(expert, Topology.of(data))

    def _resolve_sizes(self, sizes: dict[str, int]) -> None:
        """Build the experts again if sizes of the config were left to the data."""
        config = resolve_sizes(self.config, sizes, "Mowst")
        if config is not None:
            like, self.config = next(self.parameters()), config
            with seeded(config.seed, "weights"):
                self._build()
            self.to(like)


SYSTEM = System(
    name="mowst",
    paper="arXiv:2311.05185",
    config=MowstConfig,
    build=Mowst,
    convert=convert,
    published={"flickr_gcn": (MowstConfig(), 181_647)},
    train="sixfold.graphs.own_data:train_mowst",
)
