"""FDConv: convolutions whose kernel is composed anew for each sample, by frequency.

L. Chen, L. Gu, L. Li, C. Yan, Y. Fu, "Frequency Dynamic Convolution for Dense Image Prediction",
CVPR 2025. arXiv:2503.18783

Departs from the official code: frequencies of one radius are ordered alike on every machine, the
last group takes what cannot be shared equally, and filters' attention begins at one like the
others' (`FDConvOptions.zero_init_filter`), so that a converted network computes what it did. The
paper splits the response of the kernel into bands, the code (and this one) the input, which is the
same but at the border. Groups, batches of one while training, half and double precision work.

From the paper to the files:

- Fourier disjoint weight (FDW) -> layers.py
- kernel spatial modulation (KSM) -> kernel_modulation.py
- frequency band modulation (FBM) -> band_modulation.py
- the settings of a layer, under the official names -> options.py
- the convolution of each sample with its own kernel -> sample_conv.py; with little memory, together
  with the kernels -> generated_conv.py
- backbones -> model.py, official checkpoints -> checkpoints.py, export.py
- segmentation, the paper's dense prediction at a small size -> segmentation.py, inference.py; its
  baseline DY-Conv -> dynamic_conv.py
- how alike the mixed kernels are -> similarity.py
- any CNN made dynamic -> convert.py; a pretrained one without a hub -> lite0.py
"""

from sixfold.core import System
from sixfold.vision.models.fdconv.checkpoints import convert_checkpoint
from sixfold.vision.models.fdconv.convert import convert, convertible, default_filter
from sixfold.vision.models.fdconv.layers import (
    FDConv1d,
    FDConv2d,
    FDLinear,
    is_dynamic,
    spectrum_of,
)
from sixfold.vision.models.fdconv.lite0 import pretrained_lite0
from sixfold.vision.models.fdconv.model import NAME, FDConvConfig, FDConvNet
from sixfold.vision.models.fdconv.options import FBMOptions, FDConvOptions
from sixfold.vision.models.fdconv.segmentation import NAME as SEGMENTER_NAME
from sixfold.vision.models.fdconv.segmentation import (
    Segmenter,
    SegmenterConfig,
    refuse_checkpoint,
    segmenter_from_lite0,
)

__all__ = [
    "SEGMENTER",
    "SYSTEM",
    "FBMOptions",
    "FDConv1d",
    "FDConv2d",
    "FDConvConfig",
    "FDConvNet",
    "FDConvOptions",
    "FDLinear",
    "Segmenter",
    "SegmenterConfig",
    "convert",
    "convert_checkpoint",
    "convertible",
    "default_filter",
    "is_dynamic",
    "pretrained_lite0",
    "segmenter_from_lite0",
    "spectrum_of",
]

SYSTEM = System(
    name=NAME,
    paper="arXiv:2503.18783",
    config=FDConvConfig,
    build=FDConvNet,
    convert=convert_checkpoint,
    published={"ResNet-50": (FDConvConfig(), 27_155_152)},
    export="sixfold.vision.models.fdconv.export:exportable",
)

SEGMENTER = System(
    name=SEGMENTER_NAME,
    paper="arXiv:2503.18783",
    config=SegmenterConfig,
    build=Segmenter,
    convert=refuse_checkpoint,
    published={"32-64-128": (SegmenterConfig(), 500_269)},
    run="sixfold.vision.models.fdconv.inference:run",
    train="sixfold.vision.own_data:train_segmenter",
    export="sixfold.vision.models.fdconv.export:exportable_segmenter",
)
