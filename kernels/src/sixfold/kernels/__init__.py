"""Operators that several systems share, one a file, each in its fastest plain-PyTorch form.

An operator's file is imported when the operator is first asked for, so that importing this package
costs nothing, and needs no PyTorch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees; `_FILES` says the same to Python
    from sixfold.kernels.bilinear_fusion import bilinear_fusion
    from sixfold.kernels.complex_batch_norm import complex_batch_norm
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
    from sixfold.kernels.complex_linear import complex_linear
    from sixfold.kernels.cross_epilogue import cross_epilogue
    from sixfold.kernels.dwconv1d import dwconv1d
    from sixfold.kernels.edge_conv import edge_conv, edge_conv_merge
    from sixfold.kernels.fdconv_basis import (
        equal_groups,
        fdconv_basis,
        fdconv_mixture,
        fdconv_mixture_backward,
        frequency_groups,
        frequency_order,
    )
    from sixfold.kernels.fdconv_weight import fdconv_weight
    from sixfold.kernels.gau_attention import gau_attention
    from sixfold.kernels.graph import Graph
    from sixfold.kernels.layer_norm_cf import layer_norm_cf
    from sixfold.kernels.les_residual import les_residual, les_residual_loss
    from sixfold.kernels.linear import linear
    from sixfold.kernels.lowpass2d import lowpass2d
    from sixfold.kernels.merged_ffn import merge_ffn, merged_ffn
    from sixfold.kernels.spectral_conv import merge_corners, spectral_conv
    from sixfold.kernels.spectral_derivatives import (
        curl_hat,
        dealias_mask,
        div_hat,
        grad_hat,
        inverse_laplacian_hat,
        irfft3,
        project_div_free,
        rfft3,
        wavenumbers,
    )
    from sixfold.kernels.spmm import spmm

__all__ = [
    "Graph",
    "apply_kernel",
    "apply_transposed",
    "bilinear_fusion",
    "complex_batch_norm",
    "complex_bias",
    "complex_conv2d",
    "complex_conv_transpose2d",
    "complex_kernel",
    "complex_linear",
    "cross_epilogue",
    "curl_hat",
    "dealias_mask",
    "div_hat",
    "dwconv1d",
    "edge_conv",
    "edge_conv_merge",
    "equal_groups",
    "fdconv_basis",
    "fdconv_mixture",
    "fdconv_mixture_backward",
    "fdconv_weight",
    "frequency_groups",
    "frequency_order",
    "gau_attention",
    "grad_hat",
    "inverse_laplacian_hat",
    "irfft3",
    "layer_norm_cf",
    "les_residual",
    "les_residual_loss",
    "linear",
    "lowpass2d",
    "merge_corners",
    "merge_ffn",
    "merged_ffn",
    "project_div_free",
    "rfft3",
    "scaled_kernel",
    "spectral_conv",
    "spmm",
    "transposed_kernels",
    "wavenumbers",
]

_FILES = {
    "bilinear_fusion": ("bilinear_fusion",),
    "complex_batch_norm": ("complex_batch_norm",),
    "complex_conv": (
        "apply_kernel",
        "apply_transposed",
        "complex_bias",
        "complex_conv2d",
        "complex_conv_transpose2d",
        "complex_kernel",
        "scaled_kernel",
        "transposed_kernels",
    ),
    "complex_linear": ("complex_linear",),
    "cross_epilogue": ("cross_epilogue",),
    "dwconv1d": ("dwconv1d",),
    "edge_conv": ("edge_conv", "edge_conv_merge"),
    "fdconv_basis": (
        "equal_groups",
        "fdconv_basis",
        "fdconv_mixture",
        "fdconv_mixture_backward",
        "frequency_groups",
        "frequency_order",
    ),
    "fdconv_weight": ("fdconv_weight",),
    "gau_attention": ("gau_attention",),
    "graph": ("Graph",),
    "layer_norm_cf": ("layer_norm_cf",),
    "les_residual": ("les_residual", "les_residual_loss"),
    "linear": ("linear",),
    "lowpass2d": ("lowpass2d",),
    "merged_ffn": ("merge_ffn", "merged_ffn"),
    "spectral_conv": ("merge_corners", "spectral_conv"),
    "spectral_derivatives": (
        "curl_hat",
        "dealias_mask",
        "div_hat",
        "grad_hat",
        "inverse_laplacian_hat",
        "irfft3",
        "project_div_free",
        "rfft3",
        "wavenumbers",
    ),
    "spmm": ("spmm",),
}
_HOME = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    operator = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = operator
    return operator


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The type of this package, in which ``dwconv1d`` is the operator and never its file.

    Python binds a file that it imported to the file's name in the package, which is that of the
    operator as well.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOME or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
