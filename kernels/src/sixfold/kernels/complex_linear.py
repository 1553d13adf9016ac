"""Complex linear layer on planar tensors: one real matrix product instead of four.

A planar vector holds all real parts, then all imaginary ones. The complex matrix A + iB acts on it
as the real matrix [[A, -B], [B, A]]: as many multiplications as four products, one call, no
interleaved copies. Gauss' form with three products does not pay on a matrix product.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sixfold.kernels.complex_conv import optional_bias


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
        ValueError: x is not twice as wide as the layers, or the layers' sizes differ.
    """
    (a, _), (b, _) = real, imag
    if a.shape != b.shape or x.shape[-1] != 2 * a.shape[1]:
        raise ValueError(
            f"complex_linear: weights {tuple(a.shape)} and {tuple(b.shape)} should be alike and x "
            f"should have {2 * a.shape[1]} planar coordinates, got {x.shape[-1]}"
        )
    weight = torch.cat([torch.cat([a, -b], 1), torch.cat([b, a], 1)])
    return functional.linear(x, weight, optional_bias(real[1], imag[1]))
