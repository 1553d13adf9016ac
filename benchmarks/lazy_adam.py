"""What lazy row-wise Adam costs in accuracy: FinalMLP on MovieLens latest-small, lazy and dense.

Both trainings of a pair have the same seed: first weights, dropout and order of rows. No time is
measured, so the table is the same on a busy machine.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from scipy.special import stdtrit
from timing import write_benchmark

from sixfold.core.training.fit import FitConfig, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.recsys import Encoder, FinalMLP
from sixfold.recsys.data.movielens_small import SCHEMA, read_movielens_small
from sixfold.recsys.layers.optimizers import ranking_adam
from sixfold.recsys.metrics import auc, logloss
from sixfold.recsys.models.finalmlp import FRAPPE
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.predicting import BATCH, probabilities

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/lazy_adam.py"
L2 = (0.0, 0.005, 0.05)  # of the tables; 0.05 is published for Frappe
SEEDS, EPOCHS, ROWS = (0, 1, 2), 4, 1024
SCORES = {"AUC": auc, "logloss": logloss}
NOTE = (
    f"FinalMLP of Frappe's size, {EPOCHS} epochs of batch {ROWS:,} at 1e-3, last weights. Scores "
    f"of the test rows over {len(SEEDS)} seeds, mean and standard deviation; differences are "
    "paired by seed, with Student's interval. Lazy steps are exact in a row's moments, which are "
    "caught up by the decay to the power of the steps missed. They leave out what dense Adam moves "
    "a row by while it rests; without L2 that is all. With L2 a row is also regularised only when "
    "it is looked up, a rare id far less than by dense steps at the same value; and the norm that "
    "is clipped is that of the rows looked up."
)


def read_tables() -> tuple[Encoder, EncodedTable, EncodedTable]:
    """Return the encoder, and training and test rows."""
    splits = read_movielens_small()
    encoder = Encoder.fit(SCHEMA, splits.train)
    train, test = (EncodedTable.read(rows, encoder) for rows in (splits.train, splits.test))
    return encoder, train, test


def train(encoder: Encoder, rows: EncodedTable, l2: float, lazy: bool, seed: int) -> FinalMLP:
    """Train one seed."""
    torch.manual_seed(derive_seed(seed, "init"))
    model = FinalMLP(FRAPPE.model_copy(update={"fields": encoder.fields}))
    steps = EPOCHS * -(-len(rows) // ROWS)
    config = FitConfig(steps=steps, batch=ROWS, learning_rate=1e-3, threads=1)
    run = Run.open(None, {"l2": l2, "lazy": lazy}, "", seed)
    optimizer = ranking_adam(embedding=l2, lazy=lazy)
    fit(run, model, rows, model.batch_loss, config, seed=seed, optimizer=optimizer)
    return model


def scores_of(model: FinalMLP, test: EncodedTable) -> list[float]:
    """Return the scores of the test rows, in the order of `SCORES`."""
    found = probabilities(model, test.batches(BATCH))["label"]
    return [score(test.arrays["label"], found) for score in SCORES.values()]


def compare_rows(l2: float, dense: np.ndarray, lazy: np.ndarray) -> list[dict]:
    """Make a row for each score, from arrays (seed, score)."""
    rows = []
    for name, *pair in zip(SCORES, dense.T, lazy.T, strict=True):
        difference = pair[1] - pair[0]
        spread = statistics.stdev(difference)
        margin = stdtrit(len(difference) - 1, 0.975) * spread / len(difference) ** 0.5
        mean = difference.mean()
        rows.append(
            {
                "L2 of the tables": l2,
                "score": name,
                "dense": f"{pair[0].mean():.4f} ± {statistics.stdev(pair[0]):.4f}",
                "lazy": f"{pair[1].mean():.4f} ± {statistics.stdev(pair[1]):.4f}",
                "lazy - dense": f"{mean:+.4f} ± {spread:.4f}",
                "95 % interval": f"{mean - margin:+.4f} to {mean + margin:+.4f}",
            }
        )
    print(*rows, sep="\n", flush=True)
    return rows


def main() -> None:
    """Train everything and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    encoder, train_rows, test = read_tables()
    rows = []
    for l2 in L2:
        dense, lazy = (
            np.array([scores_of(train(encoder, train_rows, l2, kind, s), test) for s in SEEDS])
            for kind in (False, True)
        )
        rows += compare_rows(l2, dense, lazy)
    title = "Accuracy of lazy row-wise Adam"
    write_benchmark(RESULTS / "lazy_adam.md", title, COMMAND, rows, NOTE)


if __name__ == "__main__":
    main()
