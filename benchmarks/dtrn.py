"""DTRN beside one transformer pass over the same sequences, with the same backbone behind it.

The pass is torch's own encoder layer, once for all tasks, pooled by attention to the target; every
task's experts then read its own copy of the inputs, as they do in DTRN. "naive" runs that layer
once for each task and sequence, which is what DTRN's definition says literally.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from timing import compare, write_benchmark
from torch import Tensor, nn

from sixfold.recsys import DTRN, DTRNConfig
from sixfold.recsys.layers.behaviours import attention_weights, folded_query
from sixfold.recsys.layers.multitask import MOVIELENS_100K

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/dtrn.py"
BATCH, TARGET = 1024, 1.3


class Passes(nn.Module):
    """Interests by torch's encoder layer, in the place of `TaskInterests`.

    Args:
        config: Settings of the network.
        tasks: Number of tasks, each of which has a copy.
        naive: Whether each task and sequence has a pass of its own.
    """

    def __init__(self, config: DTRNConfig, tasks: int, naive: bool) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.layer = nn.TransformerEncoderLayer(
            dim, config.heads, config.ffn, config.dropout, batch_first=True
        )
        self.position = nn.Parameter(torch.zeros(config.max_length, dim))
        self.pool_q, self.pool_k = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.tasks, self.naive = tasks, naive

    def forward(self, vectors: Tensor, there: Tensor, targets: Tensor) -> Tensor:
        x = vectors + self.position[: vectors.shape[2]]
        if not self.naive:
            return self.pooled(x, there, targets).expand(self.tasks, -1, -1, -1)
        single = zip(*(part.split(1) for part in (x, there, targets)), strict=True)
        parts = [[self.pooled(*one) for _ in range(self.tasks)] for one in single]
        return torch.cat([torch.cat(part) for part in parts], 2)

    def pooled(self, x: Tensor, there: Tensor, targets: Tensor) -> Tensor:
        """Encode sequences and pool them; (1, batch, behaviour, dim)."""
        padding = ~there.flatten(0, 1)
        padding[:, 0] = False  # an empty sequence would have no sum of weights
        y = self.layer(x.flatten(0, 1), src_key_padding_mask=padding).view_as(x)
        query = folded_query(self.pool_q, self.pool_k, targets)
        weights = attention_weights((y @ query[..., None])[..., 0], there)
        return (weights[:, :, None] @ y).transpose(0, 1).squeeze(2)[None]


def networks(config: DTRNConfig) -> dict[str, DTRN]:
    """Build the reference and what is compared with it."""
    tasks, plain = len(config.labels), config.model_copy(update={"refine": False})
    found = {name: DTRN(plain) for name in ("one pass", "naive")}
    for name, network in found.items():
        network.interests = Passes(config, tasks, name == "naive")  # type: ignore[assignment]
    return {**found, "DTRN": DTRN(config)}


def draw_batch(config: DTRNConfig, length: int) -> dict[str, Tensor]:
    """Draw ids, sequences of any length up to the largest, and labels."""
    batch = {}
    for field in config.fields:
        shape = (BATCH, length) if field.kind == "sequence" else (BATCH,)
        batch[field.name] = torch.randint(1, field.vocab_size or 2, shape)
        if field.kind == "sequence":
            ends = torch.randint(0, length + 1, (BATCH, 1))
            batch[field.name] *= torch.arange(length) < ends
    return batch | {label: torch.randint(2, (BATCH,)).float() for label in config.labels}


def step(network: DTRN, batch: dict[str, Tensor]) -> None:
    """Compute the loss and its gradients."""
    network.zero_grad()
    network.batch_loss(network, batch).backward()


def score(network: DTRN, batch: dict[str, Tensor]) -> None:
    """Compute the logits alone."""
    with torch.inference_mode():
        network(batch)


def speed(threads: int, length: int, repeats: int) -> list[dict]:
    """Compare training steps and scoring of two tasks and three behaviours."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = DTRNConfig(fields=MOVIELENS_100K, labels=("like", "love"), max_length=length)
    batch, rows = draw_batch(config, length), []
    for what, call, training in (("training step", step, True), ("scoring", score, False)):
        every = networks(config)
        calls = {n: partial(call, net.train(training), batch) for n, net in every.items()}
        reference, naive, dtrn = compare(calls, repeats, warmup=1)
        rows.append(
            {
                "what": f"{what}, sequences of {length}",
                "threads": threads,
                "one pass, ms": round(1e3 * reference.median_s, 1),
                "naive, ms": round(1e3 * naive.median_s, 1),
                "DTRN, ms": round(1e3 * dtrn.median_s, 1),
                "DTRN / one pass": f"{1 / dtrn.speedup:.2f}",
                "at most": TARGET,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    settings = [(threads, length) for threads in (1, 2) for length in (20, 50)]
    rows = [row for threads, length in settings for row in speed(threads, length, repeats)]
    note = (
        f"Batch {BATCH}, two tasks, three behaviours, D 16, 4 experts of 128 and 64. Medians; the "
        "alternatives take turns in one process, the ratio is the median of those of each turn. "
        "DTRN includes its refinement, which one pass has not."
    )
    title = "DTRN beside one transformer pass"
    write_benchmark(ROOT / "benchmarks" / "results" / "dtrn.md", title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
