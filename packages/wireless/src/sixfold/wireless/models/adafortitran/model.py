"""AdaFortiTran, FortiTran and the linear network: from pilots to the channel of a slot.

B. Guler, H. Jafarkhani, "AdaFortiTran: An Adaptive Transformer Model for Robust OFDM Channel
Estimation", IEEE ICC 2025. arXiv:2505.09076

All three estimate the real part from the real parts of the pilots and the imaginary part from the
imaginary parts, with the same weights: both go through in one batch.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from sixfold.core import Config, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.wireless.models.adafortitran.layers import (
    ChannelAdapter,
    ConvEnhancer,
    EncoderLayer,
    LearnedPositions,
    PatchTransformer,
    SinusoidalPositions,
    from_patches,
    to_patches,
)

Range = tuple[float, float]
Network = TypeVar("Network", bound="ChannelNetwork")  # beartype does not know Self here


class LinearConfig(Config):
    """Sizes of the released linear network.

    Args:
        subcarriers: Number of subcarriers of the grid.
        symbols: Number of OFDM symbols of the grid.
        pilot_subcarriers: Number of subcarriers with pilots.
        pilot_symbols: Number of symbols with pilots.
        channel_rms: Root mean square of the channels trained on; the network sees pilots divided
            by it.
        conditions_range: Lowest and highest SNR (dB), delay spread (s) and Doppler (Hz) trained
            on, if known.
    """

    subcarriers: PositiveInt = 120
    symbols: PositiveInt = 14
    pilot_subcarriers: PositiveInt = 12
    pilot_symbols: PositiveInt = 2
    channel_rms: PositiveFloat = 1.0
    conditions_range: tuple[Range, Range, Range] | None = None

    @property
    def elements(self) -> int:
        """Number of resource elements of the grid."""
        return self.subcarriers * self.symbols

    @property
    def pilots(self) -> int:
        """Number of pilots."""
        return self.pilot_subcarriers * self.pilot_symbols


class FortiTranConfig(LinearConfig):
    """Sizes of the released network.

    Args:
        patch: Subcarriers and symbols of a token.
        layers: Number of transformer layers.
        width: Number of features of a token.
        heads: Number of attention heads.
        activation: Activation of the feed-forward networks.
        dropout: Share of values dropped in training.
        positions: Kind of positional encoding.
        max_tokens: Number of rows of the positional table.
    """

    patch: tuple[PositiveInt, PositiveInt] = (3, 2)
    layers: Depth = 6
    width: PositiveInt = 128
    heads: PositiveInt = 4
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    positions: Literal["learned", "sinusoidal"] = "learned"
    max_tokens: PositiveInt = 512

    @property
    def tokens(self) -> int:
        """Number of patches of the grid."""
        return self.elements // (self.patch[0] * self.patch[1])

    @model_validator(mode="after")
    def _sizes_divide(self) -> "FortiTranConfig":
        if self.subcarriers % self.patch[0] or self.symbols % self.patch[1]:
            raise ValueError(
                f"patches of {self.patch[0]} x {self.patch[1]} do not divide a grid of "
                f"{self.subcarriers} x {self.symbols}; choose a patch that does"
            )
        if self.tokens > self.max_tokens:
            raise ValueError(
                f"{self.tokens} patches are more than max_tokens, {self.max_tokens}; raise it"
            )
        if self.width % self.heads:
            raise ValueError(
                f"a width of {self.width} is not divisible by {self.heads} heads; change one"
            )
        return self


class AdaFortiTranConfig(FortiTranConfig):
    """Sizes of the released network.

    Args:
        condition_hidden: Hidden sizes of the networks of the conditions.
        condition_features: Number of features that a condition adds to a token.
        condition_scaling: Whether conditions are scaled to about one; the released network takes
            dB, ns and Hz as they are.
    """

    condition_hidden: tuple[PositiveInt, PositiveInt] = (7, 42)
    condition_features: PositiveInt = 2
    condition_scaling: bool = False


class ChannelNetwork(nn.Module):
    """What the three networks share: complex pilots in, and training on one's own channels."""

    config: Any
    system_name: str
    adaptive = False  # whether ``forward`` takes conditions

    @classmethod
    def from_pretrained(cls: type[Network], path: str | Path, **settings: Any) -> Network:
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold; see `convert`.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.wireless.models import adafortitran  # it needs this class

        system = next(one for one in adafortitran.SYSTEMS if one.name == cls.system_name)
        return cast(Network, from_pretrained(path, system, **settings))

    def estimate(self, pilots: Any, **given: Any) -> Any:
        """Estimate complex channels from complex pilots.

        Args:
            pilots: Array or tensor (batch, pilot subcarrier, pilot symbol).
            given: Conditions and so on; see `inference.estimate`.
        """
        from sixfold.wireless.models.adafortitran.inference import estimate  # that needs this file

        return estimate(self, pilots, **given)

    def fit(self, data: str | Path, out: str | Path, **options: Any) -> dict[str, float]:
        """Train on one's own channels; the result is ``model.safetensors`` in the run folder.

        Args:
            data: Folder of .mat files, or .npz file.
            out: Run folder; a training that was stopped goes on there.
            options: Settings; see `training.fit_network`.
        """
        from sixfold.wireless.models.adafortitran.training import fit_network  # needs this file

        return fit_network(self, data, out, **options)


class Linear(ChannelNetwork):
    """Estimate a channel (batch, subcarrier, symbol, real and imaginary part) from its pilots.

    One linear map for both parts: ``model(pilots)``.
    """

    system_name = "linear"

    def __init__(self, config: LinearConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LinearConfig()
        self.linear = nn.Linear(config.pilots, config.elements)

    def forward(
        self, pilots: Float[Tensor, "batch pilot_subcarrier pilot_symbol 2"]
    ) -> Float[Tensor, "batch subcarrier symbol 2"]:
        parts = split_parts(pilots, self.config)
        grid = self.linear(parts).unflatten(1, (self.config.subcarriers, self.config.symbols))
        return join_parts(grid, self.config)


class FortiTran(ChannelNetwork):
    """Estimate a channel (batch, subcarrier, symbol, real and imaginary part) from its pilots.

    A linear map to the grid, convolutions, a transformer over patches whose output is added, and
    convolutions again: ``model(pilots)``.
    """

    system_name = "fortitran"

    def __init__(self, config: FortiTranConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FortiTranConfig()
        values = config.patch[0] * config.patch[1]
        self.pilot_upsampler = nn.Linear(config.pilots, config.elements)
        self.initial_enhancer = ConvEnhancer()
        self.transformer_encoder = _transformer(config, values, values)
        self.final_refiner = ConvEnhancer()

    def forward(
        self, pilots: Float[Tensor, "batch pilot_subcarrier pilot_symbol 2"]
    ) -> Float[Tensor, "batch subcarrier symbol 2"]:
        return estimate_parts(self, pilots, None)


class AdaFortiTran(ChannelNetwork):
    """Estimate a channel (batch, subcarrier, symbol, real and imaginary part) from its pilots.

    FortiTran whose tokens also hold features of SNR in dB, RMS delay spread in seconds and maximum
    Doppler in Hz, the columns of ``conditions``: ``model(pilots, conditions)``.
    """

    system_name = "adafortitran"
    adaptive = True

    def __init__(self, config: AdaFortiTranConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AdaFortiTranConfig()
        values, added = config.patch[0] * config.patch[1], 3 * config.condition_features
        self.pilot_upsampler = nn.Linear(config.pilots, config.elements)
        self.initial_enhancer = ConvEnhancer()
        self.channel_adapter = ChannelAdapter(
            config.tokens, config.condition_hidden, config.condition_features,
            config.condition_scaling,
        )  # fmt: skip
        self.transformer_encoder = _transformer(config, values + added, values)
        self.final_refiner = ConvEnhancer()

    def forward(
        self,
        pilots: Float[Tensor, "batch pilot_subcarrier pilot_symbol 2"],
        conditions: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch subcarrier symbol 2"]:
        nanoseconds = conditions * conditions.new_tensor([1.0, 1e9, 1.0])  # what it was trained on
        return estimate_parts(self, pilots, self.channel_adapter(nanoseconds))


def _transformer(config: FortiTranConfig, inputs: int, outputs: int) -> PatchTransformer:
    kind = LearnedPositions if config.positions == "learned" else SinusoidalPositions
    sizes = (config.width, config.heads, config.dropout, config.activation)
    layers = [EncoderLayer(*sizes) for _ in range(config.layers)]
    positions = kind(config.max_tokens, config.width)
    return PatchTransformer(inputs, outputs, config.width, positions, layers)


def estimate_parts(
    model: FortiTran | AdaFortiTran,
    pilots: Float[Tensor, "batch pilot_subcarrier pilot_symbol 2"],
    condition_features: Float[Tensor, "batch token condition_feature"] | None,
) -> Float[Tensor, "batch subcarrier symbol 2"]:
    """Run the network on real and imaginary parts, with features to append to the tokens."""
    config = model.config
    grid = model.pilot_upsampler(split_parts(pilots, config))
    grid = grid.unflatten(1, (1, config.subcarriers, config.symbols))
    enhanced = model.initial_enhancer(grid)[:, 0]
    tokens = to_patches(enhanced, config.patch)
    if condition_features is not None:  # computed once for both parts
        tokens = torch.cat([tokens, torch.cat([condition_features, condition_features])], -1)
    tokens = model.transformer_encoder(tokens)
    refined = enhanced + from_patches(tokens, config.patch, config.subcarriers)
    return join_parts(model.final_refiner(refined[:, None])[:, 0], config)


def split_parts(
    pilots: Float[Tensor, "batch pilot_subcarrier pilot_symbol 2"], config: LinearConfig
) -> Float[Tensor, "two_batches pilot"]:
    """Stack real and imaginary parts along the batch, scaled as in training.

    Raises:
        UserError: the pilots are not as many as those of the network.
    """
    expected = (config.pilot_subcarriers, config.pilot_symbols)
    if pilots.shape[1:3] != expected:
        raise UserError(
            f"got pilots on {pilots.shape[1]} subcarriers x {pilots.shape[2]} symbols, but this "
            f"network takes {expected[0]} x {expected[1]}; give it such pilots, or train another"
        )
    scaled = pilots / config.channel_rms
    return torch.cat([scaled[..., 0], scaled[..., 1]]).flatten(1)


def join_parts(
    grid: Float[Tensor, "two_batches subcarrier symbol"], config: LinearConfig
) -> Float[Tensor, "batch subcarrier symbol 2"]:
    """Undo `split_parts` for the estimate."""
    return grid.unflatten(0, (2, -1)).movedim(0, -1) * config.channel_rms
