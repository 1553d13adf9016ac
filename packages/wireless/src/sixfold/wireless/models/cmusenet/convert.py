"""Read official checkpoints: sizes from shapes, complex running means as pairs of reals."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.wireless.models.cmusenet.model import CMuSeNet, CMuSeNetConfig

WHAT = "this CMuSeNet checkpoint"


def convert(official: Mapping[str, Tensor]) -> tuple[CMuSeNetConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours.

    The sample rate is not among them: it is taken to be the published 20 MHz.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = {
        key: torch.view_as_real(value).contiguous() if value.is_complex() else value
        for key, value in official.items()
    }
    unknown = [key for key in state if not KEY.fullmatch(key)]
    if unknown:
        raise UserError(
            f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not CMuSeNet's"
        )
    config = CMuSeNetConfig.parse(_settings(state), WHAT)
    with torch.device("meta"):
        expected = CMuSeNet(config).state_dict()
    return config, rename(state, {"{*key}": "{key}"}, expected, WHAT)


_CONV = r"conv_[ri]\.weight"
_NORM = r"(weight|bias|running_mean|running_covar|num_batches_tracked)"
_BLOCK = rf"(conv\d\.{_CONV}|bn\d\.{_NORM}|downsample\.0\.{_CONV}|downsample\.1\.{_NORM})"
_HEAD = r"fc\.fc_[ri]\.(weight|bias)"
KEY = re.compile(rf"conv1\.{_CONV}|bn1\.{_NORM}|layer\d+\.\d+\.{_BLOCK}|{_HEAD}")


def _settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    blocks = {m.groups() for key in state if (m := re.match(r"layer(\d+)\.(\d+)\.", key))}
    stages = sorted({int(stage) for stage, _ in blocks})
    deep = any(".conv3." in key for key in state)
    try:
        return {
            "bins": state["fc.fc_r.weight"].shape[0],
            "width": state["conv1.conv_r.weight"].shape[0],
            "block": "bottleneck" if deep else "basic",
            "layers": tuple(sum(int(of) == stage for of, _ in blocks) for stage in stages),
        }
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
