"""Complex linear layer on planar tensors: two real matrix products instead of four.

A planar vector holds all real parts, then all imaginary ones. Both are rows for the matrix A, and
for B: as many multiplications as four products, but each matrix is read once, which is what takes
the time of a few rows, and nothing is put together. Gauss' form with three products does not pay on
a matrix product.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sixfold.kernels.complex_conv import check_alike


def complex_linear(
    x: Float[Tensor, "*batch in2"],
    real: tuple[Tensor, Tensor | None],
    imag: tuple[Tensor, Tensor | None],
) -> Float[Tensor, "*batch out2"]:
    """Apply two real linear layers crosswise, as a complex one does.

    Args:
        x: Planar vectors, real parts first.
        real: Weight (out, in) and bias (out,) of the real layer.
        imag: Weight and bias of the imaginary layer. The biases a and b become a - b on the real
            part and a + b on the imaginary one; both may be None.

    Raises:
        ValueError: x is not twice as wide as the layers, or the layers' sizes or biases differ.
    """
    (a, _), (b, _) = real, imag
    if a.shape != b.shape or x.shape[-1] != 2 * a.shape[1]:
        raise ValueError(
            f"complex_linear: weights {tuple(a.shape)} and {tuple(b.shape)} should be alike and x "
            f"should have {2 * a.shape[1]} planar coordinates, got {x.shape[-1]}"
        )
    check_alike("complex_linear", real, imag, len(a))
    if (real[1] is None) != (imag[1] is None):
        raise ValueError("a complex layer has a bias of both parts or of neither; one is None")
    rows = x.unflatten(-1, (2, a.shape[1]))  # real part, imaginary part
    by_real, by_imag = functional.linear(rows, *real), functional.linear(rows, *imag)
    re = by_real[..., 0, :] - by_imag[..., 1, :]
    return torch.cat([re, by_real[..., 1, :] + by_imag[..., 0, :]], -1)
