"""AdaFortiTran, FortiTran and a linear network: OFDM channel estimation from pilots.

B. Guler, H. Jafarkhani, "AdaFortiTran: An Adaptive Transformer Model for Robust OFDM Channel
Estimation", IEEE ICC 2025. arXiv:2505.09076

Departs from the released code: real and imaginary parts go through in one batch, and the networks
of the conditions run once, not twice; the linear network is applied to both parts (the released one
fails on complex input); transformer layers start from weights of their own. The released
configuration has 12 x 2 pilots, the published data 40 x 2.

From the paper to the files:

- upsampling, the whole networks and their sizes -> model.py
- convolutional enhancers, patches, channel adapter, positions, transformer -> layers.py
- not in the paper: on_cpu.py (products, attention and dropout on a CPU), training.py (first
  weights, losses, own channels), inference.py (complex pilots in, complex channels out, conditions
  unknown), convert.py (released checkpoints), export.py
"""

from sixfold.core import System
from sixfold.wireless.models.adafortitran.convert import (
    convert,
    convert_fortitran,
    convert_linear,
)
from sixfold.wireless.models.adafortitran.model import (
    AdaFortiTran,
    AdaFortiTranConfig,
    FortiTran,
    FortiTranConfig,
    Linear,
    LinearConfig,
)

__all__ = [
    "FORTITRAN",
    "LINEAR",
    "SYSTEM",
    "SYSTEMS",
    "AdaFortiTran",
    "AdaFortiTranConfig",
    "FortiTran",
    "FortiTranConfig",
    "Linear",
    "LinearConfig",
    "convert",
    "convert_fortitran",
    "convert_linear",
]

PAPER = "arXiv:2505.09076"

SYSTEM = System(
    name="adafortitran",
    paper=PAPER,
    config=AdaFortiTranConfig,
    build=AdaFortiTran,
    convert=convert,
    published={
        "12 x 2 pilots": (AdaFortiTranConfig(), 987_746),
        "40 x 2 pilots": (AdaFortiTranConfig(pilot_subcarriers=40), 1_081_826),
    },
    run="sixfold.wireless.models.adafortitran.inference:run_adafortitran",
    train="sixfold.wireless.own_data:train_adafortitran",
    export="sixfold.wireless.models.adafortitran.export:exportable",
)

FORTITRAN = System(
    name="fortitran",
    paper=PAPER,
    config=FortiTranConfig,
    build=FortiTran,
    convert=convert_fortitran,
    published={
        "12 x 2 pilots": (FortiTranConfig(), 913_688),
        "40 x 2 pilots": (FortiTranConfig(pilot_subcarriers=40), 1_007_768),
    },
    run="sixfold.wireless.models.adafortitran.inference:run_fortitran",
    train="sixfold.wireless.own_data:train_fortitran",
    export="sixfold.wireless.models.adafortitran.export:exportable",
)

LINEAR = System(
    name="linear",
    paper=PAPER,
    config=LinearConfig,
    build=Linear,
    convert=convert_linear,
    published={
        "12 x 2 pilots": (LinearConfig(), 42_000),
        "40 x 2 pilots": (LinearConfig(pilot_subcarriers=40), 136_080),
    },
    run="sixfold.wireless.models.adafortitran.inference:run_linear",
    train="sixfold.wireless.own_data:train_linear",
    export="sixfold.wireless.models.adafortitran.export:exportable",
)

SYSTEMS = (SYSTEM, FORTITRAN, LINEAR)
