"""CFSR: convolutions of large kernels in the place of self-attention, for light super-resolution.

G. Wu, J. Jiang, J. Jiang, X. Liu, "Transforming Image Super-Resolution: A ConvFormer-based
Efficient Approach", IEEE TIP 33, 2024. arXiv:2401.05633

Departs from the paper, as the released weights do: a layer ends in a 1x1 convolution with a
residual from the last block (drawn: 3x3, from the layer's input). Departs from the released code:
it cannot be trained, and two of its three edge masks are misspelt; ``edge_masks="true"`` has the
operators that the paper names, ``"official"`` the released ones. The edge kernels are merged on the
fly while training too, which is exact and several times faster.

From the paper to the files:

- the whole network, its receptive field, merging and cropping -> model.py
- ConvFormer block: large kernel mixer, edge-preserving feed-forward network -> layers.py
- not in the paper: inference.py (pictures from the command line), convert.py (released checkpoints
  of both forms), export.py
"""

from dataclasses import replace

from sixfold.core import System
from sixfold.vision.data.catalog import published_files
from sixfold.vision.models.cfsr.convert import convert
from sixfold.vision.models.cfsr.model import CFSR, CFSRConfig

__all__ = ["CFSR", "SYSTEM", "CFSRConfig", "convert"]


def _merged(upscale: int) -> CFSRConfig:
    return CFSRConfig(upscale=upscale, edge_branches=False)


SYSTEM = System(
    name="cfsr",
    paper="arXiv:2401.05633",
    config=CFSRConfig,
    build=CFSR,
    convert=convert,
    published={
        "x2, merged": (_merged(2), 291_324),
        "x3, merged": (_merged(3), 297_819),
        "x4, merged": (_merged(4), 306_912),
        "x4, training form": (CFSRConfig(), 313_824),
    },
    weights={
        file.path: replace(file, path=f"cfsr/{file.path}", licence="none is stated; research use")
        for file in published_files("cfsr")
    },
    run="sixfold.vision.models.cfsr.inference:run",
    train="sixfold.vision.own_data:train_cfsr",
    export="sixfold.vision.models.cfsr.export:exportable",
)
