"""FinalMLP against its published formulation: training steps, lazy Adam, latency of one sample.

The published formulation (reference_finalmlp.py, reference_ctr.py) looks every field up in a table
of its own, computes gates for every sample and a product for every head, and takes the regulariser
of whole tables through autograd.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from ctr_cases import published_call, row, sixfold_call, zipf_batch
from reference_finalmlp import ReferenceFinalMLP
from timing import compare, write_benchmark

from sixfold.core.weights.export import export
from sixfold.recsys import FinalMLP, FinalMLPConfig
from sixfold.recsys.data.vocabularies import criteo, numbered, spread
from sixfold.recsys.models.finalmlp import AVAZU, CRITEO, FRAPPE, loss, to_official
from sixfold.recsys.models.finalmlp.export import exportable

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/finalmlp.py"
# as many users and items in 4,096 samples as in Frappe: 543 and 2,200
FRAPPE_EXPONENTS = {"user": 1.2, "item": 0.6}
LARGE = AVAZU.model_copy(update={"fields": spread(numbered("feat_", 22), 15_000_000)})
CASES = {
    "Frappe, 10 fields, 5,399 ids": (FRAPPE, 0.05, FRAPPE_EXPONENTS),
    "Criteo, 39 fields, 1.0 M ids": (
        CRITEO.model_copy(update={"fields": criteo(1_000_000)}),
        1e-5,
        {},
    ),
}


def training(threads: int, repeats: int) -> list[dict]:
    """Compare steps of the published dense Adam."""
    torch.set_num_threads(threads)
    rows = []
    for what, (config, l2, exponents) in CASES.items():
        torch.manual_seed(0)
        model, plain = FinalMLP(config), ReferenceFinalMLP(config)
        plain.load_state_dict(to_official(model))
        batch = zipf_batch(config.fields, exponents)
        published = published_call(plain, batch, l2)
        rows.append(row(what, published, sixfold_call(model, loss, batch, l2), repeats))
    return rows


def lazy(threads: int, repeats: int) -> list[dict]:
    """Compare lazy steps with published ones, on a table of 15 million rows."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batch = zipf_batch(LARGE.fields)
    published = published_call(ReferenceFinalMLP(LARGE), batch, 0.05)
    ours = sixfold_call(FinalMLP(LARGE), loss, batch, 0.05, lazy=True)
    return [row("Avazu, 22 fields, 15 M ids, lazy", published, ours, repeats)]


def latency(config: FinalMLPConfig, what: str, repeats: int) -> list[dict]:
    """Time the probability of one sample: published, ours with folded gates, in onnxruntime."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = FinalMLP(config).eval()
    plain = ReferenceFinalMLP(config).eval()
    plain.load_state_dict(to_official(model))
    batch = zipf_batch(config.fields, rows=1)
    del batch["label"]
    folded = model.fold_gates()
    calls: dict[str, Callable[[], object]] = {
        "published": lambda: plain(batch),
        "sixfold": lambda: folded(batch).sigmoid(),
        "onnxruntime": onnx_call(model, batch),
    }
    with torch.inference_mode():
        results = compare(calls, repeats, warmup=5)
    found = [
        {
            "what": what,
            "in": result.name,
            "median, us": round(1e6 * result.median_s),
            "speed-up": f"{result.speedup:.2f}x",
        }
        for result in results
    ]
    print(*found, sep="\n", flush=True)
    return found


def onnx_call(model: FinalMLP, batch: dict[str, torch.Tensor]) -> Callable[[], object]:
    """Export a model, and return a call of the graph on one thread."""
    ready, options = exportable(model), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        export(ready.module, ready.inputs, folder, ["onnx"], ready.dynamic, outputs=ready.outputs)
        session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", options)
    arrays = {name: batch[column].numpy() for name, column in ready.facts["columns"].items()}
    return lambda: session.run(None, arrays)


def main() -> None:
    """Measure everything and write the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = [one for threads in (1, 2) for one in training(threads, repeats=9)]
    rows += [one for threads in (1, 2) for one in lazy(threads, repeats=5)]
    note = (
        "Batch 4,096, sizes and regularisers as published, ids by Zipf's law. Medians; the two "
        "take turns in one process, the speed-up is the median of the ratios of each turn. Memory "
        "is what torch's allocator held at once beyond weights and moments. The last rows compare "
        "lazy Adam with the published dense one, which is another algorithm."
    )
    title = "FinalMLP's training step against its published formulation"
    write_benchmark(RESULTS / "finalmlp.md", title, COMMAND, rows, note)
    rows = [one for what, (config, *_) in CASES.items() for one in latency(config, what, 200)]
    note = "One sample, one thread, medians; the calls take turns in one process."
    title = "Latency of FinalMLP for one sample"
    write_benchmark(RESULTS / "finalmlp_latency.md", title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
