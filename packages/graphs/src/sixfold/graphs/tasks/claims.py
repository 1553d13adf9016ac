"""What the three papers claim, and how the report judges whether it shows."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Results = Mapping[str, dict[str, Any]]

FORWARD = (
    "The paper (arXiv:2403.11004) claims that layers trained one by one, each by a single forward "
    "pass with virtual nodes as labels, reach the accuracy of backpropagation at two to four "
    "layers, far more at one, and more than forward-forward; and that memory does not grow with "
    "depth. Its numbers on Cora_ML, GCN of 1, 2, 3, 4 layers: backpropagation 31.72, 86.84, 88.65, "
    "86.61 %, single forward 87.75, 87.95, 88.15, 88.48 %. The official code, run on CiteSeer-full "
    "with the same splits and seeds: backpropagation 94.28 ± 0.71 % at two layers, single forward "
    "92.67 % at one and 94.07 ± 0.88 % at two (spread by n, not n - 1). Forward-forward reads the "
    "labels of training and validation nodes when it is asked about others; the rest do not."
)
MODES = {
    "backpropagation": ("backprop_1", "backprop_2", "backprop_3", "backprop_4"),
    "single forward": ("single_forward",),
    "top-to-loss": ("top_to_loss",),
    "top-to-input": ("top_to_input",),
    "forward-forward, labels": ("forward_forward_labels",),
    "forward-forward, virtual nodes": ("forward_forward_virtual",),
}
MIXTURE = (
    "The paper (arXiv:2311.05185) claims that a mixture of a weak expert, an MLP, and a strong "
    "one, a GNN, is better than either, and than a GNN with an MLP as skip connection, on every "
    "graph. Here all are tuned by as many trials (learning rates), by validation accuracy. Mowst "
    "chooses an expert for each node, its accuracy is the expected one; Mowst* mixes logits."
)
SYSTEMS = {
    "mlp": "MLP",
    "gcn": "GCN",
    "gcn_skip": "GCN + MLP skip",
    "mowst": "Mowst",
    "mowst_star": "Mowst*",
}
PIPELINING = (
    "The paper (arXiv:2308.10087) claims that dividing layers among processes instead of the graph "
    "sends fewer bytes by a factor of the number of layers, and that training with embeddings of "
    "older epochs converges as well as the full graph. Its numbers on Squirrel, 8 GPUs, 32 layers, "
    "test accuracy of GCNII: graph parallel 34.74 ± 0.32 %, pipeline 38.04 ± 0.57 %; 2.753 against "
    "0.271 GiB an epoch (GCN). Epochs of one machine's processes say nothing about speed, so none "
    "are timed here."
)
VARIANTS = {
    "full_batch": "full batch, exact (as graph parallel)",
    "pipeline": "pipeline, all three techniques",
    "no_shuffle": "without shuffled chunks",
    "no_fixed_history": "without fixed history",
    "kept_gradients": "without discarded gradients",
    "no_technique": "without all three",
}


def differences(results: Results, pair: tuple[str, str], metric: str) -> list[float]:
    """Return one entry's score less another's, on the splits that both were trained on."""
    model, baseline = (results[name]["seeds"] for name in pair)
    return [model[seed][metric] - baseline[seed][metric] for seed in model if seed in baseline]


def judged(gains: Sequence[float]) -> tuple[str, float | None]:
    """Write a mean difference, and return the p value of a paired two-sided t test over splits."""
    from scipy.stats import ttest_1samp

    text = f"{statistics.fmean(gains):+.2f}"
    if len(gains) < 2 or statistics.stdev(gains) == 0:
        return text, None
    _, p = map(float, ttest_1samp(gains, 0.0))  # type: ignore[arg-type]
    return f"{text} (p = {p:.3f})", p


def mixtures_and_rivals(results: Results) -> list[tuple[str, str]]:
    """Pair every mixture with every single system that was trained."""
    mixtures = [key for key in ("mowst", "mowst_star") if key in results]
    rivals = [key for key in ("mlp", "gcn", "gcn_skip") if key in results]
    return [(mixed, rival) for mixed in mixtures for rival in rivals]


def compared(results: Results, graphs: Sequence[str]) -> list[dict[str, Any]]:
    """Make a row for every pair of a mixture and a rival."""
    return [
        {
            "pair": f"{SYSTEMS[pair[0]]} less {SYSTEMS[pair[1]]}",
            **{graph: judged(differences(results, pair, graph))[0] for graph in graphs},
        }
        for pair in mixtures_and_rivals(results)
    ]


def mixture_verdict(results: Results, graphs: Sequence[str]) -> list[str]:
    """Say on which graphs a mixture beats all its rivals, and on which it is surely worse."""
    said = []
    for mixed in dict.fromkeys(pair[0] for pair in mixtures_and_rivals(results)):
        won, lost = [], []
        for graph in graphs:
            pairs = [pair for pair in mixtures_and_rivals(results) if pair[0] == mixed]
            gains = [differences(results, pair, graph) for pair in pairs]
            sure = [(statistics.fmean(g), judged(g)[1]) for g in gains]
            if all(gain > 0 and p is not None and p < 0.05 for gain, p in sure):
                won.append(graph)
            if any(gain < 0 and p is not None and p < 0.05 for gain, p in sure):
                lost.append(graph)
        name = SYSTEMS[mixed]
        shows = "shows" if len(won) == len(graphs) else "does not show"
        said.append(
            f"The claim {shows} for {name}: it beats MLP, GCN and GCN + MLP skip, each with "
            f"p < 0.05, on {listed(won)}, and is beaten by one of them so on {listed(lost)} "
            f"of {len(graphs)} graphs."
        )
    return said


def forward_verdict(results: Results, memory: Mapping[str, float]) -> str:
    """Compare single forward with backpropagation at each depth, and the memory of both."""
    said = []
    for depth in (1, 2, 3, 4):
        metric, rival = f"accuracy_{depth}", f"backprop_{depth}"
        known = [
            k for k in ("single_forward", rival) if metric in results.get(k, {"mean": ()})["mean"]
        ]
        if len(known) < 2:
            continue
        both = {"single_forward": results["single_forward"], rival: results[rival]}
        text, _ = judged(differences(both, ("single_forward", rival), metric))
        said.append(f"{depth}: {text}")
    depths = sorted(int(key.rpartition("_")[2]) for key in memory if key.startswith("backprop"))
    ratios = [memory[f"single_forward_{d}"] / memory[f"backprop_{d}"] for d in depths]
    grows = [memory[f"single_forward_{d}"] for d in depths]
    flat = all(after <= 1.02 * before for before, after in pairwise(grows))
    return (
        "Single forward less backpropagation, points of accuracy by layers: "
        + "; ".join(said)
        + f". Its memory {'does not grow' if flat else 'grows'} from {depths[0]} to {depths[-1]} "
        f"layers; it is {ratios[0]:.2f} of backpropagation's at {depths[0]} layers and "
        f"{ratios[-1]:.2f} at {depths[-1]}."
    )


def pipelining_verdict(results: Results, sent: Mapping[str, float | int]) -> str:
    """Say how many fewer bytes the pipeline sends, and what old embeddings cost."""
    ratios = {
        key.removeprefix("graph_"): sent[key] / sent[f"pipeline_{key.removeprefix('graph_')}"]
        for key in sent
        if key.startswith("graph_") and key.removeprefix("graph_").replace("_", "").isdigit()
    }
    words = [
        f"{ratio:.1f} times with {key.split('_')[0]} processes and {key.split('_')[1]} layers"
        for key, ratio in ratios.items()
    ]
    text = f"Graph parallelism sends the pipeline's bytes {', '.join(words)}."
    if {"pipeline", "full_batch"} <= results.keys():
        gain, _ = judged(differences(results, ("pipeline", "full_batch"), "accuracy"))
        text += f" The pipeline's accuracy less that of the exact full batch: {gain} points."
    return text


def listed(names: Sequence[str]) -> str:
    """Join names, or say that there is none."""
    return " and ".join(names) if names else "none"
