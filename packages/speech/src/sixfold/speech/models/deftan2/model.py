"""DeFTAN-II: dense frequency-time attention with subgroup processing, for multichannel enhancement.

D. Lee and J.-W. Choi, "DeFTAN-II: Efficient Multichannel Speech Enhancement with Subgroup
Processing", IEEE/ACM TASLP 2024. arXiv:2308.15777

Removes noise and reverberation from the recording of an array: complex spectral mapping to the
direct sound at microphone 0. Feature maps are channels-last, (B, L, F, C): batch, frame, frequency,
channel. The published code unfolds overlapping windows and then takes every ks-th channel; that is
the map shifted by the tap, so here it is a view and the windows never exist.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, System, UserError, from_pretrained, rename
from sixfold.speech.audio.array_stft import check_array, map_spectrum
from sixfold.speech.models.deftan2.layers import Axis, GroupNorm, SplitDense, convolve


class DeFTAN2Config(Config):
    """The paper's base network for four microphones; times at 16 kHz."""

    microphones: PositiveInt = 4
    sources: PositiveInt = 1
    n_fft: PositiveInt = 512  # 32 ms; the hop is half of it
    blocks: PositiveInt = 6  # 12: large
    channels: PositiveInt = 64
    heads: PositiveInt = 4  # also the groups of the first and the last dense block
    head_channels: PositiveInt = 64
    hidden: PositiveInt = 256
    window: PositiveInt = 4  # steps along frequency or time that are one of attention
    stride: PositiveInt = 1
    dropout: float = Field(default=0.1, ge=0, lt=1)
    sample_rate: PositiveInt = 16_000

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DeFTAN2Config":
        if self.n_fft % 2 or self.hidden % 2:
            raise ValueError(f"n_fft {self.n_fft} and hidden {self.hidden} should be even")
        if self.window > self.n_fft // 2 + 1:
            raise ValueError(f"a window of {self.window} is more than the bins of {self.n_fft}")
        return self


LARGE = DeFTAN2Config(blocks=12)
"""The paper's large network (twelve blocks, inferred from its number of parameters)."""


class DeFTAN2(nn.Module):
    """Enhance a recording (batch, microphone, time) to the direct sound (batch, source, time).

    Microphone 0 is the reference. The level is normalised inside and restored.
    """

    def __init__(self, config: DeFTAN2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or DeFTAN2Config()
        c, heads, out = config.channels, config.heads, 2 * config.sources
        self.enter = nn.Conv2d(2 * config.microphones, c * heads, 3)
        self.enter_norm = GroupNorm(c * heads)
        self.enter_dense = SplitDense(c, heads, (3, 3))
        self.blocks = nn.ModuleList(Block(config, 2**i) for i in range(config.blocks))
        self.leave = nn.Conv2d(c, out * heads, 3)
        self.leave_dense = SplitDense(out, heads, (3, 3))
        self.register_buffer("hann", torch.hann_window(config.n_fft), persistent=False)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "DeFTAN2":
        """Load an official or a sixfold checkpoint, told apart by their keys, in eval mode.

        Raises:
            UserError: the file is missing, damaged, or another system's or size's.
        """
        return cast(DeFTAN2, from_pretrained(path, SYSTEM))

    def forward(self, noisy: Tensor) -> Float[Tensor, "batch source time"]:
        check_array(noisy, self.config.microphones, "DeFTAN2")
        return map_spectrum(noisy, self.map, cast(Tensor, self.hann))

    def map(
        self, x: Float[Tensor, "batch frame frequency features"]
    ) -> Float[Tensor, "batch _frame _frequency parts"]:
        """Map spectra: parts of each microphone to parts of each source."""
        x = self.enter_norm(convolve(x, self.enter, (1, 1)), 3)
        x = self.enter_dense(self.enter_dense.split(x), 3)
        for block in self.blocks:
            x = block(x)
        x = convolve(x, self.leave, (1, 1))
        return self.leave_dense(self.leave_dense.split(x), 3)


class Block(nn.Module):
    """Attention along frequency in every frame, then along time at every frequency."""

    def __init__(self, config: DeFTAN2Config, dilation: int) -> None:
        super().__init__()
        self.window, self.stride = config.window, config.stride
        sizes = (config.channels, config.window, config.stride, config.heads)
        more = (config.head_channels, config.hidden, config.dropout, dilation)
        self.frequency, self.time = Axis(*sizes, *more), Axis(*sizes, *more)

    def forward(
        self, x: Float[Tensor, "batch frame frequency channel"]
    ) -> Float[Tensor, "batch _frame _frequency channel"]:
        missing = [-(n - self.window) % self.stride for n in x.shape[1:3]]
        if any(missing):  # as published, what is filled up is never cut off
            x = functional.pad(x, (0, 0, 0, missing[1], 0, missing[0]))
        return self.time(self.frequency(x).transpose(1, 2)).transpose(1, 2)


OFFICIAL: dict[str, str | None] = {  # official key -> ours
    "up_conv.0.{leaf}": "enter.{leaf}",
    "up_conv.1.{leaf}": "enter_norm.{leaf}",
    "down_conv.0.{leaf}": "leave.{leaf}",
}
SPLIT_DENSE = {"0.{leaf}": "convolutions.{k}.{leaf}", "1.{leaf}": "norms.{k}.{leaf}"}
SPLIT_DENSE["2.weight"] = "prelus.{k}.weight"
AXIS = {
    "norm.gamma": "norm.weight",
    "norm.beta": "norm.bias",
    "att.norm.{leaf}": "attention_norm.{leaf}",
    "att.fn.cv_qk.0.weight": "attention.mix.weight",
    "att.fn.to_{part}.weight": "attention.{part}.weight",
    "att.fn.to_out.0.{leaf}": "attention.out.{leaf}",
    "ffw.norm.{leaf}": "feedforward_norm.{leaf}",
    "ffw.fn.PW1.0.{leaf}": "feedforward.plain.{leaf}",
    "ffw.fn.PW2.0.{leaf}": "feedforward.filtered.{leaf}",
    "ffw.fn.DW_Conv.0.{leaf}": "feedforward.filter.{leaf}",
    "ffw.fn.DW_Conv.1.{leaf}": "feedforward.norm.{leaf}",
    "ffw.fn.DW_Conv.2.weight": "feedforward.prelu.weight",
    "ffw.fn.PW3.0.{leaf}": "feedforward.out.{leaf}",
    "linear.{leaf}": "leave.{leaf}",
}
for _old, _new in SPLIT_DENSE.items():
    OFFICIAL[f"up_conv.2.blocks.{{k}}.{_old}"] = f"enter_dense.{_new}"
    OFFICIAL[f"down_conv.1.blocks.{{k}}.{_old}"] = f"leave_dense.{_new}"
    AXIS[f"inv.blocks.{{k}}.{_old}"] = f"dense.{_new}"
for _axis, _name in {"F": "frequency", "T": "time"}.items():
    for _old, _new in AXIS.items():
        OFFICIAL[f"blocks.{{i}}.{_axis}_{_old}"] = f"blocks.{{i}}.{_name}.{_new}"


def convert(official: Mapping[str, Tensor]) -> tuple[DeFTAN2Config, dict[str, Tensor]]:
    """Turn an official state dict into settings and a state dict of `DeFTAN2`.

    What a checkpoint does not say, the transform's length, the stride and the sample rate, is the
    default.

    Raises:
        UserError: a key is missing or unknown.
    """
    what = "this DeFTAN-II checkpoint"
    state = {
        key: value[..., None, :] if value.ndim == 3 else value.flatten() if "norm" in key else value
        for key, value in rename(official, OFFICIAL, what=what).items()
    }
    try:
        channels = state["leave.weight"].shape[1]
        heads = state["enter.weight"].shape[0] // channels
        values = {
            "microphones": state["enter.weight"].shape[1] // 2,
            "sources": state["leave.weight"].shape[0] // (2 * heads),
            "blocks": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
            "channels": channels,
            "heads": heads,
            "head_channels": state["blocks.0.time.attention.q.weight"].shape[0] // heads,
            "hidden": 2 * state["blocks.0.time.feedforward.plain.weight"].shape[0],
            "window": state["blocks.0.time.leave.weight"].shape[-1],
        }
    except KeyError as error:
        raise UserError(f"{what} is incomplete: nothing in it becomes {error}") from None
    return DeFTAN2Config.parse(values, what), state


def pcm_loss(
    estimate: Float[Tensor, "batch time"],
    target: Float[Tensor, "batch time"],
    mixture: Float[Tensor, "batch time"],
    n_fft: int = 512,
    *,
    of: Literal["parts", "magnitudes"] = "parts",
) -> Float[Tensor, ""]:
    """Compare spectra of the estimate with the target's, and of what was removed, in equal shares.

    Args:
        estimate: Enhanced signal.
        target: Clean one.
        mixture: Reference microphone.
        n_fft: Of the periodic Hann window; the hop is half of it.
        of: ``parts``, as the released code: the mean absolute difference of real and imaginary
            parts. ``magnitudes``: of the sum of their magnitudes, which the loss is named for
            (Pandey and Wang, "Dense CNN with self-attention for time-domain speech enhancement").
    """
    pairs = ((estimate, target), (mixture - estimate, mixture - target))
    return sum(0.5 * _difference(a, b, n_fft, of) for a, b in pairs)  # pyright: ignore


def _difference(a: Tensor, b: Tensor, n_fft: int, of: str) -> Tensor:
    window = torch.hann_window(n_fft, dtype=a.dtype, device=a.device)
    a, b = (
        torch.view_as_real(
            torch.stft(signal, n_fft, n_fft // 2, window=window, return_complex=True)
        )
        for signal in (a, b)
    )
    if of == "magnitudes":
        a, b = a.abs().sum(-1), b.abs().sum(-1)
    return (a - b).abs().mean()


SYSTEM = System(
    name="deftan2",
    paper="arXiv:2308.15777",
    config=DeFTAN2Config,
    build=DeFTAN2,
    convert=convert,
    published={"base": (DeFTAN2Config(), 3_997_988), "large": (LARGE, 7_712_804)},
    run="sixfold.speech.models.deftan2.inference:run",
    export="sixfold.speech.models.deftan2.export:exportable",
)
