"""LESnets' networks: settings, forward pass, and what a user does with them.

arXiv:2411.04502; the citation and the departures from the paper are in the docstring of
`sixfold.pde.models.lesnets`. Velocities are (batch, x, y, z, component) for a field and (batch, x,
y, z, component, time) for a sequence; component i is along axis i.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.pde.models.lesnets.layers import (
    ACTIVATIONS,
    Features,
    FourierLayer,
    Head,
    Out,
    pointwise,
)
from sixfold.pde.models.lesnets.loss import Flow

if TYPE_CHECKING:
    from sixfold.pde.models.lesnets.inference import Coefficient, Prediction

Field3 = Float[Tensor, "batch x y z 3"]
Sequence3 = Float[Tensor, "batch x y z 3 time"]
Fraction = Annotated[float, Field(ge=0, le=1)]


class LESnetsConfig(Config):
    """Sizes of the networks; the default is the paper's FNO for homogeneous turbulence.

    Args:
        network: Fourier neural operator, or the implicit one, whose layers share their weights.
        num_layers: Number of layers, or of iterations of the shared one (L).
        width: Number of features (W).
        modes: Number of kept modes along x, y, z and time.
        head_width: Number of hidden features of the head.
        act: Activation.
        frames: Number of frames that are predicted at once.
        residual_output: Whether the network's output is added to the initial field; the published
            networks predict the field itself.
        domain_padding: Length that is added to the end of x, y, z and time, in multiples of their
            own; for what is not periodic, as time is.
        overlapping_modes: Whether grids of fewer than twice the modes are taken, where corner
            blocks overlap and the later one wins, as in the published code.
        learned_coefficient: Whether Cs2 is a parameter of the network.
        grid: Number of points along x, y and z that exports keep.
        flow: Equations that the network was trained for; None before a training.
    """

    network: Literal["fno", "ifno"] = "fno"
    num_layers: Depth = 6
    width: PositiveInt = 80
    modes: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (12, 12, 12, 2)
    head_width: PositiveInt = 128
    act: Literal["gelu", "tanh", "relu", "elu", "leaky_relu"] = "gelu"
    frames: int = Field(default=10, ge=2)
    residual_output: bool = False
    domain_padding: tuple[Fraction, Fraction, Fraction, Fraction] = (0.0, 0.0, 0.0, 0.0)
    overlapping_modes: bool = False
    learned_coefficient: bool = False
    grid: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 32, 32)
    flow: Flow | None = None


class LESnets(nn.Module):
    """Predict the next frames of 3-D turbulence from one: ``model(u0)``.

    Maps a velocity field (batch, x, y, z, 3) to frames (batch, x, y, z, 3, time), on any grid of
    twice the modes or more.
    """

    def __init__(self, config: LESnetsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LESnetsConfig()
        self.fc0 = nn.Linear(7, config.width)
        count = config.num_layers if config.network == "fno" else 1
        self.layers = nn.ModuleList(FourierLayer(config.width, config.modes) for _ in range(count))
        self.head = Head(config.width, config.head_width, config.act)
        # The published first value; it is what the loss takes as Cs2, not part of the forward pass.
        self.smagorinsky = nn.Parameter(torch.tensor(1e-8)) if config.learned_coefficient else None

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "LESnets":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold: ``frames``, ``act``; for
                an implicit network, ``network="ifno"`` and ``num_layers``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.pde.models.lesnets import SYSTEM

        return cast(LESnets, from_pretrained(path, SYSTEM, **settings))

    def forward(self, u0: Field3) -> Sequence3:
        check_modes(u0.shape[1:4], self.config)
        found = self.network(features(u0, self.config.frames)).movedim(1, 4)
        return u0[..., None] + found if self.config.residual_output else found

    def network(self, x: Features) -> Out:
        """Map coordinates and velocity, 7 channels, to the 3 of the velocity."""
        x = pointwise(self.fc0, x)
        sizes = x.shape[2:]
        x = functional.pad(x, _padding(sizes, self.config.domain_padding))
        x = self._explicit(x) if self.config.network == "fno" else self._implicit(x)
        return self.head(x[:, :, : sizes[0], : sizes[1], : sizes[2], : sizes[3]])

    def _explicit(self, x: Features) -> Features:
        act, last = ACTIVATIONS[self.config.act], len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x) if number == last else act(layer(x))
        return x

    def _implicit(self, x: Features) -> Features:
        act, (layer,), steps = ACTIVATIONS[self.config.act], self.layers, self.config.num_layers
        for _ in range(steps - 1):
            x = x + act(layer(x)) / steps
        return x + layer(x) / steps

    def fit(self, u0: Any, **settings: Any) -> dict[str, float]:
        """Train without labels from initial fields, or with; see `training.train`."""
        from sixfold.pde.models.lesnets.training import train

        return train(self, u0, **settings)

    def predict(self, u0: Any, blocks: int = 1) -> "Prediction":
        """Predict blocks of frames, each from the last frame before; see `inference.predict`."""
        from sixfold.pde.models.lesnets.inference import predict

        return predict(self, u0, blocks)

    def coefficient(self, sequence: Any, flow: Flow | None = None) -> "Coefficient":
        """Find the Cs2 of a sequence in closed form; see `inference.coefficient`."""
        from sixfold.pde.models.lesnets.inference import coefficient, flow_of

        return coefficient(sequence, flow or flow_of(self))


def features(u0: Field3, frames: int) -> Features:
    """Join the coordinates of each point in [0, 1) and [0, 1] to the field, the same at all times.

    The grid of space excludes its end, that of time includes it, as in the published code.
    """
    batch, *space, _ = u0.shape
    axes = [torch.arange(n, device=u0.device, dtype=u0.dtype) / n for n in space]
    axes.append(torch.linspace(0, 1, frames, device=u0.device, dtype=u0.dtype))
    grid = torch.stack(torch.meshgrid(axes, indexing="ij"))
    velocity = u0.movedim(-1, 1)[..., None].expand(-1, -1, -1, -1, -1, frames)
    return torch.cat((grid.expand(batch, -1, -1, -1, -1, -1), velocity), 1)


def check_modes(space: Any, config: LESnetsConfig) -> None:
    """Refuse grids and numbers of frames that the kept modes do not fit.

    Raises:
        UserError: an axis has fewer points than twice its modes, or time fewer than it needs.
    """
    *modes, in_time = config.modes
    fits = all(n >= 2 * m for n, m in zip(space, modes, strict=True)) or config.overlapping_modes
    if not fits:
        raise UserError(
            f"LESnets keeps {tuple(modes)} modes and takes grids from {tuple(2 * m for m in modes)}"
            f" points, got {tuple(space)}; give a finer grid, or set fewer modes"
        )
    if in_time > config.frames // 2 + 1:
        raise UserError(
            f"LESnets keeps {in_time} modes of time, but {config.frames} frames have "
            f"{config.frames // 2 + 1}; set fewer modes, or more frames"
        )


def _padding(sizes: Any, fractions: tuple[float, ...]) -> list[int]:
    """Return the points to add at the end of each axis, as `functional.pad` takes them."""
    added = [round(f * n) for f, n in zip(fractions, sizes, strict=True)]
    return [n for one in reversed(added) for n in (0, one)]
