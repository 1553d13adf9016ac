"""Conv-TasNet: dilated convolutions that mask a learned filter bank; a baseline of separation.

Y. Luo and N. Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech
Separation", IEEE/ACM TASLP 27(8), 2019. arXiv:1809.07454

The network is torchaudio's: the paper's non-causal variant with global normalisation. This file
adds its sizes, with the letters of the paper's table I, and the interface of
`sixfold.speech.MossFormer2`. The paper rounds to 5.1 M parameters; torchaudio omits 65,664 of them,
the residual convolution of the last block, whose output is unused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from sixfold.core import Config, System, UserError, from_pretrained, rename
from sixfold.core.config import Depth


class ConvTasNetConfig(Config):
    """Sizes of the paper's best network, at 8 kHz."""

    speakers: PositiveInt = 2
    features: PositiveInt = 512  # N
    kernel_size: PositiveInt = 16  # L, samples in a frame; the hop is half of it
    channels: PositiveInt = 128  # B and Sc
    hidden: PositiveInt = 512  # H
    taps: PositiveInt = 3  # P
    layers: Depth = 8  # X, layers in a stack, each with twice the dilation of the last
    stacks: Depth = 3  # R
    mask: Literal["sigmoid", "relu"] = "sigmoid"
    sample_rate: PositiveInt = 8000

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ConvTasNetConfig":
        if self.kernel_size % 2:
            raise ValueError(f"kernel_size {self.kernel_size} should be even")
        return self


class ConvTasNet(nn.Module):
    """Separate the speakers of a mixture (batch, time) into (batch, speaker, time).

    The speakers are in no particular order. The outputs are as long as the mixture.
    """

    def __init__(self, config: ConvTasNetConfig | None = None) -> None:
        from torchaudio import models  # slow to import, and no other system needs it

        super().__init__()
        self.config = config = config or ConvTasNetConfig()
        self.network = models.ConvTasNet(
            num_sources=config.speakers,
            enc_kernel_size=config.kernel_size,
            enc_num_feats=config.features,
            msk_kernel_size=config.taps,
            msk_num_feats=config.channels,
            msk_num_hidden_feats=config.hidden,
            msk_num_layers=config.layers,
            msk_num_stacks=config.stacks,
            msk_activate=config.mask,
        )

    @classmethod
    def from_pretrained(cls, path: str | Path, sample_rate: int | None = None) -> "ConvTasNet":
        """Load a torchaudio or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            sample_rate: Sample rate that the network was trained at, in Hz. Official checkpoints
                do not hold it: unset, it is 8000, as torchaudio's.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(ConvTasNet, from_pretrained(path, SYSTEM, sample_rate=sample_rate))

    def forward(self, mixture: Tensor) -> Float[Tensor, "batch speaker time"]:
        if mixture.ndim != 2 or not mixture.is_floating_point() or not mixture.numel():
            raise UserError(
                f"Conv-TasNet takes float audio shaped (batch, time), got {mixture.dtype} "
                f"{tuple(mixture.shape)}; for one signal pass x[None], for a channel axis of one "
                "x.squeeze(1)"
            )
        return self.network(mixture[:, None])


OFFICIAL = {  # torchaudio key -> ours
    "encoder.weight": "network.encoder.weight",
    "decoder.weight": "network.decoder.weight",
    "mask_generator.{*leaf}": "network.mask_generator.{leaf}",
}


def convert(official: Mapping[str, Tensor]) -> tuple[ConvTasNetConfig, dict[str, Tensor]]:
    """Convert torchaudio's state dict (CONVTASNET_BASE_LIBRI2MIX) to a configuration and ours.

    What the weights do not hold is as in ``torchaudio.models.conv_tasnet_base``: stacks of eight
    layers, ReLU masks, 8 kHz.

    Raises:
        UserError: a key is missing or unknown, or the blocks do not form stacks of eight.
    """
    what = "this Conv-TasNet checkpoint"
    state = rename(official, OFFICIAL, what=what)
    mask, default = "network.mask_generator.", ConvTasNetConfig()
    blocks = sum(key.endswith("skip_out.weight") for key in state)
    if blocks == 0 or blocks % default.layers:
        raise UserError(f"{what} has {blocks} blocks, not stacks of {default.layers}")
    try:
        encoder = state["network.encoder.weight"]
        first = f"{mask}conv_layers.0.conv_layers"
        values: dict[str, Any] = {
            "speakers": state[f"{mask}output_conv.weight"].shape[0] // encoder.shape[0],
            "features": encoder.shape[0],
            "kernel_size": encoder.shape[2],
            "channels": state[f"{mask}input_conv.weight"].shape[0],
            "hidden": state[f"{first}.0.weight"].shape[0],
            "taps": state[f"{first}.3.weight"].shape[2],
            "stacks": blocks // default.layers,
            "mask": "relu",
        }
    except KeyError as error:
        raise UserError(f"{what} is incomplete: nothing in it becomes {error}") from None
    return ConvTasNetConfig.parse(values, what), state


SYSTEM = System(
    name="conv_tasnet",
    paper="arXiv:1809.07454",
    config=ConvTasNetConfig,
    build=ConvTasNet,
    convert=convert,
    published={"Conv-TasNet": (ConvTasNetConfig(), 5_050_545 - 65_664)},
    train="sixfold.speech.own_data:train_conv_tasnet",
)
