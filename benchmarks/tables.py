"""Reading and encoding tables: rows a second, against pandas, memory, training from a stream.

The published preprocessing (pandas_columns) goes column by column: a frame in memory, a Counter
of every column for its vocabulary, a Python function for each number's bucket, a dictionary for
each value's id. It makes the same ids.
"""

import argparse
import math
import multiprocessing
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from timing import compare, write_benchmark

from sixfold.core.training.run import Position
from sixfold.core.training.sampling import steps
from sixfold.recsys import FinalMLP, FinalMLPConfig
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.read import open_source
from sixfold.recsys.tables.schema import Schema
from sixfold.recsys.tables.stream import TableStream

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/tables.py"
IDS = Schema.parse({"columns": {f"c{i}": {"dtype": "int"} for i in range(10)}}, "ten integer ids")
CRITEO = Schema.parse(
    {
        "min_count": 2,
        "columns": {f"I{i}": {"transform": "log_square", "missing": 0} for i in range(1, 14)}
        | {f"C{i}": {"dtype": "str"} for i in range(1, 27)},
    },
    "Criteo-like",
)
BLOCK = 1_000_000  # rows that are made and written at once


def zipf(rng: np.random.Generator, values: int, rows: int) -> np.ndarray:
    """Draw ids whose frequency falls with their rank, as of users and items."""
    return np.minimum(values * rng.random(rows) ** 4, values - 1).astype(np.int64)


def write_ids(path: Path, rows: int) -> None:
    """Write ten columns of integer ids, of 10 to a million values."""
    rng, sizes = np.random.default_rng(0), np.geomspace(10, 1_000_000, 10).astype(int)
    writer = None
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        columns = {f"c{i}": zipf(rng, size, count) * 7919 for i, size in enumerate(sizes)}
        table = pa.table(columns | {"label": (rng.random(count) < 0.3).astype(np.int8)})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=1 << 18)
    assert writer is not None
    writer.close()


def write_criteo(path: Path, rows: int) -> None:
    """Write 13 counts with gaps and 26 columns of hexadecimal texts."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"label": (rng.random(rows) < 0.25).astype(np.int8)}
    for i in range(1, 14):
        counts = np.floor(rng.exponential(10.0 ** (i % 4), rows))
        columns[f"I{i}"] = pa.array(counts, mask=rng.random(rows) < 0.2)
    for i, size in enumerate(np.geomspace(10, 300_000, 26).astype(int), 1):
        texts = np.array([f"{(value * 2654435761 + i) % 2**32:08x}" for value in range(size)])
        columns[f"C{i}"] = texts[zipf(rng, size, rows)]
    pq.write_table(pa.table(columns), path, row_group_size=1 << 17)


def pandas_columns(path: Path) -> dict[str, np.ndarray]:
    """Fit and encode the Criteo-like table as published."""
    frame, found = pd.read_parquet(path), {}
    for name, column in CRITEO.columns.items():
        if column.transform:
            values = (
                frame[name]
                .fillna(0)
                .apply(lambda v: math.floor(math.log(v) ** 2) if v > 2 else int(v))
            )
            values, gap = values.tolist(), 0
        else:
            values, gap = frame[name].fillna("").tolist(), ""
        counts = Counter(values)
        kept = sorted(v for v, n in counts.items() if n >= CRITEO.min_count and v != gap)
        ids = {value: i for i, value in enumerate(kept, 1)}
        unknown = len(ids) + 1
        found[name] = np.array([ids.get(value, unknown) for value in values])
    return found


def our_columns(path: Path) -> dict[str, np.ndarray]:
    """Fit and encode the same table."""
    return EncodedTable.read(path, Encoder.fit(CRITEO, path), targets=False).arrays


def encoding_rate(path: Path) -> dict:
    """Time the encoding of ten integer ids from parquet, with the vocabularies at hand."""
    encoder, source = Encoder.fit(IDS, path), open_source(path)
    needed, seconds = IDS.needed(labels=False), []
    for _ in range(5):
        began = time.perf_counter()
        for block in source.blocks(needed):
            encoder.encode(block)
        seconds.append(time.perf_counter() - began)
    rate = len(source) / float(np.median(seconds))
    return {
        "what": f"encoding ten integer ids from parquet, {len(source):,} rows",
        "here": f"{rate:,.0f} rows/s",
        "asked for": ">= 500,000 rows/s",
    }


def against_pandas(path: Path) -> dict:
    """Compare fitting and encoding with pandas, and check that the ids are the same."""
    ours, theirs = our_columns(path), pandas_columns(path)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    calls = {"pandas": lambda: pandas_columns(path), "sixfold": lambda: our_columns(path)}
    rows = len(open_source(path))
    first, second = compare(calls, repeats=3, warmup=0)
    return {
        "what": f"vocabularies and ids of 39 Criteo-like columns, {rows:,} rows",
        "here": f"{second.median_s:.2f} s, pandas {first.median_s:.2f} s: {second.speedup:.1f}x",
        "asked for": ">= 5x",
    }


def _memory(path: Path, results: Any) -> None:
    encoder = Encoder.fit(IDS, path)
    stream = TableStream(path, encoder)
    for first in range(0, len(stream), 4096):
        stream.at(range(first, min(first + 4096, len(stream))), 0)
    # not ru_maxrss, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    results.put(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))


def memory(path: Path) -> dict:
    """Measure the largest memory of a process that fits and streams one epoch."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_memory, args=(path, results))
    process.start()
    kibibytes = results.get()
    process.join()
    return {
        "what": f"memory: vocabularies and one epoch of {len(open_source(path)):,} rows",
        "here": f"{kibibytes / 2**20:.2f} GiB",
        "asked for": "< 1.5 GiB",
    }


def training(path: Path, count: int) -> dict:
    """Compare training steps of FinalMLP from the stream with those from memory."""
    encoder = Encoder.fit(IDS, path)
    config = FinalMLPConfig(fields=encoder.fields)
    datasets = {"memory": EncodedTable.read(path, encoder), "stream": TableStream(path, encoder)}

    def train(dataset: Any) -> None:
        torch.manual_seed(0)
        model = FinalMLP(config)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        for _, step in zip(range(count), steps(dataset, 4096, 1, 0, Position()), strict=False):
            batch = next(step.batches)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model(batch)[:, 0], batch["label"]
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    calls = {name: lambda dataset=dataset: train(dataset) for name, dataset in datasets.items()}
    first, second = compare(calls, repeats=3, warmup=1)
    return {
        "what": f"training FinalMLP, {count} steps of 4096 rows, from the stream and from memory",
        "here": f"{second.median_s:.2f} s and {first.median_s:.2f} s: "
        f"{100 * (1 / second.speedup - 1):+.1f} %",
        "asked for": "within 10 %",
    }


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and of arrow")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the numbers of rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pa.set_cpu_count(options.threads)
    with tempfile.TemporaryDirectory() as name:
        ids, many, criteo = (Path(name) / f"{n}.parquet" for n in ("ids", "many", "criteo"))
        write_ids(ids, int(2_000_000 * options.scale))
        write_criteo(criteo, int(300_000 * options.scale))
        rows = [encoding_rate(ids), against_pandas(criteo), training(ids, 100)]
        write_ids(many, int(20_000_000 * options.scale))
        rows.append(memory(many))
    for row in rows:
        print(row, flush=True)
    note = (
        "Frequencies fall with the rank of a value. Seconds are medians; the two sides of a "
        "comparison take turns. Both sides make the same ids."
    )
    write_benchmark(ROOT / "benchmarks" / "results" / "tables.md", "Tables", COMMAND, rows, note)


if __name__ == "__main__":
    main()
