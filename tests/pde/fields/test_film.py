"""Films of forecasts: truth, forecast and difference, small, and the same for the same fields."""

import io

import numpy as np
import torch
from PIL import Image

from sixfold.pde.fields.film import CHANNELS, FRAMES, GAP, SIDE, Film


def film(steps: int, known: int, *shape: int) -> bytes:
    """Draw a wave that moves, and a forecast that is right; a truth of some steps is known."""
    made = Film(steps)
    places = torch.linspace(0, 6, shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    for step in range(steps):
        frame = (places + 0.1 * step).sin().expand(shape)
        made.add(step, frame, frame if step < known else None)
    return made.figure("film", [f"u{i}" for i in range(shape[0])]).film


def frames_of(data: bytes) -> tuple[int, tuple[int, int], np.ndarray]:
    with Image.open(io.BytesIO(data)) as opened:
        count = getattr(opened, "n_frames", 1)
        opened.seek(count - 1)
        return count, opened.size, np.asarray(opened.convert("RGB"))


def test_truth_forecast_and_difference_stand_side_by_side():
    count, (width, height), last = frames_of(film(5, 5, 2, 40, 20))
    times = SIDE // 40  # small pictures are enlarged
    assert (count, width, height) == (5, 3 * 40 * times + 2 * GAP, 2 * 20 * times + GAP)
    panels = (last[: 20 * times, i * (40 * times + GAP) :][:, : 40 * times] for i in range(3))
    truth, forecast, difference = panels
    assert abs(truth.astype(int) - forecast).mean() < 6
    assert truth.std((0, 1)).max() > 20 > difference.std((0, 1)).max()


def test_without_a_truth_the_forecast_stands_alone_and_beyond_it_truth_is_black():
    _, (width, height), _ = frames_of(film(3, 0, 1, 16, 16))
    assert width == height
    _, (width, _), last = frames_of(film(4, 2, 1, 60, 60))
    assert last[:, : width // 3 - GAP].max() < 40
    assert last[:, width // 3 + GAP : 2 * width // 3 - GAP].max() > 100


def test_a_long_forecast_of_a_large_box_stays_small_and_equal():
    steps, shape = 3 * FRAMES + 1, (CHANNELS + 1, 2 * SIDE + 1, 16, 3)
    data = film(steps, 10, *shape)
    count, _, _ = frames_of(data)
    assert count <= FRAMES
    assert len(data) <= 1_000_000
    assert film(7, 7, 3, 32, 32) == film(7, 7, 3, 32, 32)
