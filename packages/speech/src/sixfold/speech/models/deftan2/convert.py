"""Convert official DeFTAN-II checkpoints: a table of keys, and the configuration from shapes."""

from collections.abc import Mapping

from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.speech.models.deftan2.model import DeFTAN2Config

OFFICIAL: dict[str, str | None] = {  # official key -> ours
    "up_conv.0.{leaf}": "in_proj.{leaf}",
    "up_conv.1.{leaf}": "in_norm.{leaf}",
    "down_conv.0.{leaf}": "out_proj.{leaf}",
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
    "linear.{leaf}": "out_proj.{leaf}",
}
for _old, _new in SPLIT_DENSE.items():
    OFFICIAL[f"up_conv.2.blocks.{{k}}.{_old}"] = f"in_dense.{_new}"
    OFFICIAL[f"down_conv.1.blocks.{{k}}.{_old}"] = f"out_dense.{_new}"
    AXIS[f"inv.blocks.{{k}}.{_old}"] = f"dense.{_new}"
for _axis, _name in {"F": "frequency", "T": "time"}.items():
    for _old, _new in AXIS.items():
        OFFICIAL[f"blocks.{{i}}.{_axis}_{_old}"] = f"blocks.{{i}}.{_name}.{_new}"


def convert(official: Mapping[str, Tensor]) -> tuple[DeFTAN2Config, dict[str, Tensor]]:
    """Convert an official state dict to a configuration and a state dict of `DeFTAN2`.

    FFT length, stride and sample rate, which a checkpoint does not hold, are the defaults.

    Raises:
        UserError: a key is missing or unknown.
    """
    what = "this DeFTAN-II checkpoint"
    state = {
        key: value[..., None, :] if value.ndim == 3 else value.flatten() if "norm" in key else value
        for key, value in rename(official, OFFICIAL, what=what).items()
    }
    try:
        channels = state["out_proj.weight"].shape[1]
        heads = state["in_proj.weight"].shape[0] // channels
        values = {
            "microphones": state["in_proj.weight"].shape[1] // 2,
            "sources": state["out_proj.weight"].shape[0] // (2 * heads),
            "blocks": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
            "channels": channels,
            "heads": heads,
            "head_channels": state["blocks.0.time.attention.q.weight"].shape[0] // heads,
            "hidden": 2 * state["blocks.0.time.feedforward.plain.weight"].shape[0],
            "window": state["blocks.0.time.out_proj.weight"].shape[-1],
        }
    except KeyError as error:
        raise UserError(f"{what} is incomplete: nothing in it becomes {error}") from None
    return DeFTAN2Config.parse(values, what), state
