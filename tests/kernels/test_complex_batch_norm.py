"""Whitening batch norm against an eigendecomposition of each channel's covariance."""

from functools import partial

import pytest
import torch
from kernel_checks import TOLERANCE, agree, compiles, error, exports
from torch import Tensor

from sixfold.kernels import complex_batch_norm

SHAPES = [  # batch, complex channels, space
    (3, 4, 5, 2),
    (6, 3),  # no space
    (2, 2, 7),
    (2, 1, 1, 1),  # two numbers a channel
    (1, 3, 4, 4),  # one image
    (2, 2, 3, 2, 2),
    (5, 1, 1, 3),
    (1, 5, 1, 3),
]
SHAPES += [(2 + i % 3, 1 + i, 2 + i % 4, 3) for i in range(12)]
EPS = 1e-5


def naive_complex_batch_norm(x, mean, covariance, weight, bias, training, eps=EPS):
    """Whiten each channel's pairs by the inverse root that its eigenvectors give."""
    channels = weight.shape[0]
    columns = []
    for c in range(channels):
        pairs = torch.stack([x[:, c].flatten(), x[:, channels + c].flatten()])
        if training:
            centred = pairs - pairs.mean(1, keepdim=True)
            spread = centred @ centred.t() / pairs.shape[1]
        else:
            centred = pairs - mean[c][:, None]
            spread = symmetric(covariance[c])
        spread = spread + eps * torch.eye(2, dtype=x.dtype)
        values, vectors = torch.linalg.eigh(spread)
        root = vectors @ torch.diag(values**-0.5) @ vectors.t()
        y = symmetric(weight[c]) @ root @ centred + bias[c][:, None]
        columns.append(y.view(2, x.shape[0], *x.shape[2:]))
    return torch.cat(torch.stack(columns, 2).unbind(0), 1)


def symmetric(entries: Tensor) -> Tensor:
    return torch.stack([entries[0], entries[2], entries[2], entries[1]]).view(2, 2)


def draw(shape, dtype=torch.float64, affine=True) -> list[Tensor]:
    """Correlated data with an offset, and moments and parameters that are no special case."""
    batch, channels, *space = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    re, im = normal(batch, channels, *space), normal(batch, channels, *space)
    x = torch.cat([re + 0.5, 0.4 * re + 0.8 * im - 1], 1)
    covariance = torch.stack([1 + normal(channels) ** 2, 1.5 + normal(channels) ** 2], 1)
    covariance = torch.cat([covariance, 0.5 * normal(channels, 1).tanh()], 1)
    parts = [x, normal(channels, 2), covariance, normal(channels, 3), normal(channels, 2)]
    return [value.to(dtype).requires_grad_() for value in parts]


def fast(x, mean, covariance, weight, bias, *, training):
    moments = (mean, covariance)
    return complex_batch_norm(x, moments, weight, bias, training=training)[0]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_whitening(shape, training):
    # Two numbers a channel lie on a line, whose covariance is eps away from singular: rounding
    # grows by 1 / eps there.
    few = training and shape[0] * torch.Size(shape[2:]).numel() < 4
    tolerance = (1e-9, 1e-5) if few else TOLERANCE[torch.float64]
    naive = partial(naive_complex_batch_norm, training=training)
    agree(partial(fast, training=training), naive, draw(shape), tolerance)


def test_training_whitens():
    shape = (50, 3, 4, 4)
    x, mean, covariance, _, _ = (value.detach() for value in draw(shape))
    one, zero = torch.tensor([1.0, 1, 0]).double().expand(3, 3), torch.zeros(3, 2).double()
    y, _ = complex_batch_norm(x, (mean, covariance), one, zero, training=True)
    re, im = (part.transpose(0, 1).flatten(1) for part in y.chunk(2, 1))
    for products, expected in ((re * re, 1.0), (im * im, 1.0), (re * im, 0.0)):
        torch.testing.assert_close(
            products.mean(1), torch.full((3,), expected).double(), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_running_moments_are_the_authors(momentum):
    """The covariance enters with eps on it and is then made unbiased."""
    x, mean, covariance, weight, bias = draw((3, 2, 4, 5))
    before = mean.clone(), covariance.clone()
    _, running = complex_batch_norm(
        x, (mean, covariance), weight, bias, training=True, momentum=momentum
    )
    z = torch.complex(*x.detach().chunk(2, 1)).transpose(0, 1).flatten(1)
    batch_mean = torch.view_as_real(z.mean(1))
    re, im = (z - z.mean(1, keepdim=True)).real, (z - z.mean(1, keepdim=True)).imag
    variances = [(re * re).mean(1) + EPS, (im * im).mean(1) + EPS, (re * im).mean(1)]
    unbiased = torch.stack(variances, 1) * 60 / 59
    for old, new, batch in zip(before, running, (batch_mean, unbiased), strict=True):
        torch.testing.assert_close(new, (1 - momentum) * old + momentum * batch)
    assert torch.equal(mean, before[0])  # nothing is changed in place
    assert torch.equal(covariance, before[1])


def test_evaluation_returns_the_moments_it_was_given():
    x, mean, covariance, weight, bias = draw(SHAPES[0])
    _, moments = complex_batch_norm(x, (mean, covariance), weight, bias, training=False)
    assert moments[0] is mean
    assert moments[1] is covariance


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
def test_rounding_is_that_of_the_number_format(dtype, training):
    naive = partial(naive_complex_batch_norm, training=training)
    agree(partial(fast, training=training), naive, draw((4, 3, 6, 5), dtype))


def test_a_large_mean_does_not_cost_the_covariance():
    x, mean, covariance, weight, bias = (value.detach() for value in draw((4, 3, 6, 5)))
    run = partial(complex_batch_norm, training=True)
    expected, _ = run(x, (mean, covariance), weight, bias)
    x, mean, covariance, weight, bias = (
        value.float() for value in (x + 1000, mean, covariance, weight, bias)
    )
    y, _ = run(x, (mean, covariance), weight, bias)
    assert error(y, expected) < 1e-4  # x + 1000 itself is rounded to 6e-5


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradcheck(training):
    function = partial(fast, training=training)
    assert torch.autograd.gradcheck(function, draw((3, 2, 2)), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(function, draw((3, 1, 2)), atol=1e-6)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_memory_layout_does_not_matter(training):
    x, *rest = (value.detach() for value in draw(SHAPES[0]))
    y = fast(x.to(memory_format=torch.channels_last), *rest, training=training)
    torch.testing.assert_close(y, fast(x, *rest, training=training))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_compiles_whole_with_its_backward(training, unchecked):
    compiles(partial(fast, training=training), draw(SHAPES[0]))


class Norm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts = draw((1, 3), torch.float32)[1:]
        self.parts = torch.nn.ParameterList([value.detach() for value in parts])

    def forward(self, x):
        return fast(x, *self.parts, training=False)


def test_exports_with_any_batch_and_size(unchecked):
    free = {axis: torch.export.Dim(name) for axis, name in ((0, "b"), (2, "h"), (3, "w"))}
    exports(Norm(), torch.randn(2, 6, 5, 4), torch.randn(3, 6, 9, 11), free)


def test_other_channels_than_the_parameters_have_are_refused():
    _, mean, covariance, weight, bias = draw((2, 3))
    message = r"3 complex channels need 6 planar ones, got x \(2, 5, 4\)"
    with pytest.raises(ValueError, match=message):
        complex_batch_norm(
            torch.zeros(2, 5, 4).double(), (mean, covariance), weight, bias, training=False
        )


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("which", range(4), ids=["mean", "covariance", "weight", "bias"])
def test_parameters_of_another_shape_are_not_broadcast(which, training, unchecked):
    x, *given = draw((2, 3))
    given[which] = torch.cat([given[which], given[which][:, :1]], 1)
    mean, covariance, weight, bias = given
    with pytest.raises(ValueError, match=r"3 channels need a mean and a bias \(3, 2\)"):
        complex_batch_norm(x, (mean, covariance), weight, bias, training=training)


@pytest.mark.parametrize(("batch", "numbers"), [(1, 1), (0, 0)])
def test_too_few_numbers_to_train_on_are_refused(batch, numbers):
    _, mean, covariance, weight, bias = draw((2, 3))
    x, message = torch.zeros(batch, 6, 1).double(), f"has {numbers} numbers a channel"
    with pytest.raises(ValueError, match=message):
        complex_batch_norm(x, (mean, covariance), weight, bias, training=True)
