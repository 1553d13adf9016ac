"""Multiply-adds of networks of any size, counted without memory for them."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sixfold.core import System

GIGA = 1e9


def products(system: System, config: Any, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Count the multiply-adds of one forward pass by module and operator, without memory for it.

    Args:
        system: System to build.
        config: Its settings.
        shape: Shape of the input.

    Returns:
        Giga multiply-adds; the whole network's under ``Global``.
    """
    # Stand-ins of a GPU's tensors: on a CPU some products are an extension's, which nothing counts.
    stand_ins = FakeTensorMode(allow_non_fake_inputs=True)
    with stand_ins, torch.device("cuda"), torch.no_grad():
        model = system.build(config).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(shape))
    counts = counter.get_flop_counts()
    return {
        module: {str(operator): flops / 2 / GIGA for operator, flops in found.items()}
        for module, found in counts.items()
    }
