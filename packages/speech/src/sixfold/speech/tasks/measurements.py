"""What a network of published size costs, measured on silence."""

from typing import Any

import torch

from sixfold.core import Config, System
from sixfold.core.pipeline.measure import macs


def giga_macs(system: System, config: Config, seconds: float) -> float:
    """Return the multiply-adds, in billions, per second of audio of an untrained network.

    Args:
        system: System of one input signal, or of as many as its settings' ``microphones``.
        config: Its settings, with ``sample_rate``.
        seconds: Length of the signal.
    """
    settings: Any = config
    samples = round(seconds * settings.sample_rate)
    microphones = getattr(settings, "microphones", None)
    shape = (1, samples) if microphones is None else (1, microphones, samples)
    return macs(system.build(config), 0.1 * torch.randn(shape)) / seconds / 1e9
