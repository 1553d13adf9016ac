"""What every ranking model does with tables: learn from one, score one, travel with its encoder.

model = FinalMLP.from_schema("schema.yaml").fit("train.parquet", valid="valid.parquet",
                                                folder="runs/try")
print(model.score("test.parquet"))
model = FinalMLP.from_pretrained("runs/try")
model.predict("new.csv")["click"]
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
from torch import Tensor, nn

from sixfold.core import System, UserError, from_pretrained
from sixfold.core.system import domain
from sixfold.core.weights.convert import save_pretrained
from sixfold.core.weights.published import find_weights
from sixfold.recsys.losses import binary_cross_entropy

if TYPE_CHECKING:  # polars, pyarrow and scipy are for those who have tables
    from sixfold.recsys.tables.encode import EncodingReport
    from sixfold.recsys.tables.encoder import Encoder
    from sixfold.recsys.tables.predicting import Scored
    from sixfold.recsys.tables.schema import Schema

WEIGHTS = "model.safetensors"
Model = TypeVar("Model", bound="Ranker")


class Ranker(nn.Module):
    """A model that maps a batch of encoded fields to logits (batch, task).

    A subclass has a ``config`` with ``fields`` and ``labels`` and an ``embedding``.

    Attributes:
        encoder: Encoder of tables that the model learned with; None if there is none.
    """

    config: Any
    encoder: "Encoder | None" = None

    @classmethod
    def system(cls) -> System:
        """Return the system's record, by its ``build``."""
        return next(system for system in domain("recsys").SYSTEMS if system.build is cls)

    @staticmethod
    def batch_loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch; cross-entropy, unless the system has its own.

        Args:
            model: The model, maybe wrapped for several processes.
            batch: Batch with labels.
        """
        return binary_cross_entropy(model(batch), batch, model.config.labels)

    @classmethod
    def from_schema(
        cls: "type[Model]", schema: "Schema | str | Path", **settings: Any
    ) -> "Untrained[Model]":
        """Prepare a model for a table; `Untrained.fit` builds and trains it.

        Args:
            schema: Meaning of the columns, or the path of its YAML file.
            settings: Settings of the model besides fields and labels, e.g. ``embedding_dim=16``.

        Raises:
            UserError: the schema is wrong.
        """
        from sixfold.recsys.tables.schema import as_schema

        return Untrained(cls, as_schema(schema), settings)

    @classmethod
    def from_pretrained(cls: "type[Model]", path: str | Path, **settings: Any) -> "Model":
        """Load a run folder, or an official or sixfold checkpoint, in eval mode.

        An ``encoder.parquet`` beside the weights is loaded with them.

        Args:
            path: Run folder, path of a checkpoint, or name of published weights.
            settings: Settings that an official checkpoint does not hold, e.g. ``labels``.

        Raises:
            UserError: the file is missing or damaged, is another system's, or the encoder beside it
                belongs to other weights.
        """
        system = cls.system()
        model = cast(Model, from_pretrained(path, system, **settings))
        model.encoder = _load_encoder(model, find_weights(path, system))
        return model

    def save(self, folder: str | Path) -> None:
        """Write weights and encoder, which belong together, into a folder."""
        from sixfold.recsys.tables.encoder import ENCODER

        folder, encoder = Path(folder), self._encoder()
        save_pretrained(folder / WEIGHTS, self, self.system().name, self.config)
        replace(encoder, weights_sha256=_sha256(folder / WEIGHTS)).save(folder / ENCODER)

    def predict(self, table: Any, report: "EncodingReport | None" = None) -> dict[str, np.ndarray]:
        """Return the probability of each label for every row of a table.

        Args:
            table: File, folder, frame or rows; labels are not needed, other columns are ignored.
            report: Counts of unknown values to add to.

        Raises:
            UserError: an input column is missing or of a wrong type.
        """
        from sixfold.recsys.tables.predicting import predict

        return predict(self, self._encoder(), table, report)

    def score_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        """Return the probability of each label for rows, as a service gets them."""
        if isinstance(rows, list | tuple) and not rows:
            return []
        found = self.predict(rows)
        columns = {label: values.tolist() for label, values in found.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def score(self, table: Any) -> "Scored":
        """Score the model on a table with labels: AUC, logloss, calibration, gAUC by groups."""
        from sixfold.recsys.tables.predicting import score

        return score(self, self._encoder(), table)

    def _encoder(self) -> "Encoder":
        if self.encoder is None:
            raise UserError(
                f"this {type(self).__name__} has no encoder of tables; load the run folder that "
                "holds encoder.parquet beside the weights, or train by from_schema(...).fit(...)"
            )
        return self.encoder


@dataclass(frozen=True)
class Untrained(Generic[Model]):
    """A model that is built once its training table is read, which decides on its sizes.

    Args:
        kind: Class of the model.
        schema: Meaning of the columns.
        settings: Settings of the model besides fields and labels.
    """

    kind: type[Model]
    schema: "Schema"
    settings: Mapping[str, Any]

    def fit(
        self,
        train: Any,
        *,
        valid: Any = 0.1,
        folder: str | Path | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Model:
        """Train on a table and return the model, in eval mode; a stopped training goes on.

        Args:
            train: Training table: a file, folder, frame or rows.
            valid: Validation table, or the share of the training table's rows to hold out.
            folder: Run folder: curve, checkpoints, and at the end weights and encoder. None keeps
                nothing.
            seed: Seed of first weights, order, dropout and of the rows held out.
            options: Fields of `sixfold.recsys.tables.fitting.TableFit`: ``epochs``, ``batch``,
                ``learning_rate``, ``negative_sampling`` ...

        Raises:
            UserError: a table, setting or option is wrong; says where and what to do.
        """
        from sixfold.recsys.tables.fitting import TableFit, fit_table

        return fit_table(
            self.kind.system(),
            self.settings,
            self.schema,
            train,
            valid=valid,
            folder=folder,
            seed=seed,
            options=TableFit.parse(options, "fit"),
        )


def _load_encoder(model: Ranker, weights: Path) -> "Encoder | None":
    """Load the encoder beside weights, if there is one, and check that it is theirs."""
    if not (weights.parent / "encoder.parquet").is_file():
        return None
    from sixfold.recsys.tables.encoder import ENCODER, Encoder

    place = weights.parent / ENCODER
    encoder = Encoder.load(place)
    if encoder.weights_sha256 != _sha256(weights):
        raise UserError(
            f"{place} belongs to other weights than {weights.name}; copy both from one run folder"
        )
    same = encoder.fields == model.config.fields and encoder.schema.labels == model.config.labels
    if not same:
        raise UserError(f"{place} has other columns than {weights}; copy both from one run folder")
    return encoder


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
