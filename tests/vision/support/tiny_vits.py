"""Small networks of every kind, with random parameters and batch statistics."""

from typing import Any

import timm
import torch
from torch import nn

from sixfold.vision.models.repavit import RePaViT, RePaViTConfig

SMALL: dict[str, Any] = {"img_size": 32, "num_classes": 5, "drop_path_rate": 0.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3},
    "swin": {
        "patch_size": 4,
        "embed_dim": 12,
        "depth": (2, 1),
        "num_heads": (2, 3),
        "window_size": 4,
    },
    "poolformer": {"embed_dim": (12, 20), "depth": (2, 1), "layer_scale": 0.5},
    "mixer": {"patch_size": 8, "embed_dim": 24, "depth": 2},
    "lvvit": {
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 3.0,
        "idle_ratio": 2 / 3,
    },
}
# Models of timm by name, with what makes them small.
TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2},
    "deit3_small_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2},
    "vit_relpos_small_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2},
    "beit_base_patch16_224": {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
    },
    "vit_small_patch16_dinov3": {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
    },
    "swin_tiny_patch4_window7_224": {
        "img_size": 28,
        "embed_dim": 12,
        "depths": (2, 1),
        "num_heads": (2, 3),
    },
    "poolformer_s12": {},
    "mixer_s32_224": {"img_size": 64},
}
LARGE = {"poolformer_s12", "mixer_s32_224"}  # timm takes no other sizes of these
PICTURE = {name: sizes.get("img_size", 32) for name, sizes in TIMM.items()}


def build(family: str, **changes: Any) -> RePaViT:
    """Build a small network of a family, the same each time."""
    torch.manual_seed(0)
    values = SMALL | FAMILIES[family] | {"family": family} | changes
    return randomised(RePaViT(RePaViTConfig.model_validate(values)))


def from_timm(name: str) -> nn.Module:
    """Make a small model of timm."""
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **TIMM[name])


def randomised(model: Any, seed: int = 0) -> Any:
    """Draw statistics, scales and offsets, and layer scales that matter; return the model."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        elif "fc" in name:
            parameter.data *= 5  # so that GELU differs from the identity
    return model
