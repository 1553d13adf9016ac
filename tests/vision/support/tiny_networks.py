"""Small super-resolution networks with weights that show: large layer scales, every branch used."""

from typing import Literal

import torch

from sixfold.vision import CFSR, IMDN, PAN, CFSRConfig, IMDNConfig, PANConfig


def tiny_cfsr(seed: int = 0, **settings) -> CFSR:
    sizes = {"embed_dim": 8, "depths": (1, 1), "dw_size": 5, "upscale": 2, "layer_scale": 0.5}
    torch.manual_seed(seed)
    model = CFSR(CFSRConfig(**{**sizes, **settings}))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "scale_" in name or name.endswith("_bias"):
                value.normal_(std=0.3)
    return model.eval()


def tiny_pan(upscale: Literal[2, 3, 4] = 2) -> PAN:
    torch.manual_seed(0)
    return PAN(PANConfig(features=8, upsampled_features=4, blocks=2, upscale=upscale)).eval()


def tiny_imdn() -> IMDN:
    torch.manual_seed(0)
    return IMDN(IMDNConfig(features=16, blocks=2, upscale=2)).eval()
