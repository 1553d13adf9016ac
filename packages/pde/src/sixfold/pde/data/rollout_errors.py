"""Errors of rollouts, step by step: of the fields, and of their spectra alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.pde.fields.spectra import shell_power
from sixfold.pde.losses import scaled_norm

Frames = Float[Tensor, "time channel *space"]


class Curves(NamedTuple):
    """Mean errors of each step, as far as there is a truth.

    Args:
        scaled_l2: Error of the fields over the size of the true ones.
        spectrum: Error of the amplitudes of shells of wavenumber over those of the true fields:
            what is right of the scales, wherever they are.
    """

    scaled_l2: list[float]
    spectrum: list[float]


class Errors:
    """Mean errors over trajectories and channels; a true channel that vanishes is left out.

    Args:
        steps: Largest number of steps.
    """

    def __init__(self, steps: int) -> None:
        self.sums = torch.zeros(2, steps, dtype=torch.float64)
        self.counts = torch.zeros(steps, dtype=torch.float64)

    def add(self, step: int, made: Frames, true: Frames) -> None:
        """Add the frames of one trajectory, the first at a number of steps."""
        known = true.flatten(2).norm(dim=2) > 0
        found = torch.stack((_scaled(made, true), _scaled(_spectrum(made), _spectrum(true))))
        steps = slice(step, step + len(made))
        self.sums[:, steps] += torch.where(known, found.double(), 0).sum(2)
        self.counts[steps] += known.sum(1)

    def curves(self) -> Curves:
        """Return the means."""
        known = self.counts > 0
        return Curves(*(self.sums[:, known] / self.counts[known]).tolist())

    def say(self) -> None:
        """Print the means over steps, and the first and the last step."""
        curves = self.curves()
        count = len(curves.scaled_l2)
        if not count:
            print("the file holds no frames after the history: no error to measure")
            return
        for label, curve in zip(("scaled L2", "error of the spectrum"), curves, strict=True):
            print(
                f"{label} over the {count} steps that the file holds: {sum(curve) / count:.4g} "
                f"(step 1 {curve[0]:.4g}, step {count} {curve[-1]:.4g})"
            )


def _spectrum(frames: Frames) -> Float[Tensor, "time channel shell"]:
    """Return the amplitudes of shells; cells count as squares."""
    return shell_power(frames, [float(side) for side in frames.shape[2:]]).sqrt()


def _scaled(
    made: Float[Tensor, "time channel *values"], true: Float[Tensor, "time channel *values"]
) -> Float[Tensor, "time channel"]:
    made, true = (x.flatten(2)[None, ..., None] for x in (made, true))  # as planes of one line
    return scaled_norm(made, true, reduction="none", floor=torch.finfo(true.dtype).tiny)[0]
