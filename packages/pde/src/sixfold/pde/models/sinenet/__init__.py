"""SineNet: the next frame of a flow by a chain of small U-Nets.

X. Zhang, J. Helwig, Y. Lin, Y. Xie, C. Fu, S. Wojtowytsch, S. Ji, "SineNet: Learning Temporal
Dynamics in Time-Dependent Partial Differential Equations", ICLR 2024. arXiv:2403.19507

The skip connections of a U-Net join features of different latent times. A chain of smaller ones,
the waves, has less to join in each at the same number of parameters.

Departs from the released code: a padding mode per axis; circular maps smaller than the pad, as an
option; the finer grid computes on sub-lattices, which is the same and faster; the neural ODE counts
its evaluations in ``nfe`` instead of a list that grows for ever. Upsampling is a product with a
matrix, which is the same to rounding.

From the paper to the files:

- the chain of waves, conditioning, inference at four times the grid -> model.py
- wave, multi-scale processing, blocks -> layers.py
- the limit of many waves -> neural_ode.py, solved by dormand_prince.py
- not in the paper: convert.py (official checkpoints), export.py
"""

from sixfold.core import System
from sixfold.pde.models.sinenet.convert import convert, convert_ode
from sixfold.pde.models.sinenet.model import SineNet, SineNetConfig
from sixfold.pde.models.sinenet.neural_ode import SineNetODE, SineNetODEConfig

__all__ = [
    "ODE_SYSTEM",
    "PUBLISHED",
    "SYSTEM",
    "SineNet",
    "SineNetConfig",
    "SineNetODE",
    "SineNetODEConfig",
    "convert",
    "convert_ode",
]

SETS = {  # channels, history and grid of the three data sets
    "INS": {"input_channels": 3, "output_channels": 3, "time_history": 4},
    "CNS": {"input_channels": 4, "output_channels": 4, "time_history": 10},
    "SWE": {"input_channels": 3, "output_channels": 3, "time_history": 2, "grid": (96, 192)},
}
NETWORKS = {  # settings, and the number of parameters on each set
    "sinenet8": ({}, (35_490_219, 35_506_924, 35_486_763)),
    "sinenet6": ({"num_waves": 6, "mult": 1.5}, (35_475_499, 35_492_204, 35_472_043)),
    "sinenet4": ({"num_waves": 4, "mult": 1.611}, (35_493_699, 35_510_404, 35_490_243)),
    "sinenet2": ({"num_waves": 2, "mult": 1.8075}, (35_499_989, 35_516_694, 35_496_533)),
    # the paper's U-Net-128
    "sinenet1_128": (
        {"num_waves": 1, "mult": 2.0, "hidden_channels": 128},
        (135_094_659, 135_128_068, 135_087_747),
    ),
    "sinenet1_64": ({"num_waves": 1, "mult": 2.0}, (33_788_099, 33_804_804, 33_784_643)),
    "deeper_unet8": ({"num_waves": 1, "num_blocks": 8}, (28_628_084, 28_644_789, 28_624_628)),
    "sinenet8_tangle": ({"disentangle": False}, (32_831_403, 32_848_108, 32_827_947)),
}
CONDITIONAL = {"add": 37_987_571, "scale_shift": 40_325_243}
PUBLISHED = {
    f"{name} on {data}": (SineNetConfig.parse({**settings, **frames}, name), count)
    for name, (settings, counts) in NETWORKS.items()
    for (data, frames), count in zip(SETS.items(), counts, strict=True)
} | {
    f"sinenet8 on conditioned INS, {how}": (
        SineNetConfig.parse(
            {"time_history": 1, "conditioning": how, "condition_on_parameter": True}, how
        ),
        count,
    )
    for how, count in CONDITIONAL.items()
}

SYSTEM = System(
    name="sinenet",
    paper="arXiv:2403.19507",
    config=SineNetConfig,
    build=SineNet,
    convert=convert,
    published=PUBLISHED,
    run="sixfold.pde.own_data:run_sinenet",
    train="sixfold.pde.own_data:train_sinenet",
    export="sixfold.pde.models.sinenet.export:exportable",
)
ODE_SYSTEM = System(
    name="sinenet_ode",
    paper="arXiv:2403.19507",
    config=SineNetODEConfig,
    build=SineNetODE,
    convert=convert_ode,
    published={"INS": (SineNetODEConfig(), 12_739_395)},
    run="sixfold.pde.own_data:run_sinenet_ode",
    train="sixfold.pde.own_data:train_sinenet_ode",
)
