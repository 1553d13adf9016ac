"""GNNPipe as an estimator: build, fit on one or several processes, predict, score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sixfold.core import System, UserError
from sixfold.core.training.distributed import broadcast, launch, rank, world_size
from sixfold.graphs.data.labels import check_labels, labelled, labels_of, resolve_mask
from sixfold.graphs.data.usual_forms import accepts_usual_forms
from sixfold.graphs.data.validate import (
    Data,
    check_dtype_and_device,
    check_graph,
    check_sizes,
    fingerprint,
    resolve_config,
    resolve_sizes,
)
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.losses import class_weights
from sixfold.graphs.metrics import measure
from sixfold.graphs.models.gnnpipe.adjacency import Ranges, Rows, entries
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.convert import convert
from sixfold.graphs.models.gnnpipe.layers import (
    as_layer,
    check_edge_values,
    check_layers,
    make_layers,
    probe,
)
from sixfold.graphs.models.gnnpipe.partition import Chunks, cut, cut_edges
from sixfold.graphs.models.gnnpipe.process_grid import Grid, bubble_fraction
from sixfold.graphs.models.gnnpipe.stage import Nodes, Pipeline
from sixfold.graphs.models.gnnpipe.traffic import Traffic, traffic_of
from sixfold.graphs.models.gnnpipe.training import Training, train
from sixfold.graphs.models.gnnpipe.transport import Communicator
from sixfold.graphs.models.pretrained import load, refuse_other_sizes, save
from sixfold.graphs.models.seeding import resolve_seed, seeded
from sixfold.graphs.models.stages import Row, check_processes, open_run
from sixfold.graphs.models.targets import predictions, probabilities
from sixfold.kernels.graph import Csr


class GNNPipe(nn.Module):
    """Learn the classes of nodes on the full graph: ``GNNPipe(layers=8, chunks=8).fit(data)``.

    Under torchrun the processes form ``ways`` pipelines with the same number of stages, which `fit`
    joins and leaves again; a single process computes the same numbers, without torch.distributed.

    Args:
        config: Settings; or give its fields by name, as in ``GNNPipe(architecture="gcnii")``.
        model: Layers of your own, see `sixfold.graphs.models.gnnpipe.layers.Layer`; the settings
            that describe a model are then ignored.
        settings: Fields of the config.

    Raises:
        UserError: a setting is unknown or invalid.
    """

    def __init__(
        self,
        config: GNNPipeConfig | None = None,
        model: Sequence[nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.config = resolve_config(GNNPipeConfig, config, settings, "GNNPipe")
        self._own_model = model is not None
        if self._own_model:
            self.config = self.config.model_copy(update={"architecture": "custom"})
        elif self.config.architecture == "custom":
            raise UserError(
                "architecture is 'custom': pass the layers, GNNPipe(model=...) or "
                "GNNPipe.from_pretrained(path, model=...)"
            )
        self.layers = self._make_layers() if model is None else check_layers(model)
        self.register_load_state_dict_pre_hook(refuse_other_sizes)
        self.history: list[Row] = []
        self.chunks: Chunks | None = None
        self.bytes_sent: Traffic = {}
        self.bytes_expected: Traffic = {}

    @classmethod
    def from_pretrained(
        cls, path: str | Path, model: Sequence[nn.Module] | None = None
    ) -> "GNNPipe":
        """Load a checkpoint, in eval mode.

        Args:
            path: Path of the file.
            model: Layers of your own, if they were passed in when the model was saved.

        Raises:
            UserError: the file is missing, damaged, another system's, or needs ``model``.
        """
        return cast(GNNPipe, load(path, SYSTEM, lambda config: cls(config, model)))

    def save(self, path: str | Path) -> None:
        """Write weights and settings to a .safetensors file, which `from_pretrained` reads.

        Every process of torchrun has the trained weights; one of them should save.
        """
        save(path, self, SYSTEM.name)

    @accepts_usual_forms
    def fit(
        self,
        data: Data,
        *,
        folder: str | Path | None = None,
        part: Int[Tensor, " node"] | None = None,
        checkpoint_every: int | None = None,
        timeout_s: float = 600.0,
    ) -> "GNNPipe":
        """Train from the current weights, on the device of model and data.

        Every process is given the whole graph, and starts from the weights of the first process.
        Afterwards every process has the trained model; ``history`` holds a row for each epoch,
        ``bytes_sent`` the bytes of the last epoch by kind, and ``bytes_expected`` those of the
        paper's formulas.

        Args:
            data: Graph with ``y`` and ``train_mask``; with ``val_mask`` the best weights are kept.
            folder: Run folder; fitting again into the same folder, with the same seed, resumes a
                killed training, also on another number of stages.
            part: Chunk of each node; partitioned if not given.
            checkpoint_every: Number of epochs between checkpoints, besides one about every minute.
            timeout_s: Maximum time to wait for another process, in seconds.

        Raises:
            UserError: the graph cannot be trained on, or not by this number of processes.
            RankFailedError: another process died.
        """
        with launch():
            training = self.prepare(data, part, timeout_s)
            with open_run(folder, self.config, lambda: self._fingerprint(data, part)) as run:
                if run.state == "done":
                    run.load("model", self)
                    return self.eval()
                self.history = train(training, self, run, checkpoint_every)
                self.bytes_sent = training.traffic()
                self.bytes_expected = traffic_of(training.pipeline, self.chunks, data.edge_index)
                run.finish({})
        return self.eval()

    @accepts_usual_forms
    def prepare(
        self, data: Data, part: Int[Tensor, " node"] | None = None, timeout_s: float = 600.0
    ) -> Training:
        """Check and partition a graph, and return its training, to run epochs by hand.

        Under torchrun inside ``with sixfold.core.training.distributed.launch()``.
        """
        check_processes()
        check_graph(data)
        validated = getattr(data, "val_mask", None) is not None
        given = self.config.classes if "classes" in self.config.model_fields_set else None
        masks = ["train_mask", "val_mask"] if validated else ["train_mask"]
        given, target = None if self._own_model else given, self.config.target
        classes = check_labels(data, masks, given, target)
        self._resolve_sizes(data, classes)
        check_edge_values(data, self.layers)
        config = self.config
        config = config.model_copy(update={"seed": broadcast(resolve_seed(config.seed))})
        grid = Grid.of(config.ways, world_size(), rank(), len(self.layers))
        chunks = self._cut(data, part, config)
        order, place = chunks.order.to(data.x.device), chunks.place.to(data.x.device)
        y, setting = labels_of(data, config.target), config.class_weight
        weight = class_weights(setting, y[data.train_mask], classes, data.x)
        nodes = Nodes(data.x[order], y[order], data.train_mask[order], weight)
        pipeline = Pipeline(
            self.layers,
            nodes,
            Topology(place[data.edge_index], len(data.x), getattr(data, "edge_weight", None)),
            Ranges(chunks, grid),
            config,
            Communicator(timeout_s),
        )
        return Training(pipeline, data.val_mask[order] if validated else None)

    @torch.no_grad()
    @accepts_usual_forms
    def forward(self, data: Data) -> Float[Tensor, "node classes"]:
        """Return logits of every node, computed exactly, by this process alone."""
        return self._state(data, len(self.layers))

    @torch.no_grad()
    @accepts_usual_forms
    def embed(self, data: Data) -> Float[Tensor, "node width"]:
        """Return embeddings of every node: the hidden values that enter the last layer."""
        return self._state(data, len(self.layers) - 1)

    def _state(self, data: Data, depth: int) -> Float[Tensor, "node width"]:
        """Return the values of every node after some layers."""
        check_graph(data)
        check_dtype_and_device(data.x, self)
        if not self._own_model:
            check_sizes(self.config, {"features": data.x.shape[1]}, "GNNPipe")
        check_edge_values(data, self.layers)
        topology, state, matrices = Topology.of(data), (data.x,), {}
        for layer in map(as_layer, self.layers[:depth]):
            values, kept = layer.pre(state)
            if layer.matrix and layer.matrix not in matrices:
                row, col, weight = entries(layer.matrix, topology, values.dtype)
                matrices[layer.matrix] = Rows(Csr.from_sorted(row, col, len(data.x)), weight)
            values = matrices[layer.matrix].times(values) if layer.matrix else values
            state = layer.post(values, kept)
        return state[0]

    @accepts_usual_forms
    def predict_proba(
        self, data: Data, nodes: Tensor | None = None
    ) -> Float[Tensor, "node classes"]:
        """Return class or label probabilities of nodes, those of ``test_mask`` if not given."""
        nodes = resolve_mask(data, nodes)
        return probabilities(self(data)[nodes], self.config.target)

    @accepts_usual_forms
    def predict(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return the most probable classes of nodes, those of ``test_mask`` if not given.

        For multilabel whether a node has each label, for regression its numbers.
        """
        nodes = resolve_mask(data, nodes)
        return predictions(self(data)[nodes], self.config.target)

    @accepts_usual_forms
    def score(self, data: Data, nodes: Tensor | None = None, *, metric: str | None = None) -> float:
        """Return a metric of labelled nodes.

        Args:
            data: Graph with ``y``.
            nodes: Mask of the nodes to score; ``test_mask`` if not given.
            metric: Name in `sixfold.graphs.metrics.METRICS`; if not given, the accuracy in per
                cent, for multilabel the micro F1, for regression R2.
        """
        target = self.config.target
        y = labels_of(data, target)
        nodes = labelled(y, resolve_mask(data, nodes))
        outputs = self(data)[nodes]
        if metric == "roc_auc" and target == "multiclass":
            outputs = outputs.softmax(1)
        return measure(metric, target, outputs, y[nodes])

    def bubble_fraction(self, stages: int) -> float:
        """Return the fraction of an epoch that a stage idles, if all stages are equally fast."""
        return bubble_fraction(self.config.chunks // self.config.ways, stages)

    def _cut(self, data: Data, part: Tensor | None, config: GNNPipeConfig) -> Chunks:
        nodes = len(data.x)
        if part is not None:
            if part.shape != (nodes,) or part.dtype != torch.int64:
                raise UserError(
                    f"part should be the chunk of every node, int64 shaped ({nodes},), got "
                    f"{part.dtype} {tuple(part.shape)}"
                )
            self.chunks = Chunks.from_parts(part.cpu(), config.chunks)
        else:
            edges = data.edge_index.cpu()
            self.chunks = cut(edges, nodes, config.chunks, config.partition, config.seed or 0)
        if rank() == 0:
            share = cut_edges(data.edge_index, self.chunks) / max(1, data.edge_index.shape[1])
            print(
                f"cut: {config.chunks} chunks of {nodes} nodes ({self.chunks.method}), "
                f"{share:.0%} of the edges are between chunks",
                flush=True,
            )
        return self.chunks

    def _resolve_sizes(self, data: Data, classes: int) -> None:
        """Build the layers again if sizes of the config were left to the data."""
        check_dtype_and_device(data.x, self)
        if self._own_model:
            width = probe(self.layers, data.x)[-1][1][0]
            if width < classes or (width > classes and self.config.target != "multiclass"):
                raise UserError(
                    f"the last layer has {width} outputs, but there are {classes} classes"
                )
            return
        sizes = {"features": data.x.shape[1], "classes": classes}
        config = resolve_sizes(self.config, sizes, "GNNPipe")
        if config is not None:
            like, self.config = next(self.parameters()), config
            self.layers = self._make_layers().to(like)

    def _make_layers(self) -> nn.ModuleList:
        with seeded(self.config.seed, "weights"):
            return make_layers(self.config)

    def _fingerprint(self, data: Data, part: Tensor | None) -> str:
        given = "" if part is None else str(part.tolist())
        return fingerprint(data) + str(self.layers) + given


SYSTEM = System(
    name="gnnpipe",
    paper="arXiv:2308.10087",
    config=GNNPipeConfig,
    build=GNNPipe,
    convert=convert,
    published={"squirrel_gcn": (GNNPipeConfig(), 32_094_000)},
    train="sixfold.graphs.own_data:train_gnnpipe",
)
