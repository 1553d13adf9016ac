"""CMuSeNet: which bins of a wide band are occupied, by a complex-valued network.

S. Shin, M. C. Vuran, "I Can't Believe It's Not Real: CV-MuSeNet: Complex-Valued Multi-Signal
Segmentation", IEEE DySPAN 2025. arXiv:2506.11048

Departs from the released code: complex numbers are planar pairs of reals, in one to three real
convolutions instead of four; misses count in intersection over union and recall (``official=True``
skips them); transfer keeps the best weights by value (the released code keeps a reference to the
last ones).

From the paper to the files:

- complex ResNet, folding of batch norms, transfer -> model.py
- complex convolution, linear layer, whitening batch norm, residual blocks -> layers.py
- complex Fourier-spectrum focal loss, CV-BCE, RV-BCE -> loss.py
- spectrum, labels, decision rules, intervals: sixfold.wireless.iq
- not in the paper: recomputed.py (the training step of blocks on a CPU: less time, less memory),
  packed.py (inference on a CPU), inference.py (recordings to annotations), convert.py, export.py
"""

from sixfold.core import System
from sixfold.wireless.models.cmusenet.convert import convert
from sixfold.wireless.models.cmusenet.loss import PAPER, complex_bce, complex_focal_loss, real_bce
from sixfold.wireless.models.cmusenet.model import CMuSeNet, CMuSeNetConfig

__all__ = [
    "PAPER",
    "SYSTEM",
    "CMuSeNet",
    "CMuSeNetConfig",
    "complex_bce",
    "complex_focal_loss",
    "convert",
    "real_bce",
]

SYSTEM = System(
    name="cmusenet",
    paper="arXiv:2506.11048",
    config=CMuSeNetConfig,
    build=CMuSeNet,
    convert=convert,
    published={"ResNet-18": (CMuSeNetConfig(), 39_155_264)},
    run="sixfold.wireless.models.cmusenet.inference:run",
    train="sixfold.wireless.own_data:train_cmusenet",
    export="sixfold.wireless.models.cmusenet.export:exportable",
)
