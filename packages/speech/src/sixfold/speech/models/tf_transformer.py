"""A plain transformer along frequency and along time: the baseline of DeFTAN-II.

Our own network, not a published one: input, output and the order of the blocks are DeFTAN-II's
(arXiv:2308.15777), the layers between are those of A. Vaswani et al., "Attention Is All You Need",
NeurIPS 2017. arXiv:1706.03762. No subgroups, windows or convolutions in the blocks; softmax
attention of quadratic cost. The default size needs as many multiply-adds per second of audio as
DeFTAN-II's base size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, System, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.speech.audio.array_stft import check_array, map_spectrum

Map = Float[Tensor, "batch row step channel"]


class TFTransformerConfig(Config):
    """Sizes with the multiply-adds of DeFTAN-II base for four microphones; times at 16 kHz."""

    microphones: PositiveInt = 4
    sources: PositiveInt = 1
    n_fft: PositiveInt = 512  # 32 ms; the hop is half of it
    blocks: Depth = 6
    channels: PositiveInt = 160
    heads: PositiveInt = 4
    hidden: PositiveInt = 552  # width of the MLP
    dropout: float = Field(default=0.1, ge=0, lt=1)
    sample_rate: PositiveInt = 16_000

    @model_validator(mode="after")
    def _sizes_fit(self) -> "TFTransformerConfig":
        if self.n_fft % 2 or self.channels % 2:
            raise ValueError(f"n_fft {self.n_fft} and channels {self.channels} should be even")
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels do not split into {self.heads} heads")
        return self


class TFTransformer(nn.Module):
    """Map an array recording (batch, microphone, time) to direct sound (batch, source, time).

    Microphone 0 is the reference. The level is normalised and restored.
    """

    def __init__(self, config: TFTransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TFTransformerConfig()
        self.in_proj = nn.Conv2d(2 * config.microphones, config.channels, 3, padding=1)
        self.frequency, self.time = (
            nn.ModuleList(Layer(config) for _ in range(config.blocks)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(config.channels)
        self.out_proj = nn.Conv2d(config.channels, 2 * config.sources, 3, padding=1)
        self.register_buffer("hann", torch.hann_window(config.n_fft), persistent=False)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "TFTransformer":
        """Load a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(TFTransformer, from_pretrained(path, SYSTEM))

    def forward(self, noisy: Tensor) -> Float[Tensor, "batch source time"]:
        check_array(noisy, self.config.microphones, "TFTransformer")
        return map_spectrum(noisy, self.map_spectra, cast(Tensor, self.hann))

    def map_spectra(
        self, x: Float[Tensor, "batch frame frequency features"]
    ) -> Float[Tensor, "batch frame frequency parts"]:
        """Map real and imaginary parts of all microphones to those of all sources."""
        x = self.in_proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        frames, bins = (position_encoding(n, x.shape[3]).to(x) for n in x.shape[1:3])
        x = x + bins + frames[:, None]
        for along_frequency, along_time in zip(self.frequency, self.time, strict=True):
            x = along_time(along_frequency(x).transpose(1, 2)).transpose(1, 2)
        return self.out_proj(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Layer(nn.Module):
    """Self-attention along the steps of each row, then an MLP, both with a norm before."""

    def __init__(self, config: TFTransformerConfig) -> None:
        super().__init__()
        width = config.channels
        self.heads, self.dropout = config.heads, config.dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.hidden), nn.GELU(), nn.Linear(config.hidden, width)
        )

    def forward(self, x: Map) -> Map:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.flatten(0, 1).permute(2, 0, 3, 1, 4)  # each (B R, head, S, d)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.apply_dropout(self.out(attended.unflatten(0, x.shape[:2])))
        return x + self.apply_dropout(self.mlp(self.mlp_norm(x)))

    def apply_dropout(self, x: Tensor) -> Tensor:
        """Apply dropout, in training only."""
        return functional.dropout(x, self.dropout, self.training)


def position_encoding(steps: int, channels: int) -> Float[Tensor, "step channel"]:
    """Compute the paper's sinusoidal position encoding: all sines, then all cosines."""
    rate = 10_000 ** (-torch.arange(0, channels, 2) / channels)
    angle = torch.arange(steps)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)


def convert(official: Mapping[str, Tensor]) -> tuple[TFTransformerConfig, dict[str, Tensor]]:
    """Raise a UserError: there are no official weights of this baseline.

    Raises:
        UserError: in every case.
    """
    raise UserError(
        f"this checkpoint (with {next(iter(official))}) is of another system: tf_transformer is a "
        "baseline without published weights; give it a checkpoint that sixfold train wrote"
    )


SYSTEM = System(
    name="tf_transformer",
    paper="arXiv:1706.03762",
    config=TFTransformerConfig,
    build=TFTransformer,
    convert=convert,
    published={"DeFTAN-II base in cost": (TFTransformerConfig(), 3_387_266)},
    train="sixfold.speech.own_data:train_tf_transformer",
)
