"""SineNet as a neural ODE: one wave is the time derivative of the latent state.

arXiv:2403.19507, the ablation of the number of waves taken to its limit; the citation is in the
docstring of `sixfold.pde.models.sinenet`. Parameters have the official names.
"""

from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sixfold.core import from_pretrained
from sixfold.pde.fields.convolution import Maps, PaddedConv, check_sides
from sixfold.pde.fields.frames import (
    Frames,
    Normalizer,
    Predicted,
    flatten_frames,
    unflatten_frames,
)
from sixfold.pde.models.sinenet.dormand_prince import integrate
from sixfold.pde.models.sinenet.layers import Embedding, WaveConfig, make_wave, run_wave


class SineNetODEConfig(WaveConfig):
    """The published neural ODE for the smoke flow (INS).

    Args:
        mult: Growth of the width from one level to the next (m).
        tolerance: Largest local error of the solver, absolute and relative.
    """

    mult: float = Field(default=1.7, gt=0, le=100)
    tolerance: float = Field(default=0.01, gt=0)


class SineNetODE(nn.Module):
    """Predict the next frames of a flow by a latent equation, solved from s = 0 to 1.

    Maps frames (batch, history, channel, x, y) in normalised units to (batch, future, channel, x,
    y). ``nfe`` is the number of evaluations of the derivative in the last forward pass.
    """

    def __init__(self, config: SineNetODEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SineNetODEConfig()
        inputs = config.time_history * config.input_channels
        outputs = config.time_future * config.output_channels
        self.normalizer = Normalizer(config)
        self.image_proj = PaddedConv(inputs, config.hidden_channels, config.padding)
        self.odefunc = Derivative(config)
        self.final = PaddedConv(config.hidden_channels, outputs, config.padding)
        self.nfe = 0

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "SineNetODE":
        """Load an official, a Lightning or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold: ``padding``,
                ``tolerance``, ``time_history`` with ``input_channels``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.pde.models.sinenet import ODE_SYSTEM  # that module imports this one

        return cast(SineNetODE, from_pretrained(path, ODE_SYSTEM, **settings))

    def forward(self, frames: Frames) -> Predicted:
        config = self.config
        x = flatten_frames(frames, config, "SineNetODE")
        least = 16 if config.repeat_wrap else 32
        check_sides(
            x.shape[2:], config.padding, multiple=16, circular_least=least, who="SineNetODE"
        )
        evaluations = 0

        def derivative(s: float, state: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            return self.odefunc(s, state)

        state = integrate(derivative, self.image_proj(x), config.tolerance)
        self.nfe = evaluations
        return unflatten_frames(self.final(state), config)


class Derivative(nn.Module):
    """f(s, x) = x + wave(x; s): the residual around the wave is part of it, as in the code."""

    def __init__(self, config: WaveConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = Embedding(config.hidden_channels, config.activation)
        self.down, self.up = make_wave(config, "add")

    def forward(self, s: float, x: Maps) -> Maps:
        time: Float[Tensor, " batch"] = x.new_full((len(x),), s)
        return x + run_wave(self.down, self.up, x, self.config, self.time_embed(time))
