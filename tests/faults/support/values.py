"""Values that no setting expects, or not there: extremes of every kind."""

import math
from collections.abc import Iterator
from typing import Any

from sixfold.core import Config

EXTREMES: tuple[Any, ...] = (
    0, -1, 10**9, 10**30, 0.5, 1e-300, 1e300, math.nan, math.inf, -math.inf, True, None,
    "", "x", "0", "\x1b[31m", "y" * 10_000, b"\xff", [], [0], [-1, 10**9], {}, {"a": 1}, object(),
)  # fmt: skip


def changed(kind: type[Config]) -> Iterator[tuple[str, Any]]:
    """Yield every field of a config with every extreme."""
    for field in kind.model_fields:
        for value in EXTREMES:
            yield field, value
