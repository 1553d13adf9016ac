"""What every network for pictures is asked before it computes: input and mode."""

from typing import Any

from torch import Tensor, nn

from sixfold.core import UserError


def check_pictures(model: Any, pictures: Tensor) -> None:
    """Raise a UserError if the input is no batch of float pictures of the network's channels.

    Args:
        model: Network with its settings as ``config``, among them ``in_chans``.
        pictures: Input of the network.
    """
    channels = model.config.in_chans
    if pictures.ndim != 4 or pictures.shape[1] != channels or not pictures.is_floating_point():
        raise UserError(
            f"this {type(model).__name__} takes float pictures shaped (batch, {channels}, height, "
            f"width), got {pictures.dtype} {tuple(pictures.shape)}; sixfold.vision.upscale takes "
            "bytes and single pictures too"
        )
    if not pictures.numel():
        raise UserError(f"{type(model).__name__} was given no pixels: {tuple(pictures.shape)}")


def check_eval_mode(model: nn.Module) -> None:
    """Raise a UserError if a network, or a part of it, is in training mode."""
    if any(part.training for part in model.modules()):
        raise UserError(f"this {type(model).__name__} is in training mode; call model.eval() first")
