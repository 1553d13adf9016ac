"""Waterfall of a recording: power over frequency and time, with boxes around what was found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sixfold.core.data.atomic import atomic_file
from sixfold.wireless.iq.detections import Block
from sixfold.wireless.iq.recordings import Recording

ROWS, COLUMNS = 600, 800
RANGE_DB = 50.0


class Waterfall:
    """Collect the largest power of each of a bounded number of pixels.

    Args:
        recording: Recording that the blocks come from.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        first, last = recording.captures[0], recording.captures[-1]
        self.first, self.end = first.first, last.first + last.count
        self.power = np.zeros((ROWS, COLUMNS))

    def see(self, block: Block) -> None:
        """Add one block."""
        bins = len(block.samples)
        spectrum = np.fft.fftshift(np.fft.fft(block.samples * np.hanning(bins)))
        power = np.abs(spectrum) ** 2
        if bins >= COLUMNS:
            edges = np.arange(COLUMNS) * bins // COLUMNS
            power = np.maximum.reduceat(power, edges)
        else:
            power = power[np.arange(COLUMNS) * bins // COLUMNS]
        scale = ROWS / (self.end - self.first)
        top = int((block.first - self.first) * scale)
        bottom = max(top + 1, int((block.first + bins - self.first) * scale))
        self.power[top:bottom] = np.maximum(self.power[top:bottom], power)

    def write(self, path: Path, annotations: Sequence[Mapping[str, Any]]) -> None:
        """Draw the picture; frequencies are relative to each capture's centre.

        Args:
            path: Path of the .png file.
            annotations: Annotations with frequency edges; the others are left out.

        Raises:
            UserError: the disk cannot be written.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        rate = self.recording.sample_rate_hz
        extent = (-rate / 2e6, rate / 2e6, self.end / rate * 1e3, self.first / rate * 1e3)
        level = 10 * np.log10(np.maximum(self.power, np.finfo(float).tiny))
        peak = float(level.max())
        figure = Figure(figsize=(8, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.imshow(level, aspect="auto", extent=extent, vmin=peak - RANGE_DB, vmax=peak)
        axes.set(xlabel="frequency from the centre, MHz", ylabel="time, ms")
        for left, width, start, count in self._boxes(annotations):
            corner, size = (left / 1e6, start / rate * 1e3), (width / 1e6, count / rate * 1e3)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="red"))
        with atomic_file(path) as partial:
            figure.savefig(partial, format="png", dpi=100, metadata={"Software": None})

    def _boxes(
        self, annotations: Sequence[Mapping[str, Any]]
    ) -> list[tuple[float, float, int, int]]:
        """List left edge, width, first sample and number of samples of each annotation."""
        boxes = []
        for one in annotations:
            start, count = one.get("core:sample_start"), one.get("core:sample_count")
            low, high = one.get("core:freq_lower_edge"), one.get("core:freq_upper_edge")
            if start is None or count is None or low is None or high is None:
                continue
            captures = [c for c in self.recording.captures if c.first <= start]
            center = (captures or self.recording.captures)[-1 if captures else 0].center_hz
            boxes.append((low - center, high - low, start, count))
        return boxes


def outlined(
    power_db: Float[np.ndarray, "block bin"], occupied: Bool[np.ndarray, "block bin"]
) -> Float[np.ndarray, "block bin 3"]:
    """Draw power in grey, and in red the outline of the bins that are occupied.

    Args:
        power_db: Power of each bin in dB.
        occupied: Bins inside the boxes.
    """
    grey = (power_db - power_db.max() + RANGE_DB).clip(0, RANGE_DB) / RANGE_DB
    padded = np.pad(occupied, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture = np.repeat(grey[..., None], 3, axis=-1)
    picture[occupied & ~inside] = (1.0, 0.0, 0.0)
    return picture
