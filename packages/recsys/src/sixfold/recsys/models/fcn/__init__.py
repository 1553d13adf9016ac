"""FCN: an exponential and a linear cross network, fused, for click-through rates.

H. Li, Y. Zhang, Y. Zhang, H. Li, L. Sang, J. Zhu, "FCN: Fusing Exponential and Linear Cross Network
for Click-Through Rate Prediction" (first "DCNv3: Towards Next Generation Deep Cross Network").
arXiv:2407.13349

The exponential network alone, ECN, is published too; the linear one, LCN, is there for the claims.

Follows the released code (of the paper's version 7) where they differ. Departs from it where it
changes no number: the first layers of both networks are one matrix product, and what follows a
product is one operator. Several tasks have a logit each, and a loss each. float16 is refused.

From the paper to the files:

- the whole network, each network alone -> model.py
- multi-head embedding, Self-Mask, exponential and linear cross layers -> layers.py
- Tri-BCE, as published and with constant weights -> loss.py
- not in the paper: convert.py (released checkpoints, both ways), export.py
"""

from typing import Any

from sixfold.core import System
from sixfold.recsys.data.vocabularies import (
    AVAZU_X4,
    FRAPPE_SMALL,
    IPINYOU,
    KDD12,
    KKBOX,
    MOVIELENS_1M,
)
from sixfold.recsys.models.fcn.convert import (
    convert,
    convert_ecn,
    convert_lcn,
    from_official,
    to_official,
)
from sixfold.recsys.models.fcn.loss import loss, tri_bce
from sixfold.recsys.models.fcn.model import ECN, FCN, LCN, ECNConfig, FCNConfig, LCNConfig

__all__ = [
    "ECN",
    "ECN_SYSTEM",
    "FCN",
    "LCN",
    "LCN_SYSTEM",
    "SYSTEM",
    "ECNConfig",
    "FCNConfig",
    "LCNConfig",
    "convert",
    "convert_ecn",
    "convert_lcn",
    "from_official",
    "loss",
    "to_official",
    "tri_bce",
]

PAPER = "arXiv:2407.13349"
_EXPORT = "sixfold.recsys.models.fcn.export:exportable"


def _fcn(
    fields: tuple, deep: int, shallow: int, dropout: tuple[float, float], **others: Any
) -> FCNConfig:
    return FCNConfig(
        fields=fields,
        deep_layers=deep,
        shallow_layers=shallow,
        deep_dropout=dropout[0],
        shallow_dropout=dropout[1],
        batch_norm=True,
        **others,
    )


def _ecn(depth: int) -> ECNConfig:
    return ECNConfig(layers=depth)


SYSTEM = System(
    name="fcn",
    paper=PAPER,
    config=FCNConfig,
    build=FCN,
    convert=convert,
    published={
        "Criteo_x4, 3 and 4 layers": (FCNConfig(), 15_944_754),
        "Criteo_x4, 4 and 5 layers": (FCNConfig(deep_layers=4, shallow_layers=5), 16_336_626),
        "Avazu_x4": (_fcn(AVAZU_X4, 4, 5, (0.0, 0.0), heads=4), 240_735_242),
        "KDD12": (_fcn(KDD12, 4, 4, (0.0, 0.0)), 74_866_354),
        "KKBox, 4 and 2 layers": (_fcn(KKBOX, 4, 2, (0.1, 0.3), embedding_dim=128), 20_074_766),
        "KKBox, 5 and 5 layers": (_fcn(KKBOX, 5, 5, (0.1, 0.3), embedding_dim=128), 25_625_878),
        "MovieLens 1M": (_fcn(MOVIELENS_1M, 3, 4, (0.1, 0.1)), 201_728),
        "iPinYou": (_fcn(IPINYOU, 4, 3, (0.2, 0.2)), 10_885_728),
        "Frappe, a fifth of it": (
            _fcn(FRAPPE_SMALL, 3, 3, (0.1, 0.1), embedding_dim=10),
            84_454,
        ),
    },
    export=_EXPORT,
    run="sixfold.recsys.own_data:run_fcn",
    train="sixfold.recsys.own_data:train_fcn",
)

ECN_SYSTEM = System(
    name="ecn",
    paper=PAPER,
    config=ECNConfig,
    build=ECN,
    convert=convert_ecn,
    published={
        **{
            f"Criteo_x4, {depth} layers": (_ecn(depth), 14_768_513 + 195_936 * (depth - 1))
            for depth in range(1, 7)
        },
        "Avazu_x4": (
            ECNConfig(fields=AVAZU_X4, heads=3, batch_norm=True, dropout=0.0),
            180_346_345,
        ),
        "Frappe, a fifth of it": (
            ECNConfig(fields=FRAPPE_SMALL, layers=3, embedding_dim=10, batch_norm=True),
            68_747,
        ),
    },
    export=_EXPORT,
    run="sixfold.recsys.own_data:run_ecn",
    train="sixfold.recsys.own_data:train_ecn",
)

LCN_SYSTEM = System(
    name="lcn",
    paper=PAPER,
    config=LCNConfig,
    build=LCN,
    convert=convert_lcn,
    # not published by itself: as many as an ECN of equal depth
    published={"Criteo_x4, 4 layers": (LCNConfig(), 15_356_321)},
    export=_EXPORT,
    run="sixfold.recsys.own_data:run_lcn",
    train="sixfold.recsys.own_data:train_lcn",
)
