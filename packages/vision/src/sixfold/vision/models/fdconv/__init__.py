"""wip."""
from sixfold.vision.models.fdconv.layers import FDConv1d, FDConv2d, FDLinear, is_dynamic, spectrum_of
from sixfold.vision.models.fdconv.options import FBMOptions, FDConvOptions
