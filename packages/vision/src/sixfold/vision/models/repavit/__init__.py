"""RePaViT: vision transformers whose feed-forward blocks are merged once they are trained.

X. Xu, Y. Li, Y. Chen, J. Liu, S. Wang, "RePaViT: Scalable Vision Transformer Acceleration via
Structural Reparameterization on Feedforward Network Layers", ICML 2025. arXiv:2505.21847

Departs from the paper and its code: the networks are timm's, of any kind that `convert` knows; the
merge scales the bias by a layer scale as well (PoolFormer's forgot it: ``quirks``) and multiplies
in float64; LV-ViT, never released, has the paper's number of parameters and no parity.

From the paper to the files:

- the settings and published sizes, Table 1 -> config.py
- the network, loading and saving -> model.py
- the channel-idle layer while it trains, and merged -> layers.py
- the backbones -> backbones.py, with mixer.py and lvvit.py for what timm does not have
- conversion of any model of timm -> plugin.py, the kinds of its blocks -> blocks.py, the names in
  its registry -> registry.py
- convert.py (official checkpoints, both ways), export.py
- pictures in files -> inference.py
- not in the paper: training.py (statistics and a first fit of the norms of a converted network),
  finetune.py (a trained network converted, trained on, and merged)
"""

from sixfold.core import System
from sixfold.vision.models.repavit.config import SIZES, RePaViTConfig
from sixfold.vision.models.repavit.convert import from_official, to_official
from sixfold.vision.models.repavit.finetune import FinetuneConfig, finetune
from sixfold.vision.models.repavit.inference import classify, input_size, open_splits
from sixfold.vision.models.repavit.model import RePaViT, describe
from sixfold.vision.models.repavit.plugin import (
    active_channels,
    convert,
    idle_ratios,
    merge,
    set_idle_ratio,
)
from sixfold.vision.models.repavit.registry import register
from sixfold.vision.models.repavit.training import set_statistics

__all__ = [
    "SIZES",
    "SYSTEM",
    "FinetuneConfig",
    "RePaViT",
    "RePaViTConfig",
    "active_channels",
    "classify",
    "convert",
    "describe",
    "finetune",
    "from_official",
    "idle_ratios",
    "input_size",
    "merge",
    "open_splits",
    "register",
    "set_idle_ratio",
    "set_statistics",
    "to_official",
]


def _sized(name: str, **changes: object) -> RePaViTConfig:
    return RePaViTConfig.model_validate(SIZES[name].model_dump() | changes)


SYSTEM = System(
    name="repavit",
    paper="arXiv:2505.21847",
    config=RePaViTConfig,
    build=RePaViT,
    convert=from_official,
    published={
        "vit_tiny": (_sized("vit_tiny"), 5_736_040),
        "vit_small": (_sized("vit_small"), 22_087_912),
        "vit_base": (RePaViTConfig(), 86_642_152),
        "vit_large": (_sized("vit_large"), 304_524_264),
        "swin_tiny": (_sized("swin_tiny"), 28_323_682),
        "swin_small": (_sized("swin_small"), 49_678_450),
        "swin_base": (_sized("swin_base"), 87_864_480),
        "vit_tiny_merged": (_sized("vit_tiny", merged=True), 4_381_288),
        "vit_tiny_075_merged": (_sized("vit_tiny", idle_ratio=0.75, merged=True), 3_494_248),
        "vit_small_merged": (_sized("vit_small", merged=True), 16_724_200),
        "vit_small_075_merged": (_sized("vit_small", idle_ratio=0.75, merged=True), 13_180_648),
        "vit_base_050_merged": (_sized("vit_base", idle_ratio=0.5, merged=True), 65_297_896),
        "vit_base_merged": (_sized("vit_base", merged=True), 51_132_904),
        "vit_large_merged": (_sized("vit_large", merged=True), 178_375_656),
        "swin_tiny_merged": (_sized("swin_tiny", merged=True), 17_483_554),
        "swin_small_merged": (_sized("swin_small", merged=True), 29_931_058),
        "swin_base_merged": (_sized("swin_base", merged=True), 52_810_144),
    },
    run="sixfold.vision.models.repavit.inference:run",
    train="sixfold.vision.own_data:train_repavit",
    export="sixfold.vision.models.repavit.export:exportable",
)
