"""Convert official checkpoints of MossFormer2, MossFormer and MossFormer2_SE_48K."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.speech.models.mossformer2.model import MossFormer2Config, MossFormerConfig
from sixfold.speech.models.mossformer2.se_48k import MossFormer2SEConfig

STACKS = {  # key prefixes in the released training code and in the stand-alone repository
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
    """Build the table of the mask network's keys: official key to ours."""
    stack, stack_norm, skip_norm = STACKS.get(old, STACKS["mask_net."])
    layer, block = f"{old}{stack}layers.{{i}}.", f"{new}attention.{{i}}."
    fsmn, memory = f"{old}{stack}fsmn.{{i}}.", f"{new}memories.{{i}}."
    rules: dict[str, str | None] = {
        f"{old}norm.{{leaf}}": f"{new}norm.{{leaf}}",
        f"{old}conv1d_encoder.weight": f"{new}in_proj.weight",
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
        f"{old}conv1_decoder.weight": f"{new}out_proj.weight",
        f"{fsmn}conv1.0.{{leaf}}": memory + "in_proj.{leaf}",
        f"{fsmn}conv1.1.weight": memory + "in_prelu.weight",
        f"{fsmn}norm1.{{leaf}}": memory + "in_norm.{leaf}",
        f"{fsmn}norm2.{{leaf}}": memory + "out_norm.{leaf}",
        f"{fsmn}conv2.{{leaf}}": memory + "out_proj.{leaf}",
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
    """Convert an official state dict to a configuration and a state dict of `MossFormer2`.

    The three files of the stand-alone repository become one state dict with the prefixes
    ``encoder.``, ``masknet.`` and ``decoder.``. Group length and sample rate, which a checkpoint
    does not hold, are the defaults.

    Raises:
        UserError: a key is missing or unknown.
    """
    state = rename_weights(official, OFFICIAL, "this MossFormer2 checkpoint")
    return _read_config(state), state


def rename_weights(
    official: Mapping[str, Tensor], rules: Mapping[str, str | None], what: str
) -> dict[str, Tensor]:
    """Rename official weights, and reshape kernels of width one to matrices."""
    state = rename(official, rules, what=what)
    for key, value in state.items():
        taps = ".taps" in key
        if value.ndim == 4 or (value.ndim == 3 and not taps and not key.endswith("coder.weight")):
            state[key] = value.squeeze(-1)
    return state


def infer_sizes(state: Mapping[str, Tensor], prefix: str, what: str) -> dict[str, Any]:
    """Infer the sizes of a `MaskNet` from the shapes of its weights.

    Raises:
        UserError: an entry is missing.
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
    values = infer_sizes(state, "mask.", what) | {"kernel_size": state["encoder.weight"].shape[2]}
    kind = MossFormerConfig if values["memory_channels"] is None else MossFormer2Config
    return kind.parse(values, what)


OFFICIAL_SE_48K: dict[str, str | None] = {  # the mask network alone, or inside the released model
    **mask_rules("", "mask."),
    **mask_rules("mossformer.", "mask."),
}


def convert_se_48k(official: Mapping[str, Tensor]) -> tuple[MossFormer2SEConfig, dict[str, Tensor]]:
    """Convert an official state dict to a configuration and a state dict of `MossFormer2SE`.

    Group length, hop and sample rate, which a checkpoint does not hold, are the defaults.

    Raises:
        UserError: a key is missing or unknown.
    """
    what = "this MossFormer2_SE_48K checkpoint"
    state = rename_weights(official, OFFICIAL_SE_48K, what)
    values: dict[str, Any] = infer_sizes(state, "mask.", what)
    for key in ("mask.in_proj.weight", "mask.out_proj.weight"):
        if key not in state:
            raise UserError(f"{what} is incomplete: nothing in it becomes {key}")
    values["n_mels"] = state["mask.in_proj.weight"].shape[1] // 3
    values["n_fft"] = 2 * (state["mask.out_proj.weight"].shape[0] - 1)
    return MossFormer2SEConfig.parse(values, what), state
