"""FinalMLP: two MLPs, each with gates of its own on the input, fused by a bilinear form.

K. Mao, J. Zhu, L. Su, G. Cai, Y. Li, Z. Dong, "FinalMLP: An Enhanced Two-Stream MLP Model for CTR
Prediction", AAAI 2023. arXiv:2304.00902

DualMLP, two MLPs whose logits are added, is the paper's own observation and baseline.

Departs from the paper as the released code does: the fusion has two biases, not one. Departs from
the released code where it changes no number: constant gates are computed once a batch and not for
every sample, gates of context fields once for every distinct id, the tables of all fields are one.
Several tasks have a logit each. ``share_context``, ``fusion="sum"`` and ``gating=False`` are
ablations.

From the paper to the files:

- the whole network, both systems, folding of constant gates -> model.py
- stream-specific feature selection (gating), multi-head bilinear fusion -> layers.py
- not in the paper: convert.py (released checkpoints, both ways), export.py
"""

from sixfold.core import System
from sixfold.recsys.data import vocabularies
from sixfold.recsys.layers.mlp import MLPConfig
from sixfold.recsys.losses import loss
from sixfold.recsys.models.finalmlp.convert import (
    convert,
    convert_dual,
    from_official,
    to_official,
)
from sixfold.recsys.models.finalmlp.model import (
    DualMLP,
    DualMLPConfig,
    FinalMLP,
    FinalMLPConfig,
)

__all__ = [
    "AVAZU",
    "CRITEO",
    "DUALMLP",
    "FRAPPE",
    "FRAPPE_SMALL",
    "SYSTEM",
    "DualMLP",
    "DualMLPConfig",
    "FinalMLP",
    "FinalMLPConfig",
    "convert",
    "convert_dual",
    "from_official",
    "loss",
    "to_official",
]

_EXPORT = "sixfold.recsys.models.finalmlp.export:exportable"


def _layers(*hidden: int, dropout: float) -> MLPConfig:
    return MLPConfig(hidden=hidden, dropout=dropout)


CRITEO = FinalMLPConfig(
    fields=vocabularies.CRITEO_X1,
    mlp1=_layers(400, 400, 400, dropout=0.2),
    mlp2=_layers(1000, dropout=0.3),
    context1=tuple(f"I{number}" for number in range(1, 14)),
    context2=("C6",),
    heads=200,
)
AVAZU = FinalMLPConfig(
    fields=vocabularies.AVAZU_X1,
    mlp1=_layers(400, 400, 400, dropout=0.3),
    mlp2=_layers(800, dropout=0.3),
)


FRAPPE = FinalMLPConfig(
    fields=vocabularies.FRAPPE,
    mlp1=_layers(400, dropout=0.4),
    mlp2=_layers(100, dropout=0.4),
    gate_hidden=(400,),
    context1=("user",),
    context2=("item",),
    heads=5,
)
FRAPPE_SMALL = FRAPPE.model_copy(update={"fields": vocabularies.FRAPPE_SMALL})

SYSTEM = System(
    name="finalmlp",
    paper="arXiv:2304.00902",
    config=FinalMLPConfig,
    build=FinalMLP,
    convert=convert,
    published={
        "MovieLens tags": (FinalMLPConfig(), 1_040_902),
        "Frappe": (FRAPPE, 253_392),
        "Frappe, a fifth of it": (FRAPPE_SMALL, 251_662),
        "Criteo_x1": (CRITEO, 22_478_162),
        "Avazu_x1": (AVAZU, 13_979_472),
    },
    export=_EXPORT,
    run="sixfold.recsys.own_data:run_finalmlp",
    train="sixfold.recsys.own_data:train_finalmlp",
)

DUALMLP = System(
    name="dualmlp",
    paper="arXiv:2304.00902",
    config=DualMLPConfig,
    build=DualMLP,
    convert=convert_dual,
    published={
        "MovieLens tags": (DualMLPConfig(), 1_252_022),
        "Frappe": (
            DualMLPConfig(
                fields=vocabularies.FRAPPE,
                mlp1=_layers(400, 400, 400, dropout=0.2),
                mlp2=_layers(500, 500, 500, dropout=0.3),
            ),
            972_992,
        ),
        "Frappe, a fifth of it": (
            DualMLPConfig(
                fields=vocabularies.FRAPPE_SMALL,
                mlp1=_layers(400, dropout=0.4),
                mlp2=_layers(100, dropout=0.4),
            ),
            105_042,
        ),
        "Criteo_x1": (
            DualMLPConfig(
                fields=vocabularies.CRITEO_X1,
                mlp1=_layers(400, 400, 400, dropout=0.2),
                mlp2=_layers(400, 400, 400, dropout=0.2),
            ),
            21_823_422,
        ),
        "Avazu_x1": (
            DualMLPConfig(
                fields=vocabularies.AVAZU_X1,
                mlp1=_layers(400, 400, 400, dropout=0.3),
                mlp2=_layers(400, dropout=0.3),
            ),
            13_487_812,
        ),
    },
    export=_EXPORT,
    run="sixfold.recsys.own_data:run_dualmlp",
    train="sixfold.recsys.own_data:train_dualmlp",
)
