"""LESnets: Fourier neural operators that learn large-eddy simulation from its equations.

S. Zhao, Z. Li, B. Fan, Y. Wang, H. Yang, J. Wang, "LESnets (Large-Eddy Simulation nets):
Physics-informed neural operator for large-eddy simulation of turbulence", Journal of Computational
Physics 537, 2025. arXiv:2411.04502

Departs from the released code: its loss for homogeneous turbulence takes the viscosity for Cs2 and
Cs2 for the viscosity, divides the divergence by the number of points, and damps the mean flow;
here the equations are the paper's, and `official_loss` has the released ones. The filter width is
an argument, not 2 pi / 32. Not in the paper: the output added to the initial field
(``residual_output``), padding, Cs2 in closed form.

From the paper to the files:

- the networks, FNO and IFNO in three dimensions of space and time -> model.py, layers.py,
  head.py
- the residual of the filtered Navier-Stokes equations, the closed form of Cs2 -> loss.py
- training without labels, with them, and of the coefficient -> training.py
- long predictions in blocks -> inference.py
- not in the paper: convert.py (released checkpoints, both ways), export.py, own_fields.py (files
  of one's own)
"""

from sixfold.core import System
from sixfold.pde.models.lesnets.convert import convert, to_official
from sixfold.pde.models.lesnets.loss import Flow
from sixfold.pde.models.lesnets.model import LESnets, LESnetsConfig

__all__ = ["SYSTEM", "Flow", "LESnets", "LESnetsConfig", "convert", "to_official"]

SYSTEM = System(
    name="lesnets",
    paper="arXiv:2411.04502",
    config=LESnetsConfig,
    build=LESnets,
    convert=convert,
    published={
        # The authors count a complex weight once: 1,061,733,475 and 622,123,565.
        "FNO": (LESnetsConfig(), 2_123_416_675),
        "IFNO": (LESnetsConfig(network="ifno", num_layers=20, width=150), 1_244_203_565),
    },
    run="sixfold.pde.own_data:run_lesnets",
    train="sixfold.pde.own_data:train_lesnets",
    export="sixfold.pde.models.lesnets.export:exportable",
)
