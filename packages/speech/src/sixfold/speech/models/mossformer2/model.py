"""MossFormer2: gated attention and memory blocks that separate speakers in the time domain.

S. Zhao, Y. Ma, C. Ni, C. Zhang, H. Wang, T. H. Nguyen, K. Zhou, J. Q. Yip, D. Ng, B. Ma,
"MossFormer2: Combining Transformer and RNN-Free Recurrent Network for Enhanced Time-Domain Monaural
Speech Separation", ICASSP 2024. arXiv:2312.11825

MossFormer (S. Zhao and B. Ma, ICASSP 2023, arXiv:2302.11824) is the same network without the
memory blocks. Sizes and names of both are those of the released code (ClearerVoice-Studio).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, System, UserError, from_pretrained, rename
from sixfold.core.data.fetch import File
from sixfold.speech.models.mossformer2.layers import (
    Attention,
    GlobalNorm,
    MemoryBlock,
    Sequence,
    rotary_table,
)


class MaskNetConfig(Config):
    """The paper's stack of blocks."""

    speakers: PositiveInt = 2
    channels: PositiveInt = 512
    blocks: PositiveInt = 24
    group: PositiveInt = 256  # frames
    key_channels: PositiveInt = 128
    expansion: float = Field(default=4.0, gt=0)
    memory_channels: PositiveInt | None = 256  # None: no memory blocks, MossFormer
    memory: PositiveInt = 20
    dropout: float = Field(default=0.1, ge=0, lt=1)
    causal_attention: bool = False  # in the released code, but in no released model

    @model_validator(mode="after")
    def _channels_are_even(self) -> "MaskNetConfig":
        if self.channels % 2:
            raise ValueError(f"channels {self.channels} should be even")
        return self


class MossFormer2Config(MaskNetConfig):
    """The paper's size, at 8 kHz; the network for 16 kHz is the same."""

    kernel_size: PositiveInt = 16  # samples of a frame; half of it is the hop
    masking: bool = True  # False: the network's output is the features (WHAMR!)
    sample_rate: PositiveInt = 8000

    @model_validator(mode="after")
    def _kernel_is_even(self) -> "MossFormer2Config":
        if self.kernel_size % 2:
            raise ValueError(f"kernel_size {self.kernel_size} should be even")
        return self


class MossFormerConfig(MossFormer2Config):
    """MossFormer(L): the same sizes, no memory blocks."""

    memory_channels: PositiveInt | None = None


class MossFormer2(nn.Module):
    """Separate the speakers of a mixture (batch, time) into (batch, speaker, time).

    The speakers come in no particular order. The outputs are as long as the mixture, whose level is
    not changed inside.
    """

    def __init__(self, config: MossFormer2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or MossFormer2Config()
        n, kernel = config.channels, config.kernel_size
        self.encoder = nn.Conv1d(1, n, kernel, bias=False)
        self.mask = MaskNet(config, n, n)
        self.decoder = nn.ConvTranspose1d(n, 1, kernel, bias=False)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "MossFormer2":
        """Load an official or a sixfold checkpoint, told apart by their keys, in eval mode.

        Raises:
            UserError: the file is missing, damaged, or another system's or size's.
        """
        return cast(MossFormer2, from_pretrained(path, SYSTEM))

    def forward(self, mixture: Tensor) -> Float[Tensor, "batch speaker time"]:
        self.check(mixture)
        size, hop = self.config.kernel_size, self.config.kernel_size // 2
        frames = mixture.unfold(1, size, hop)
        features = torch.relu(frames @ self.encoder.weight[:, 0].t())
        masks = self.mask(features)
        if self.config.masking:
            masks = masks * features[:, :, None]
        first, second = (masks @ self.decoder.weight[:, 0]).unflatten(-1, (2, hop)).unbind(-2)
        first, second = first.transpose(1, 2), second.transpose(1, 2)  # (B, speaker, L, hop)
        signal = functional.pad(first, (0, 0, 0, 1)) + functional.pad(second, (0, 0, 1, 0))
        missing = mixture.shape[1] - signal.shape[2] * hop
        return functional.pad(signal.flatten(2), (0, missing))

    def check(self, mixture: Tensor) -> None:
        """Raise UserError for what this network cannot separate."""
        if mixture.ndim != 2 or not mixture.is_floating_point():
            raise UserError(
                f"MossFormer2 takes float audio shaped (batch, time), got {mixture.dtype} "
                f"{tuple(mixture.shape)}; for one signal pass x[None], for a channel axis of one "
                "x.squeeze(1)"
            )
        if mixture.shape[1] < self.config.kernel_size:
            raise UserError(
                f"MossFormer2 was given {mixture.shape[1]} samples, less than a frame of "
                f"{self.config.kernel_size}"
            )


class MossFormer(MossFormer2):
    """Separate the speakers of a mixture (batch, time) by MossFormer, without memory blocks."""

    def __init__(self, config: MossFormer2Config | None = None) -> None:
        super().__init__(config or MossFormerConfig())

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "MossFormer":
        """Load a checkpoint, see `MossFormer2.from_pretrained`."""
        return cast(MossFormer, from_pretrained(path, MOSSFORMER))


class MaskNet(nn.Module):
    """Map features (batch, frame, inputs) to a mask for each speaker, (batch, frame, speaker, out).

    Args:
        config: Of the stack.
        inputs: Features a frame.
        out: Values of a mask.
        dense: The kind of memory, see `MemoryBlock`.
    """

    def __init__(self, config: MaskNetConfig, inputs: int, out: int, *, dense: bool = True) -> None:
        super().__init__()
        d, inner = config.channels, config.memory_channels
        self.key_channels = config.key_channels
        self.norm, self.enter = GlobalNorm(inputs), nn.Linear(inputs, d, bias=False)
        self.position_scale = nn.Parameter(torch.ones(1))
        sizes = (d, config.group, config.key_channels, config.expansion, config.dropout)
        self.attention = nn.ModuleList(
            Attention(*sizes, config.causal_attention) for _ in range(config.blocks)
        )
        self.memories = nn.ModuleList(
            MemoryBlock(d, inner, config.memory, config.dropout, dense=dense)
            for _ in range(config.blocks if inner else 0)
            if inner
        )
        self.stack_norm = nn.LayerNorm(d, eps=1e-6)
        self.skip_norm, self.prelu = GlobalNorm(d), nn.PReLU()
        self.speakers = nn.Linear(d, d * config.speakers)
        self.value, self.gate = nn.Linear(d, d), nn.Linear(d, d)
        self.leave = nn.Linear(d, out, bias=False)

    def forward(self, features: Sequence) -> Float[Tensor, "batch frame speaker out"]:
        frames = features.shape[1]
        entered = self.enter(self.norm(features))
        entered = entered + self.position_scale * position_code(frames, entered)
        x, rotary = entered, rotary_table(frames, self.key_channels, entered)
        for i, attention in enumerate(self.attention):
            x = attention(x, rotary)
            if len(self.memories):
                x = self.memories[i](x)
        x = self.prelu(self.skip_norm(self.stack_norm(x)) + entered)
        each = self.speakers(x).unflatten(-1, (-1, x.shape[-1]))
        return torch.relu(self.leave(torch.tanh(self.value(each)) * torch.sigmoid(self.gate(each))))


def position_code(frames: int, like: Tensor) -> Float[Tensor, "frame channel"]:
    """Return sinusoids of the frame number: all sines, then all cosines."""
    channels = like.shape[-1]
    position = torch.arange(frames, device=like.device, dtype=torch.float32)
    exponent = torch.arange(0, channels, 2, device=like.device, dtype=torch.float32) / channels
    angle = position[:, None] * 10000.0**-exponent
    return torch.cat([angle.sin(), angle.cos()], -1).to(like.dtype)


def exportable(model: MossFormer2) -> tuple[nn.Module, tuple[Tensor], dict[str, dict[int, Any]]]:
    """Return what `sixfold.core.weights.export` takes: one mixture of a group of frames or more."""
    config = model.config
    samples = (config.group + 1) * (config.kernel_size // 2)
    noise = 0.1 * torch.randn(1, samples + 5, generator=torch.Generator().manual_seed(0))
    return model, (noise,), {"mixture": {1: torch.export.Dim("time", min=samples)}}


STACKS = {  # where the released training code, and the stand-alone repository, keep things
    "mask_net.": ("mdl.intra_mdl.mossformerM.", "mdl.intra_mdl.norm.", "mdl.intra_norm."),
    "masknet.": (
        "dual_mdl.0.intra_mdl.mdl.flashT.",
        "dual_mdl.0.intra_mdl.mdl.norm.norm.",
        "dual_mdl.0.intra_norm.",
    ),
}
CONV_LINEAR = {  # inside a ConvLinear; its norm differs
    "mdl.1.{leaf}": "linear.{leaf}",
    "mdl.3.sequential.1.conv.weight": "taps",
}


def mask_rules(old: str, new: str) -> dict[str, str | None]:
    """Name what the mask network of a checkpoint holds, official to ours."""
    stack, stack_norm, skip_norm = STACKS.get(old, STACKS["mask_net."])
    layer, block = f"{old}{stack}layers.{{i}}.", f"{new}attention.{{i}}."
    fsmn, memory = f"{old}{stack}fsmn.{{i}}.", f"{new}memories.{{i}}."
    rules: dict[str, str | None] = {
        f"{old}norm.{{leaf}}": f"{new}norm.{{leaf}}",
        f"{old}conv1d_encoder.weight": f"{new}enter.weight",
        f"{old}pos_enc.scale": f"{new}position_scale",
        f"{old}pos_enc.inv_freq": None,  # constants
        f"{layer}rotary_pos_emb.freqs": None,
        f"{layer}qk_offset_scale.{{leaf}}": block + "{leaf}",
        f"{old}{stack_norm}{{leaf}}": f"{new}stack_norm.{{leaf}}",
        f"{old}{skip_norm}{{leaf}}": f"{new}skip_norm.{{leaf}}",
        f"{old}prelu.weight": f"{new}prelu.weight",
        f"{old}conv1d_out.{{leaf}}": f"{new}speakers.{{leaf}}",
        f"{old}output.0.{{leaf}}": f"{new}value.{{leaf}}",
        f"{old}output_gate.0.{{leaf}}": f"{new}gate.{{leaf}}",
        f"{old}conv1_decoder.weight": f"{new}leave.weight",
        f"{fsmn}conv1.0.{{leaf}}": memory + "enter.{leaf}",
        f"{fsmn}conv1.1.weight": memory + "enter_prelu.weight",
        f"{fsmn}norm1.{{leaf}}": memory + "enter_norm.{leaf}",
        f"{fsmn}norm2.{{leaf}}": memory + "leave_norm.{leaf}",
        f"{fsmn}conv2.{{leaf}}": memory + "leave.{leaf}",
        f"{fsmn}gated_fsmn.fsmn.linear.{{leaf}}": memory + "memory.linear.{leaf}",
        f"{fsmn}gated_fsmn.fsmn.project.weight": memory + "memory.project.weight",
        f"{fsmn}gated_fsmn.fsmn.conv1.weight": memory + "memory.taps",
    }
    for k in (1, 2):
        dense = f"{fsmn}gated_fsmn.fsmn.conv."
        rules[f"{dense}conv{k}.weight"] = f"{memory}memory.taps.{k - 1}"
        rules[f"{dense}norm{k}.{{leaf}}"] = f"{memory}memory.norm_{{leaf}}.{k - 1}"
        rules[f"{dense}prelu{k}.weight"] = f"{memory}memory.prelu.{k - 1}"
    for theirs, ours in {"hidden": "hidden", "qk": "key", "out": "out"}.items():
        rules[f"{layer}to_{theirs}.mdl.0.g"] = f"{block}{ours}_scale"
        for leaf, own in CONV_LINEAR.items():
            rules[f"{layer}to_{theirs}.{leaf}"] = f"{block}{ours}.{own}"
    for theirs, ours in {"u": "signal", "v": "gate"}.items():
        rules[f"{fsmn}gated_fsmn.to_{theirs}.mdl.0.{{leaf}}"] = f"{memory}{ours}_norm.{{leaf}}"
        for leaf, own in CONV_LINEAR.items():
            rules[f"{fsmn}gated_fsmn.to_{theirs}.{leaf}"] = f"{memory}{ours}.{own}"
    return rules


OFFICIAL: dict[str, str | None] = {  # official key -> ours
    "enc.conv1d.weight": "encoder.weight",
    "encoder.conv1d.weight": "encoder.weight",
    "dec.weight": "decoder.weight",
    "decoder.weight": "decoder.weight",
    **mask_rules("mask_net.", "mask."),
    **mask_rules("masknet.", "mask."),
}


def convert(official: Mapping[str, Tensor]) -> tuple[MossFormer2Config, dict[str, Tensor]]:
    """Turn an official state dict into settings and a state dict of `MossFormer2`.

    The stand-alone repository's three files are read as one state dict with ``encoder.``,
    ``masknet.`` and ``decoder.`` before their keys. What a checkpoint does not say, the group's
    length and the sample rate, is the default.

    Raises:
        UserError: a key is missing or unknown.
    """
    state = named(official, OFFICIAL, "this MossFormer2 checkpoint")
    return _read_config(state), state


def named(
    official: Mapping[str, Tensor], rules: Mapping[str, str | None], what: str
) -> dict[str, Tensor]:
    """Rename official weights, and make matrices of kernels of width one."""
    state = rename(official, rules, what=what)
    for key, value in state.items():
        taps = ".taps" in key
        if value.ndim == 4 or (value.ndim == 3 and not taps and not key.endswith("coder.weight")):
            state[key] = value.squeeze(-1)
    return state


def stack_values(state: Mapping[str, Tensor], prefix: str, what: str) -> dict[str, Any]:
    """Read a `MaskNet`'s settings from the shapes of its weights.

    Raises:
        UserError: an entry that tells is missing.
    """
    try:
        channels = state[f"{prefix}value.weight"].shape[0]
        hidden = state[f"{prefix}attention.0.hidden.linear.weight"].shape[0]
        values = {
            "channels": channels,
            "speakers": state[f"{prefix}speakers.weight"].shape[0] // channels,
            "blocks": len({k for k in state if k.startswith(prefix) and k.endswith(".gamma")}),
            "key_channels": state[f"{prefix}attention.0.gamma"].shape[1],
            "expansion": hidden / channels,
            "memory_channels": None,
        }
    except KeyError as error:
        raise UserError(f"{what} is incomplete: nothing in it becomes {error}") from None
    taps = state.get(
        f"{prefix}memories.0.memory.taps.0", state.get(f"{prefix}memories.0.memory.taps")
    )
    if taps is not None:
        values |= {"memory_channels": taps.shape[0], "memory": (taps.shape[-1] + 1) // 2}
    return values


def _read_config(state: Mapping[str, Tensor]) -> MossFormer2Config:
    what = "this MossFormer2 checkpoint"
    if "encoder.weight" not in state:
        raise UserError(f"{what} has no encoder: none of its keys is enc.conv1d.weight")
    values = stack_values(state, "mask.", what) | {"kernel_size": state["encoder.weight"].shape[2]}
    kind = MossFormerConfig if values["memory_channels"] is None else MossFormer2Config
    return kind.parse(values, what)


# The published counts hold 16 numbers more: the rotary embedding's constants.
SYSTEM = System(
    name="mossformer2",
    paper="arXiv:2312.11825",
    config=MossFormer2Config,
    build=MossFormer2,
    convert=convert,
    published={"MossFormer2": (MossFormer2Config(), 55_735_410 - 16)},
    weights={
        "MossFormer2_SS_16K": File(
            "MossFormer2_SS_16K/last_best_checkpoint.pt",
            url="https://huggingface.co/alibabasglab/MossFormer2_SS_16K/resolve/main/last_best_checkpoint.pt",
            licence="Apache-2.0",
        )
    },
    run="sixfold.speech.models.mossformer2.inference:run",
    export="sixfold.speech.models.mossformer2.model:exportable",
)
MOSSFORMER = System(
    name="mossformer",
    paper="arXiv:2302.11824",
    config=MossFormerConfig,
    build=MossFormer,
    convert=convert,
    published={"MossFormer(L)": (MossFormerConfig(), 42_101_850 - 16)},
    run="sixfold.speech.models.mossformer2.inference:run",
    export="sixfold.speech.models.mossformer2.model:exportable",
)
