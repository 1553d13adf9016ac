"""Operators that several systems share, one a file, each in its fastest plain-PyTorch form."""

from sixfold.kernels.complex_conv import (
    apply_kernel,
    apply_transposed,
    complex_bias,
    complex_conv2d,
    complex_conv_transpose2d,
    complex_kernel,
    scaled_kernel,
    transposed_kernels,
)
from sixfold.kernels.conv2d_weight import conv2d_weight
from sixfold.kernels.dwconv1d import dwconv1d

__all__ = [
    "apply_kernel",
    "apply_transposed",
    "complex_bias",
    "complex_conv2d",
    "complex_conv_transpose2d",
    "complex_kernel",
    "conv2d_weight",
    "dwconv1d",
    "scaled_kernel",
    "transposed_kernels",
]
