"""SineNet: a chain of small U-Nets, each of which moves the latent state a little.

arXiv:2403.19507; the citation and the departures from the paper are in the docstring of
`sixfold.pde.models.sinenet`. Parameters have the official names.
"""

from functools import partial
from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sixfold.core import UserError, from_pretrained
from sixfold.pde.fields.convolution import (
    Maps,
    PaddedConv,
    check_sides,
    join_phases,
    split_phases,
)
from sixfold.pde.fields.frames import (
    Frames,
    Normalizer,
    Predicted,
    flatten_frames,
    unflatten_frames,
)
from sixfold.pde.models.sinenet.layers import (
    Conditioning,
    Embedding,
    WaveConfig,
    make_wave,
    run_wave,
)

FINER = 4  # of the inference at a finer grid than that of the training


class SineNetConfig(WaveConfig):
    """SineNet-8 for the smoke flow (INS).

    Args:
        num_waves: Number of waves (K).
        wave_residual: Whether each wave adds to its input.
        conditioning: How the time step enters each block: not at all, added, or as scale and shift.
        condition_on_parameter: Whether a parameter of the flow, such as its buoyancy, enters too.
        parameter_name: Name of that parameter in files of flows, a number for each trajectory.
        checkpoint_waves: Whether training keeps the ends of the waves only and computes each again
            for its gradient.
    """

    num_waves: int = Field(default=8, ge=1, le=16)
    wave_residual: bool = True
    conditioning: Conditioning = "none"
    condition_on_parameter: bool = False
    parameter_name: str = "buo_y"
    checkpoint_waves: bool = False

    @model_validator(mode="after")
    def _parameter_needs_an_embedding(self) -> "SineNetConfig":
        if self.condition_on_parameter and self.conditioning == "none":
            raise ValueError('condition_on_parameter needs conditioning "add" or "scale_shift"')
        return self


class SineNet(nn.Module):
    """Predict the next frames of a flow: ``model(frames, time=None, parameter=None)``.

    Maps frames (batch, history, channel, x, y) in normalised units to (batch, future, channel, x,
    y). Sides are multiples of 16. A conditional network also takes, for each field, the time step
    in frames and the parameter, as raw numbers.
    """

    def __init__(self, config: SineNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SineNetConfig()
        width = config.hidden_channels
        self.normalizer = Normalizer(config)
        if config.conditioning != "none":
            self.time_embed = Embedding(width, config.activation)
        if config.condition_on_parameter:
            self.pde_emb = Embedding(width, config.activation)
        inputs = config.time_history * config.input_channels
        outputs = config.time_future * config.output_channels
        self.image_proj = PaddedConv(inputs, width, config.padding)
        waves = [make_wave(config, config.conditioning) for _ in range(config.num_waves)]
        self.down = nn.ModuleList(down for down, _ in waves)
        self.up = nn.ModuleList(up for _, up in waves)
        self.final = PaddedConv(width, outputs, config.padding)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "SineNet":
        """Load an official, a Lightning or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold: ``padding="circular"``,
                ``activation``, ``wave_residual``, ``time_history`` with ``input_channels``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.pde.models.sinenet import SYSTEM  # that module imports this one

        return cast(SineNet, from_pretrained(path, SYSTEM, **settings))

    def forward(
        self,
        frames: Frames,
        time: Float[Tensor, " batch"] | None = None,
        parameter: Float[Tensor, " batch"] | None = None,
    ) -> Predicted:
        config = self.config
        x = flatten_frames(frames, config, "SineNet")
        least = 16 if config.repeat_wrap else 32
        check_sides(x.shape[2:], config.padding, multiple=16, circular_least=least, who="SineNet")
        return unflatten_frames(
            self._evolve(x, self._condition(x.shape[0], time, parameter)), config
        )

    def at_finer_grid(
        self,
        frames: Frames,
        time: Float[Tensor, " batch"] | None = None,
        parameter: Float[Tensor, " batch"] | None = None,
    ) -> Predicted:
        """Predict at four times the grid of the training, with the same weights.

        Every convolution, pooling and upsampling then steps over four points. That is to run the
        network on each of the 16 sub-lattices, with the statistics of the norms shared by them.

        Raises:
            UserError: the padding is not circular, or sides are no multiples of 64 from 128.
        """
        config = self.config
        if config.padding != ("circular", "circular"):
            raise UserError(
                f"the finer grid needs circular padding on both axes, this SineNet has "
                f"{' and '.join(config.padding)}; interpolate its output instead"
            )
        x = flatten_frames(frames, config, "SineNet")
        check_sides(x.shape[2:], config.padding, multiple=64, circular_least=128, who="SineNet")
        condition = self._condition(x.shape[0], time, parameter)
        if condition is not None:
            condition = condition.repeat_interleave(FINER**2, 0)
        y = self._evolve(split_phases(x, FINER), condition, FINER**2)
        return unflatten_frames(join_phases(y, FINER), config)

    def _evolve(
        self, x: Maps, condition: Float[Tensor, "batch embedding"] | None, phases: int = 1
    ) -> Float[Tensor, "batch out x y"]:
        x = self.image_proj(x)
        again = self.config.checkpoint_waves and self.training
        for down, up in zip(self.down, self.up, strict=True):
            wave = partial(run_wave, down, up, config=self.config, phases=phases)
            if again:
                y: Any = checkpoint(wave, x, condition=condition, use_reentrant=False)
            else:
                y = wave(x, condition=condition)
            x = x + y if self.config.wave_residual else y
        return self.final(x)

    def _condition(
        self, batch: int, time: Tensor | None, parameter: Tensor | None
    ) -> Float[Tensor, "batch embedding"] | None:
        """Embed the time step and the parameter.

        Raises:
            UserError: one is missing, given to a network that does not take it, or not one number
                for each field.
        """
        config = self.config
        wanted = {"time": config.conditioning != "none", "parameter": config.condition_on_parameter}
        for (name, wants), given in zip(wanted.items(), (time, parameter), strict=True):
            if wants != (given is not None):
                lack = "needs" if wants else "does not take"
                mend = "pass" if wants else "drop"
                raise UserError(f"this SineNet {lack} {name}; {mend} {name}=")
            if given is not None and given.shape != (batch,):
                raise UserError(
                    f"{name} should be one number for each of {batch} fields, got "
                    f"{tuple(given.shape)}; expand it"
                )
        if time is None:
            return None
        condition = self.time_embed(time)
        return condition if parameter is None else condition + self.pde_emb(parameter)
