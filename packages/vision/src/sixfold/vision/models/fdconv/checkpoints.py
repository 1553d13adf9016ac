"""Convert official checkpoints: the backbones of detectors, whose layers have the names of timm's.

The order of the frequencies is no part of them; it is computed.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.vision.models.fdconv.convert import dynamic_layers
from sixfold.vision.models.fdconv.layers import frequency_buffers
from sixfold.vision.models.fdconv.model import FDConvConfig, FDConvNet

DEPTHS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "resnet50",
    (3, 4, 23, 3): "resnet101",
    (3, 8, 36, 3): "resnet152",
}
BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")


def convert_checkpoint(
    official: Mapping[str, Tensor],
) -> tuple[FDConvConfig, dict[str, Tensor]]:
    """Convert an official state dict to settings and a state dict of `FDConvNet`.

    Raises:
        UserError: it is not that of a ResNet with FDConv, or keys are missing or left over.
    """
    config = _read_config(official)
    with torch.device("meta"):
        model = FDConvNet(config)
    state = {f"network.{key}": value for key, value in official.items()}
    for name, layer in dynamic_layers(model).items():
        numbers, order = frequency_buffers(layer.kernel_shape, layer.options)
        state.setdefault(f"{name}.frequency_groups", numbers)
        if order is not None:
            state.setdefault(f"{name}.frequency_order", order)
    _account(state, model.state_dict())
    return config, state


def _read_config(official: Mapping[str, Tensor]) -> FDConvConfig:
    dynamic = [k.removesuffix(".dft_weight") for k in official if k.endswith(".dft_weight")]
    found = [match for key in official if (match := BLOCK.match(key))]
    blocks = {(int(match[1]), int(match[2])) for match in found}
    depth = tuple(sum(stage == i for stage, _ in blocks) for i in range(1, 5))
    if not dynamic or depth not in DEPTHS:
        some = ", ".join(sorted(official)[:3])
        raise UserError(
            f"this is no ResNet-50, 101 or 152 with FDConv: it has {len(dynamic)} dft_weight and "
            f"{depth} blocks; its keys begin with {some}"
        )
    first = dynamic[0]
    copies = official[f"{first}.dft_weight"].shape[0]
    attention = official.get(f"{first}.KSM_Global.kernel_fc.bias")
    values = {
        "backbone": DEPTHS[depth],
        "kernel_num": 1 if attention is None else len(attention) // copies,
        "layers": dynamic,
    }
    if "fc.weight" in official:
        values["num_classes"] = official["fc.weight"].shape[0]
    if copies > 1:
        values["param_ratio"] = copies
    return FDConvConfig.parse(values, "this FDConv checkpoint")


def _account(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    unused = [key for key in state if key not in expected]
    empty = [key for key in expected if key not in state]
    if unused or empty:
        raise UserError(
            f"this FDConv checkpoint does not fit: {len(unused)} of its keys are not used: "
            f"{', '.join(unused[:5]) or 'none'}; {len(empty)} of the model's are not filled: "
            f"{', '.join(empty[:5]) or 'none'}"
        )
