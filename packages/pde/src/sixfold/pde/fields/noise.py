"""Random draws of the generators: the same for a seed whatever the batch, precision or device."""

import torch
from torch import Tensor


def white_noise(samples: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw normal noise (sample, *shape) in double precision, on the generator's device.

    The samples are drawn one after the other: batches of any size come to the same ones.
    """
    one = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return torch.stack([one.normal_(generator=generator).clone() for _ in range(samples)])
