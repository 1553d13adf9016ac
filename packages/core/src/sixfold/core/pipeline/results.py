"""What is committed: results with means over seeds, and curves; no times, no dates."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.config import UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.pipeline.claim import Scores

CURVE_ROWS = 500  # of a seed in the committed curves; longer ones are thinned evenly


def join_curves(curves: Sequence[tuple[int, str]]) -> str:
    """Put the curves of all seeds, which have the same columns, into one CSV led by ``seed``."""
    header = curves[0][1].splitlines()[0]
    rows = []
    for seed, text in curves:
        own = text.splitlines()[1:]
        rows += [f"{seed},{row}" for row in own[:: -(-len(own) // CURVE_ROWS) or 1]]
    return "\n".join([f"seed,{header}", *rows, ""])


def summarize(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """Return mean and standard deviation over seeds of each metric; None without a value."""
    metrics = next(iter(scores.values()))
    return {
        "mean": {m: _summary(scores, m, statistics.fmean) for m in metrics},
        "std": {m: _summary(scores, m, statistics.stdev) for m in metrics},
    }


def _summary(scores: Mapping[str, Scores], metric: str, of: Any) -> float | None:
    """Summarise a metric over seeds; None if it was not measured, or has no spread."""
    values = [seed[metric] for seed in scores.values()]
    if None in values or (of is statistics.stdev and len(values) < 2):
        return None
    return of(values)


def finite(scores: Scores) -> Scores:
    """Return scores with None, not measured, in the place of what is no finite number."""
    return {k: v if v is None or math.isfinite(v) else None for k, v in scores.items()}


def read_json(path: Path, again: str) -> dict[str, Any]:
    """Read what `write_json` wrote of a mapping.

    Args:
        path: The file.
        again: Command that writes it.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}; first: {again}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged; run: {again}")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write sorted keys, numbers to 6 significant digits, a newline at the end; all or nothing."""

    def rounded(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {k: rounded(v) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return [rounded(v) for v in item]
        return float(f"{item:.6g}") if isinstance(item, float) else item

    text = json.dumps(rounded(value), indent=2, sort_keys=True, allow_nan=False)
    write_atomic(path, text + "\n")
