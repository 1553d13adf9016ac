"""A film of a forecast: truth, forecast and their difference side by side, a channel a row.

It is kept small while the forecast runs: every so-many-th frame, every so-many-th point, and of a
box the middle plane.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.pipeline.figures import picture_row
from sixfold.core.pipeline.page import Figure
from sixfold.pde.fields.stepping import check_counts

FRAMES, SIDE, CHANNELS = 40, 160, 4  # at most
GAP = 2  # between panels, in pixels
Frame = Float[Tensor, "channel *space"]


class Film:
    """A film of one trajectory.

    Args:
        steps: Number of frames of the forecast.
    """

    def __init__(self, steps: int) -> None:
        check_counts(steps=steps)
        self.every = -(-steps // FRAMES)
        self.made: list[np.ndarray] = []
        self.true: list[np.ndarray] = []

    def add(self, step: int, made: Frame, true: Frame | None) -> None:
        """Keep a step, if it is shown."""
        if step % self.every == 0:
            self.made.append(_plane(made))
            self.true.append(_plane(made * np.nan if true is None else true))

    def figure(self, name: str, channels: Sequence[str]) -> Figure:
        """Draw the film; where there is no truth its panels are missing, or black from then on.

        Raises:
            UserError: no frame was added.
        """
        if not self.made:
            raise UserError("a film of no frames; add the first step")
        made, true = np.stack(self.made), np.stack(self.true)
        shown = list(channels)[:CHANNELS]
        rows = [_row(made[:, i], true[:, i]) for i in range(len(shown))]
        columns = "truth, forecast, difference" if np.isfinite(true).any() else "forecast"
        caption = f"{columns} of {', '.join(shown)}, from top to bottom"
        frames = _join(rows, axis=1)
        return picture_row(name, caption, {name: frames}).panels[0]


def _plane(frame: Frame) -> np.ndarray:
    """Return (channel, y from top to bottom, x) in pixels, of which a point is one, or some."""
    values = frame.detach().cpu().float().numpy()
    values = values if values.ndim == 3 else values[..., values.shape[-1] // 2]
    step = -(-max(values.shape[1:]) // SIDE)
    times = max(1, SIDE // max(values.shape[1:]))
    values = values[:CHANNELS, ::step, ::step].repeat(times, 1).repeat(times, 2)
    return values.transpose(0, 2, 1)[:, ::-1].copy()


def _row(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Draw a channel (time, y, x); the difference has a scale of its own, around zero."""
    known = true[np.isfinite(true)]
    low, high = (float(f(np.append(known, made))) for f in (np.min, np.max))
    if not known.size:
        return _coloured(made, low, high, "viridis")
    error = made - true
    most = float(np.nanmax(np.abs(error))) or 1.0
    panels = [_coloured(x, low, high, "viridis") for x in (true, made)]
    return _join([*panels, _coloured(error, -most, most, "coolwarm")], axis=2)


def _coloured(values: np.ndarray, low: float, high: float, colours: str) -> np.ndarray:
    import matplotlib as mpl

    drawn = mpl.colormaps[colours]((values - low) / ((high - low) or 1.0))[..., :3]
    return np.where(np.isfinite(values)[..., None], drawn, 0.0)


def _join(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Set drawings (time, y, x, colour) beside or below each other, with white between them."""
    shape = list(parts[0].shape)
    shape[axis] = GAP
    between = [np.ones(shape)] * len(parts)
    return np.concatenate([x for pair in zip(parts, between, strict=True) for x in pair][:-1], axis)
