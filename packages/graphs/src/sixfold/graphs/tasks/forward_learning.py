"""ForwardGNN's modes against backpropagation: accuracy, and memory of training against depth.

The official protocol (specification of the paper's section 4): five splits, the run of split i has
the seed 10100 + 3 i; Adam, 1000 epochs of each layer, validation every second one.
"""

from pathlib import Path

import torch
from pydantic import Field, PositiveInt

from sixfold.core.config import Config, UserError, unknown
from sixfold.core.pipeline.measure import peak_memory
from sixfold.core.pipeline.params import Job, OwnTask
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.graphs.data.prepared import read_graph, read_manifest
from sixfold.graphs.data.validate import Data
from sixfold.graphs.metrics import accuracy
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.estimator import SYSTEM, ForwardGNN
from sixfold.graphs.models.forwardgnn.modes import procedure_of
from sixfold.graphs.models.forwardgnn.objective import Network

MEMORY = "training_memory"
DEPTHS = (2, 4, 8, 16, 32, 64)


class ForwardData(Config):
    """The ``forward_learning:`` block of the data.

    Args:
        graph: A key of `sixfold.graphs.data.catalog.GRAPHS`; the built-in source has digits
            instead.
    """

    graph: str = "citeseer_full"


class ForwardTraining(Config):
    """The ``train:`` block.

    Args:
        steps: Epochs, of each layer or of all together, as the mode says.
        threads: Of the CPU.
    """

    steps: PositiveInt = 1000
    threads: int | None = Field(default=1, ge=1)


def graph_of(folder: Path, split: int) -> Data:
    """Return the prepared graph, its features normalised as in the official protocol."""
    (name,) = read_manifest(folder)["graphs"]
    return read_graph(folder, name, split, normalised=True)


def train(job: Job) -> None:
    """Train one mode on the split of the seed's number."""
    torch.set_num_threads(job.settings.threads or torch.get_num_threads())
    data = graph_of(job.prepared, job.seed)
    torch.manual_seed(10_100 + 3 * job.seed)
    model = ForwardGNN(_config(job.config, data, epochs=job.settings.steps))
    model.fit(data, folder=job.run, seed=job.seed)
    save_pretrained(job.weights.with_suffix(".safetensors"), model, SYSTEM.name, model.config)


def evaluate(model: Job | str, folder: Path, samples: Path | None) -> dict[str, float | None]:
    """Score a trained mode, or measure memory.

    Args:
        model: A trained seed, or the name of the reference: ``training_memory``.
        folder: The prepared data.
        samples: Not used: there is nothing to look at but the scores.

    Returns:
        ``accuracy_<depth>``, in per cent of the test nodes: with layers that were trained one by
        one each depth is a network of its own. Of the reference, ``<mode>_<depth>`` in MiB.

    Raises:
        UserError: there is no such reference.
    """
    if isinstance(model, str):
        if model != MEMORY:
            raise UserError(unknown("forward_learning", "reference", model, (MEMORY,)))
        with torch.inference_mode(False):  # scoring is done in it, and this is training
            return memory(graph_of(folder, 0))
    data = graph_of(folder, model.seed)
    trained = from_pretrained(model.weights.with_suffix(".safetensors"), SYSTEM)
    assert isinstance(trained, ForwardGNN)
    config, layers, y = trained.config, list(trained.layers), data.y[data.test_mask]
    procedure, scores = procedure_of(config), {}
    virtual = trained.virtual_nodes if procedure.needs_virtual_nodes else None
    for depth in range(1, config.layers + 1) if procedure.layer_by_layer else (config.layers,):
        shallow = config.model_copy(update={"layers": depth})
        network = Network(shallow, layers[:depth], virtual)
        class_scores = procedure.class_scores(network, data, data.test_mask)
        scores[f"accuracy_{depth}"] = accuracy(class_scores, y)
    return scores


def memory(data: Data) -> dict[str, float | None]:
    """Measure the most MiB that a training epoch holds, besides graph and model."""
    found: dict[str, float | None] = {}
    for mode in ("single_forward", "backprop"):
        for depth in DEPTHS:
            given = ForwardGNNConfig.parse({"mode": mode, "layers": depth}, MEMORY)
            model = ForwardGNN(_config(given, data, epochs=1))
            bytes_held = peak_memory(lambda model=model: model.fit(data))
            found[f"{mode}_{depth}"] = round(bytes_held / 2**20, 1)
    return found


def _config(config: ForwardGNNConfig, data: Data, epochs: int) -> ForwardGNNConfig:
    sizes = {"features": data.x.shape[1], "classes": int(data.y.max()) + 1, "epochs": epochs}
    return config.model_copy(update=sizes)


TASK = OwnTask(ForwardTraining, train, evaluate, (MEMORY,))
