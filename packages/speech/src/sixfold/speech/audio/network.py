"""What every inference function asks of its network: evaluation mode and sample rate."""

from typing import Any

from torch import nn

from sixfold.core.config import UserError


def check_eval_mode(model: Any) -> None:
    """Raise a UserError if a network, or a part of it, is in training mode.

    With dropout on, or the statistics of a batch, no two calls would agree. A plain function has no
    mode.
    """
    if isinstance(model, nn.Module) and any(part.training for part in model.modules()):
        raise UserError(
            f"this {type(model).__name__} is in training mode, where dropout and batch norms make "
            "every call differ; call model.eval() first"
        )


def check_network(model: Any, sample_rate: int) -> None:
    """Raise a UserError if a network cannot enhance or separate audio of this sample rate.

    Args:
        model: Network with its settings as ``config``.
        sample_rate: Sample rate of the audio in Hz.
    """
    check_eval_mode(model)
    own_rate = model.config.sample_rate
    if sample_rate != own_rate:
        raise UserError(
            f"this {type(model).__name__} works at {own_rate} Hz, the audio is at {sample_rate} "
            f"Hz; use sixfold.speech.audio.resample(audio, {sample_rate}, {own_rate})"
        )
