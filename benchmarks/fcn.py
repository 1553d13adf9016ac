"""FCN's training step against its published formulation, in eager mode and compiled.

The published formulation (reference_fcn.py, reference_ctr.py) looks every field up in a table of
its own, takes each operation of a cross layer by itself, and the regulariser of whole tables
through autograd.
"""

import argparse
from pathlib import Path

import torch
from ctr_cases import published_call, row, sixfold_call, zipf_batch
from reference_fcn import ReferenceFCN
from timing import write_benchmark

from sixfold.recsys import FCN, FCNConfig
from sixfold.recsys.models.fcn import loss, to_official

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/fcn.py"


def training(threads: int, compiled: bool, repeats: int) -> dict:
    """Compare steps of the published training on Criteo_x4: 39 fields, 0.9 million ids."""
    torch.set_num_threads(threads)
    torch._dynamo.reset()
    torch.manual_seed(0)
    config = FCNConfig()
    model, plain = FCN(config), ReferenceFCN(config)
    plain.load_state_dict(to_official(model))
    if compiled:
        model.compile()  # as `compile: true` does
    batch = zipf_batch(config.fields)
    published, ours = published_call(plain, batch, 1e-5), sixfold_call(model, loss, batch, 1e-5)
    what = "Criteo, 39 fields, 0.9 M ids" + (", compiled" if compiled else "")
    return row(what, published, ours, repeats)


def main() -> None:
    """Measure everything and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    cases = [(threads, compiled) for compiled in (False, True) for threads in (1, 2)]
    rows = [training(*case, repeats=9) for case in cases]
    note = (
        "Batch 4,096, sizes and regulariser as published, ids by Zipf's law. Medians; the two "
        "take turns in one process, the speed-up is the median of the ratios of each turn. Memory "
        "is what torch's allocator held at once beyond weights and moments."
    )
    title = "FCN's training step against its published formulation"
    write_benchmark(RESULTS / "fcn.md", title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
