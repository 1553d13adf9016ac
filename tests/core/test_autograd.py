"""Functions whose gradient has none: a second derivative is an error, never a missing term."""

import pytest
import torch
from torch.autograd import Function, grad

from sixfold.core.autograd import once_differentiable


class Square(Function):
    @staticmethod
    def forward(x):
        return x.square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, sent):
        return 2 * sent * ctx.saved_tensors[0]


@pytest.mark.parametrize("weigh", [False, True])
def test_a_second_derivative_is_an_error(weigh):
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    y = (Square.apply(x) * (x if weigh else 1)).sum() + x.pow(3).sum()
    (first,) = grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


def test_first_derivatives_are_right_in_every_way():
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    right = 2 * x.detach()
    assert torch.equal(grad(Square.apply(x).sum(), x)[0], right)
    assert torch.equal(grad(Square.apply(x).sum(), x, create_graph=True)[0].detach(), right)
    assert torch.equal(torch.func.grad(lambda x: Square.apply(x).sum())(x.detach()), right)
