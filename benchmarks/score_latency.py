"""Latency of one sample: every system in PyTorch, as a program of torch.export, in onnxruntime.

The exported programs give probabilities; PyTorch's side is the model as it was trained, with the
same sigmoid behind it. FinalMLP's constant gates are folded in its exports alone.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from ctr_cases import zipf_batch
from timing import compare, write_benchmark

from sixfold.core import System
from sixfold.core.system import load_function
from sixfold.core.weights.export import export
from sixfold.recsys import SYSTEMS

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/score_latency.py"
SIZES = ("Frappe", "Criteo")
TOLERANCE = 1e-5
NOTE = (
    "One sample, one thread, medians; the calls of a row take turns in one process, a ratio is the "
    "median of those to PyTorch in each turn. Published sizes of Frappe and Criteo, else the "
    "published default; weights and ids drawn at random, ids by Zipf's law."
)

Call = Callable[[], Any]


def published(system: System) -> Iterator[tuple[str, Any]]:
    """Yield a system's published configs: the first of each of `SIZES`, else the first of all."""
    found = {size: [c for c in system.published if c.startswith(size)] for size in SIZES}
    names = [each[0] for each in found.values() if each] or list(system.published)[:1]
    for name in names:
        yield name, system.published[name][0]


def calls(system: System, config: Any) -> dict[str, Call]:
    """Build a model, export it, and return a call of each form that scores the same sample."""
    torch.manual_seed(0)
    model: Any = system.build(config)
    model.eval()
    batch = zipf_batch(config.fields, rows=1)
    ready = load_function(system.export or "")(model)
    with tempfile.TemporaryDirectory() as folder:
        export(
            ready.module, ready.inputs, folder, dynamic=ready.dynamic, outputs=ready.outputs,
            facts=ready.facts, tolerance=TOLERANCE,
        )  # fmt: skip
        session = onnx_session(Path(folder) / "model.onnx")
        program = torch.export.load(Path(folder) / "model.pt2").module()
    columns = [batch[column] for column in ready.facts["columns"].values()]
    arrays = dict(zip(ready.facts["columns"], (c.numpy() for c in columns), strict=True))
    return {
        "PyTorch": lambda: model(batch).sigmoid(),
        "torch.export": lambda: program(*columns),
        "onnxruntime": lambda: session.run(None, arrays)[0],
    }


def onnx_session(file: Path) -> Any:
    """Open a graph on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options)


def latency(system: System, name: str, config: Any, repeats: int) -> dict[str, Any]:
    """Time a system's forms in turn, after checking that they agree."""
    forms = calls(system, config)
    with torch.inference_mode():
        expected, *others = (np.asarray(call()) for call in forms.values())
        for found in others:
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        results = compare(forms, repeats, warmup=10)
    row: dict[str, Any] = {"system": system.name, "size": name}
    row |= {f"{result.name}, us": round(1e6 * result.median_s) for result in results}
    row |= {f"{result.name} / PyTorch": f"{1 / result.speedup:.2f}" for result in results[1:]}
    print(row, flush=True)
    return row


def main() -> None:
    """Measure every system and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        latency(system, name, config, given.repeats)
        for system in SYSTEMS
        for name, config in published(system)
    ]
    title = "Latency of one sample in each system and its exports"
    write_benchmark(given.out / "score_latency.md", title, COMMAND, rows, NOTE)


if __name__ == "__main__":
    main()
