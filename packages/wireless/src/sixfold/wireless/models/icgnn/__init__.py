"""ICGNN: a graph network for precoding and power allocation that any number of users can use.

M. Sun, S. Wu, H. Wang, Y. Liu, G. Li, T. Zhang, "A Homogeneous Graph Neural Network for Precoding
and Power Allocation in Scalable Wireless Networks", 2024. arXiv:2408.17252

There is no official code, and this is an **independent design after the abstract**: nodes are the
variables to be found, all of one kind; the raw information enters every layer; precoding needs no
inverse but steps of conjugate gradients; one set of weights serves any number of users, antennas
and access points. What the abstract leaves open is decided here, and no number of the paper is
claimed.

From the design to the files:

- precoding: nodes are users, the precoder follows from two numbers each -> model.py
- cell-free power allocation: nodes are pairs of an access point and a user -> cell_free.py
- what both share -> layers.py; what both maximise -> loss.py
- own channels: `precode`, and the command line -> inference.py; own layouts: `allocate_power` ->
  allocation.py; training on them -> training.py; also convert.py, export.py
"""

from functools import partial

from sixfold.core import System
from sixfold.wireless.models.icgnn.allocation import allocate_power
from sixfold.wireless.models.icgnn.cell_free import CellFreeICGNN, CellFreeICGNNConfig
from sixfold.wireless.models.icgnn.convert import read_settings
from sixfold.wireless.models.icgnn.inference import precode
from sixfold.wireless.models.icgnn.model import ICGNN, ICGNNConfig

__all__ = [
    "CELL_FREE",
    "ICGNN",
    "SYSTEM",
    "CellFreeICGNN",
    "CellFreeICGNNConfig",
    "ICGNNConfig",
    "allocate_power",
    "precode",
]

PAPER = "arXiv:2408.17252"

SYSTEM = System(
    name="icgnn",
    paper=PAPER,
    config=ICGNNConfig,
    build=ICGNN,
    convert=partial(read_settings, ICGNN, ICGNNConfig),
    published={"this design": (ICGNNConfig(), 122_882)},
    run="sixfold.wireless.models.icgnn.inference:run",
    train="sixfold.wireless.models.icgnn.training:train_icgnn",
    export="sixfold.wireless.models.icgnn.export:exportable",
)

CELL_FREE = System(
    name="icgnn_cell_free",
    paper=PAPER,
    config=CellFreeICGNNConfig,
    build=CellFreeICGNN,
    convert=partial(read_settings, CellFreeICGNN, CellFreeICGNNConfig),
    published={"this design": (CellFreeICGNNConfig(), 140_930)},
    run="sixfold.wireless.models.icgnn.allocation:run",
    train="sixfold.wireless.models.icgnn.training:train_cell_free",
    export="sixfold.wireless.models.icgnn.export:exportable_cell_free",
)
