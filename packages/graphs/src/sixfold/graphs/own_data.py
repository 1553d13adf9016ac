"""Training on a graph of one's own: ``sixfold train graphs/mowst --data my.pt --out runs/mine``.

`sixfold.graphs.data.files` says which files can be given. The run folder gets
``model.safetensors``, which ``from_pretrained`` reads, and ``predictions.csv`` for every node.
"""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from sixfold.core import Config, UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.training.distributed import rank
from sixfold.graphs.data.files import GraphFile, read_graph_file
from sixfold.graphs.data.labels import Target
from sixfold.graphs.metrics import METRICS
from sixfold.graphs.models.forwardgnn import ForwardGNN, ForwardGNNConfig
from sixfold.graphs.models.gnnpipe import GNNPipe, GNNPipeConfig
from sixfold.graphs.models.mowst import Mowst, MowstConfig

MODEL, PREDICTIONS = "model.safetensors", "predictions.csv"
SPLITS = {"train": "train_mask", "val": "val_mask", "test": "test_mask"}


def train_file(
    make: Callable[[Any], Any],
    config: Config,
    data: Path,
    out: Path,
    split: tuple[float, float, float] = (0.6, 0.2, 0.2),
    *,
    undirected: bool = False,
    **fit: Any,
) -> Any:
    """Train an estimator on a graph from a file; write its weights and predictions.

    Args:
        make: Class of the estimator.
        config: Its settings.
        data: File or folder of the graph.
        out: Run folder; the same call resumes a killed training.
        split: Shares of training, validation and test nodes, where the graph has no masks.
        undirected: Whether each edge of the file is one in both directions.
        fit: Further arguments of the estimator's ``fit``.

    Raises:
        UserError: the graph cannot be read or trained on; the message says why.
    """
    settings: Any = config
    if getattr(settings, "task", "node") != "node":
        raise UserError(
            "links are learned from Python: ForwardGNN(task='link').fit(*split_links(data, 0)[:2])"
        )
    target: Target = getattr(settings, "target", "multiclass")
    options = {"target": target, "split": split, "undirected": undirected}
    graph = read_graph_file(data, **options, seed=settings.seed or 0)
    if rank() == 0:
        nodes, edges = len(graph.data.x), graph.data.edge_index.shape[1]
        print(f"{data}: {nodes} nodes, {edges} edges", *graph.notes, sep="\n", flush=True)
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    graph.data.to(device)
    model = make(config).to(device)
    model.fit(graph.data, folder=out, **fit)
    if rank() == 0:
        model.save(out / MODEL)
        write_atomic(out / PREDICTIONS, _to_csv(graph, _outputs(model, graph.data)))
        if bool(graph.data.test_mask.any()):
            score = model.score(graph.data)
            print(f"test {METRICS[target][0]}: {score:.2f}", flush=True)
        print(f"{out / MODEL}, {out / PREDICTIONS}", flush=True)
    return model


def _outputs(model: Any, data: Any) -> torch.Tensor:
    every = torch.ones(len(data.x), dtype=torch.bool, device=data.x.device)
    if getattr(model.config, "target", "multiclass") == "regression":
        return model.predict(data, every).cpu().reshape(len(data.x), -1)
    return model.predict_proba(data, every).cpu()


def _to_csv(graph: GraphFile, outputs: torch.Tensor) -> str:
    """Write a row a node: its split, and class and probability, or a column for each output."""
    masks = {name: graph.data[mask].tolist() for name, mask in SPLITS.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = graph.classes
    columns = (
        ["class", "probability"] if names else [f"output_{i}" for i in range(outputs.shape[1])]
    )
    writer.writerow(["node", "split", *columns])
    for node, row in enumerate(outputs.tolist()):
        split = next((name for name, mask in masks.items() if mask[node]), "")
        best = max(range(len(row)), key=row.__getitem__)
        values = [names[best], f"{row[best]:.6g}"] if names else [f"{v:.6g}" for v in row]
        writer.writerow([node, split, *values])
    return text.getvalue()


def _command(make: Callable[[Any], Any], settings: type[Config]) -> Callable[..., Any]:
    def train(
        *,
        data: Path,
        out: Path,
        split: tuple[float, float, float] = (0.6, 0.2, 0.2),
        undirected: bool = False,
        config: Any = None,
    ) -> Any:
        """Train on a graph of your own; write its weights and a prediction for every node.

        The same command resumes a training that was stopped. With other data or settings a run
        folder is set aside as OUT.old-1.

        Args:
            data: PyG Data (.pt), arrays (.npz), or a folder with nodes.csv and edges.csv.
            out: Run folder: curve, checkpoints, model.safetensors and predictions.csv.
            split: Shares of training, validation and test nodes, where the graph has no masks.
            undirected: Whether each edge of the file is one in both directions.
            config: Settings; `sixfold show` lists their defaults.
        """
        if config is None or isinstance(config, Mapping):
            config = settings.parse(config or {}, "config")
        return train_file(make, config, Path(data), Path(out), split, undirected=undirected)

    train.__annotations__["config"] = Annotated[settings | None, Parameter(name="*")]
    return train


train_forwardgnn = _command(ForwardGNN, ForwardGNNConfig)
train_mowst = _command(Mowst, MowstConfig)
train_gnnpipe = _command(GNNPipe, GNNPipeConfig)
