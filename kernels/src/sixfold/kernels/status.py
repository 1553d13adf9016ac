"""Which operators have Triton kernels, and whether these run on this machine."""

import os

import torch

from sixfold.kernels import _dispatch

FUSED = ("cross_epilogue", "dwconv1d", "fdconv_weight", "gau_attention", "spmm")


def reference_reason() -> str | None:
    """Return why every operator runs its reference on this machine; None if the kernels run."""
    if os.environ.get("SIXFOLD_KERNELS") == "reference":
        return "SIXFOLD_KERNELS=reference is set"
    if _dispatch.triton is None:
        return "triton is not installed"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None
