"""Which rows of a table are trained on: all but those held out, and a share of the negatives."""

import numpy as np
from jaxtyping import Bool

from sixfold.core import UserError
from sixfold.core.training.sampling import derive_seed
from sixfold.recsys.tables.read import Source
from sixfold.recsys.tables.schema import Schema
from sixfold.recsys.tables.values import to_floats


def hold_out(rows: int, fraction: float, seed: int) -> Bool[np.ndarray, " rows"]:
    """Return whether each row is held out for validation: this share of them, by chance.

    Raises:
        UserError: the share is not between 0 and 1, or leaves one side without rows.
    """
    if not 0 < fraction < 1:
        raise UserError(f"valid is a table or a fraction between 0 and 1; got {fraction}")
    held = _draw(rows, seed, "valid") < fraction
    if held.all() or not held.any():
        raise UserError(f"{rows} rows are too few to hold out {fraction:g} of them; give a table")
    return held


def sample_negatives(
    source: Source, schema: Schema, share: float, seed: int
) -> Bool[np.ndarray, " rows"]:
    """Return whether each row is kept: every positive, and a share of the negatives, by chance.

    Raises:
        UserError: the share is not above 0 and below 1, or there are several labels.
    """
    if not 0 < share < 1:
        raise UserError(f"negative_sampling is the share of negatives to keep, in (0, 1); {share}")
    if len(schema.labels) != 1:
        raise UserError(
            "negative_sampling corrects the predictions of one label, and the schema has "
            f"{len(schema.labels)}: {', '.join(schema.labels)}; train without it"
        )
    (label,) = schema.labels
    source.check([label])
    positive = [to_floats(b.column(label), b, label) == 1 for b in source.blocks([label])]
    return np.concatenate(positive) | (_draw(len(source), seed, "negatives") < share)


def _draw(rows: int, seed: int, name: str) -> np.ndarray:
    return np.random.default_rng(derive_seed(seed, name)).random(rows, np.float32)
