"""One's own tables on the command line: ``sixfold train recsys/finalmlp --data clicks.parquet``.

The record of a system names the functions here by its own name: ``train="...:train_finalmlp"``,
``run="...:run_finalmlp"``. They are made when asked for, by `train_command` and `run_command`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
import torch
from cyclopts import Parameter

from sixfold.core import System, UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.atomic import atomic_file
from sixfold.core.many_files import run_files
from sixfold.core.progress import progress
from sixfold.core.system import domain
from sixfold.core.training.distributed import rank
from sixfold.core.yaml_files import parse_settings
from sixfold.recsys.models.ranker import WEIGHTS
from sixfold.recsys.tables.encode import EncodingReport
from sixfold.recsys.tables.fitting import TableFit, fit_table
from sixfold.recsys.tables.infer import infer_schema
from sixfold.recsys.tables.predicting import predict_blocks
from sixfold.recsys.tables.read import FORMATS, open_source
from sixfold.recsys.tables.schema import Schema
from sixfold.recsys.tables.values import plain

SUFFIX = "_score"  # of the columns of an output, behind the label's name


def train_command(system: System) -> Callable[..., Any]:
    """Make the function behind ``sixfold train`` of a system."""

    def train(
        *,
        data: Path,
        out: Path,
        schema: Path | None = None,
        valid: str = "0.1",
        seed: int = 0,
        set: list[str] | None = None,
        options: Annotated[TableFit | None, Parameter(name="*")] = None,
    ) -> Any:
        """Train on your own table: the run folder is what `sixfold run` takes as --weights.

        A training that was stopped goes on where it was. With other data or settings a run folder
        is set aside as OUT.old-1.

        Args:
            data: Training table: parquet, CSV or libsvm, a file or a folder of files.
            out: Run folder: curve.csv, checkpoints, at the end weights and encoder.
            schema: YAML file that says what the columns mean; by default schema.yaml beside the
                data or, if there is none, a first guess that is written there.
            valid: Validation table, or the fraction of the rows to hold out.
            seed: Seed of first weights, order and what is held out.
            set: Setting of the model, e.g. embedding_dim=16; may be repeated.
            options: Settings of the training.
        """
        meaning = Schema.read(schema) if schema else _schema_beside(Path(data))
        settings = parse_settings(set or [])
        model = fit_table(
            system, settings, meaning, data, valid=_table_or_fraction(valid), folder=out,
            seed=seed, options=options,
        )  # fmt: skip
        if rank() == 0:
            print(f"{Path(out) / WEIGHTS}")
        return model

    return train


def run_command(system: System) -> Callable[..., None]:
    """Make the function behind ``sixfold run`` of a system."""

    def run(
        *paths: Path,
        weights: Path,
        keys: list[str] | None = None,
        device: str = "cpu",
        overwrite: bool = False,
    ) -> None:
        """Score the rows of tables: the outputs have the rows in the same order.

        Labels are not needed, and columns that the schema does not name are ignored.

        Args:
            paths: One or more tables, folders of them or quoted patterns ('*.parquet') and, last,
                the output: a parquet or CSV file, or a folder.
            weights: Run folder with weights and encoder.parquet.
            keys: Column to copy to the output, e.g. user; may be repeated.
            device: Torch device: cpu, cuda, cuda:1 ...
            overwrite: Whether finished outputs in a folder are made again.
        """
        model: Any = system.build.from_pretrained(weights)  # type: ignore[attr-defined]
        if model.encoder is None:
            raise UserError(f"{weights} has no encoder.parquet; give the run folder of a training")
        model.to(torch.device(device))

        def work(source: Path, target: Path) -> None:
            score_file(model, source, target, tuple(keys or ()))

        reads, writes = set(FORMATS), (".parquet", ".csv")
        run_files(paths, work, reads=reads, writes=writes, overwrite=overwrite)

    return run


def score_file(model: Any, source: Path, target: Path, keys: tuple[str, ...] = ()) -> None:
    """Write the probabilities of a table's rows, piece by piece, as parquet or CSV.

    Args:
        model: Model with its encoder, in eval mode.
        source: Table.
        target: Parquet or CSV file; one column a label, its name followed by ``_score``.
        keys: Columns of the table that are copied in front of the scores.

    Raises:
        UserError: the table cannot be encoded, or a key has the name of a score.
    """
    labels, report = model.encoder.schema.labels, EncodingReport()
    names = {label: f"{label}{SUFFIX}" for label in labels}
    if taken := {*keys} & {*names.values()}:
        raise UserError(f"the column {', '.join(taken)} has the name of a score; rename it")
    if target.suffix not in (".parquet", ".csv"):
        raise UserError(f"{target} should end in .parquet or .csv")
    opened = open_source(source, model.encoder.schema.text)
    with atomic_file(target) as partial, progress(str(target), len(opened)) as advance:
        write = _Writer(partial, target.suffix)
        for block, found in predict_blocks(model, model.encoder, opened, report, extra=keys):
            columns = {key: plain(block.column(key)) for key in keys}
            columns |= {names[k]: pa.array(p.astype("float32")) for k, p in found.items()}
            write(pa.table(columns))
            advance(block.table.num_rows)
        write.close()
    text = f"; {report}".replace("\n", "; ") if str(report) else ""
    print(f"{target}: {report.rows} rows{text}")


class _Writer:
    """Append tables to a parquet or CSV file."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.suffix = path, suffix
        self.stream = path.open("wb")
        self.parquet: Any = None
        self.rows = 0

    def __call__(self, table: pa.Table) -> None:
        if self.suffix == ".csv":
            pl.DataFrame(table).write_csv(self.stream, include_header=self.rows == 0)
        else:
            import pyarrow.parquet as pq

            self.parquet = self.parquet or pq.ParquetWriter(self.stream, table.schema)
            self.parquet.write_table(table.cast(self.parquet.schema))
        self.rows += table.num_rows

    def close(self) -> None:
        """Finish the file."""
        if self.parquet is not None:
            self.parquet.close()
        self.stream.close()


def _schema_beside(data: Path) -> Schema:
    """Read schema.yaml beside the data, or write a first one there."""
    file = (data if data.is_dir() else data.parent) / "schema.yaml"
    if file.is_file():
        return Schema.read(file)
    schema = infer_schema(data, file)
    print(f"{file}: a first guess of what the columns mean; correct it and train again")
    return schema


def _table_or_fraction(valid: str) -> float | Path:
    try:
        return float(valid)
    except ValueError:
        return Path(valid)


def __getattr__(name: str) -> Callable[..., Any]:
    verb, _, system = name.partition("_")
    make = {"train": train_command, "run": run_command}.get(verb)
    if make is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    systems = {one.name: one for one in domain("recsys").SYSTEMS}
    if system not in systems:
        raise AttributeError(unknown_name_error("recsys", "system", system, systems))
    return make(systems[system])
