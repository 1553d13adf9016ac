"""ForwardGNN's single forward against the published procedure, and its memory against depth.

    python benchmarks/forwardgnn.py [--only speed|memory] [--epochs N] [--rounds N]

Needs the graph Photo (`sixfold.graphs.data.load.load_graph` finds or downloads it). The plain
procedure is in tests/graphs/support/reference_forwardgnn.py: PyG's convolutions on dense features,
and at every validation all layers computed again, as published. Both train the same weights on the
same graph; losses and accuracies are checked to be equal.
"""

import argparse
import copy
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from timing import write_benchmark
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures

from sixfold.core.pipeline.measure import peak_memory
from sixfold.graphs import ForwardGNN, ForwardGNNConfig
from sixfold.graphs.data.load import load_graph

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "graphs" / "support"))
import reference_forwardgnn as plain  # noqa: E402  # pyright: ignore[reportMissingImports]

RESULTS = ROOT / "benchmarks" / "results"
COMMAND = "python benchmarks/forwardgnn.py"
CONVS = ("gcn", "sage", "gat")
DEPTHS = (2, 4, 8, 16)


def photo() -> Data:
    """Load Photo with the official transform and split."""
    return NormalizeFeatures()(load_graph("photo", 0))


def make(data: Data, conv: str, mode: str, layers: int, epochs: int) -> ForwardGNN:
    """Draw a network of the published width."""
    torch.manual_seed(10_100)
    sizes = {"features": data.x.shape[1], "classes": int(data.y.max()) + 1}  # type: ignore[union-attr,operator]
    settings = {"conv": conv, "mode": mode, "layers": layers, "epochs": epochs, **sizes}
    return ForwardGNN(ForwardGNNConfig.parse(settings, "benchmark"))


def time_training(data: Data, conv: str, epochs: int, rounds: int) -> dict:
    """Train two layers both ways in turn; return a row of the table."""
    ours, theirs, ratios, last = [], [], [], {}
    for _ in range(rounds):
        model = make(data, conv, "single_forward", 2, epochs)
        layers = copy.deepcopy(list(model.layers))
        start = perf_counter()
        model.fit(data)
        ours.append(perf_counter() - start)
        start = perf_counter()
        losses = plain.train(layers, data, model.virtual_nodes, epochs=epochs)
        theirs.append(perf_counter() - start)
        ratios.append(theirs[-1] / ours[-1])
        last = check_results(model, layers, losses, data)
    return {
        "convolution": conv,
        "steps": 2 * epochs,
        "plain, s": f"{median(theirs):.2f}",
        "sixfold, s": f"{median(ours):.2f}",
        "speed-up": f"{median(ratios):.1f}x",
        **last,
    }


def check_results(model: ForwardGNN, layers: list, losses: list[float], data: Data) -> dict:
    """Raise if the losses of the two trainings differ; return both test accuracies."""
    found = [row["loss"] for row in model.history]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(losses), rtol=1e-3, atol=1e-4)
    x, edges = plain.augmented(data, model.virtual_nodes)
    predicted = plain.class_scores(layers, x, edges, model.config.classes).argmax(1)
    expected = 100 * float((predicted == data.y)[data.test_mask].float().mean())  # type: ignore[operator]
    return {"test, plain": f"{expected:.2f}", "test, sixfold": f"{model.score(data):.2f}"}


def memory(data: Data, conv: str, depth: int) -> dict:
    """Compare peak memory of training, besides model and graph; return a row of the table."""
    held = {}
    for mode in ("single_forward", "backprop"):
        model = make(data, conv, mode, depth, 2)
        held[mode] = peak_memory(lambda model=model: model.fit(data)) / 2**20
    layers = list(make(data, conv, "backprop", depth, 2).layers)
    plain_back = peak_memory(lambda: backpropagate(layers, data, epochs=2)) / 2**20
    single, back = held["single_forward"], held["backprop"]
    return {
        "convolution": conv,
        "layers": depth,
        "single forward, MiB": f"{single:.1f}",
        "backpropagation, MiB": f"{back:.1f}",
        "PyG's backpropagation, MiB": f"{plain_back:.1f}",
        "of ours": f"{single / back:.2f}",
        "of PyG's": f"{single / plain_back:.2f}",
    }


def backpropagate(layers: list, data: Data, epochs: int) -> None:
    """Train PyG's convolutions as they are, as the baseline's official code does."""
    optimizer = torch.optim.Adam([p for conv in layers for p in conv.parameters()], lr=1e-3)
    for _ in range(epochs):
        x = data.x
        for conv in layers[:-1]:
            x = conv(x, data.edge_index).relu()
        out = layers[-1](x, data.edge_index)
        loss = functional.cross_entropy(out[data.train_mask], data.y[data.train_mask])  # type: ignore[index]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    """Measure both, or one, and write the tables."""
    parser = argparse.ArgumentParser(
        description="Time ForwardGNN against the plain procedure.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--only", choices=("speed", "memory"), help="one of the two tables")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each layer")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each comparison")
    given = parser.parse_args()
    data = photo()
    if given.only != "memory":
        write_speed([print_row(time_training(data, c, given.epochs, given.rounds)) for c in CONVS])
    if given.only != "speed":
        write_memory([print_row(memory(data, c, depth)) for c in CONVS for depth in DEPTHS])


def print_row(row: dict) -> dict:
    """Print and return a row of a table."""
    print(*row.values(), sep=" | ", flush=True)
    return row


def write_speed(rows: list[dict]) -> None:
    """Write the table of times."""
    write_benchmark(
        RESULTS / "forwardgnn.md",
        "ForwardGNN against the published procedure, written plainly",
        COMMAND,
        rows,
        "Photo (7650 nodes, 745 features, 8 classes), two layers of width 128, validation at every "
        "second epoch. Medians of rounds in turn; the speed-up is the median of the rounds' "
        "ratios. Same weights at the start, losses checked to be equal; test: accuracy, %.",
    )


def write_memory(rows: list[dict]) -> None:
    """Write the table of peaks."""
    write_benchmark(
        RESULTS / "forwardgnn_memory.md",
        "Memory of ForwardGNN's training against depth",
        COMMAND,
        rows,
        "Photo, width 128, two epochs. The most bytes that `fit` held at once, besides model and "
        "graph: activations, gradients, Adam's moments, sorted edges. Our backpropagation uses the "
        "same fast convolutions, its ReLU overwrites what it reads, and its last layer is only as "
        "wide as there are classes; the baseline that one would run otherwise is PyG's.",
    )


if __name__ == "__main__":
    main()
