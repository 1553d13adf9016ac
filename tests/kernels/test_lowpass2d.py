"""Low-pass filters against the masked spectrum, with the masks that FDConv makes."""

from importlib import import_module

import pytest
import torch
from kernel_checks import TOLERANCE, compiles, error, exports
from torch import Tensor
from torch.nn import functional

from sixfold.kernels import lowpass2d

LOWPASS2D = import_module("sixfold.kernels.lowpass2d")  # the package gives a function this name

CUTOFFS = (0.25, 0.125, 0.0625)  # FDConv's
SHAPES = [
    (2, 3, 8, 8),
    (1, 2, 16, 12),
    (1, 2, 32, 31),
    (1, 1, 64, 64),  # the grid itself
    (1, 1, 48, 128),
    (2, 11, 7),
    (2, 12, 9),
    (1, 6),
    (6, 1),
    (2, 1, 1),
    (2, 2),
    (3, 5, 2),
    (1, 4, 65),
    (0, 3, 8, 6),  # no images
    (2, 17, 23),  # the rows +f and -f are not kept alike, from here on
    (1, 56, 56),
    (1, 80, 96),
    (13, 13),
    (1, 65, 5),
    (2, 128, 16),
    (0, 17, 4),
    (1, 12, 130),  # the FFT, for the image is too wide
]
PRODUCTS, TRANSFORMS, SYMMETRIC = SHAPES[:-1], SHAPES[-1:], SHAPES[:14]


def naive_lowpass2d(x: Tensor, cutoffs) -> list[Tensor]:
    """Resize the mask of a 64 x 64 grid and apply it to the half spectrum."""
    lows = []
    rows, columns = torch.fft.fftfreq(64).abs(), torch.fft.rfftfreq(64)
    size = (x.shape[-2], x.shape[-1] // 2 + 1)
    for cutoff in cutoffs:
        box = torch.maximum(rows[:, None], columns) < cutoff + 1e-8
        mask = functional.interpolate(box.double()[None, None], size=size, mode="nearest")[0, 0]
        lows.append(torch.fft.irfft2(torch.fft.rfft2(x) * mask, s=x.shape[-2:]))
    return lows


def draw(shape, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def gradient(lows: list[Tensor], x: Tensor) -> Tensor:
    """Pull back a cotangent that differs from filter to filter."""
    total = torch.zeros((), dtype=x.dtype)
    for i, low in enumerate(lows):
        sent = torch.linspace(0, 2 + i, low.numel(), dtype=torch.float64).cos().view(low.shape)
        total = total + (low * sent.to(low.dtype)).sum()
    return torch.autograd.grad(total, x)[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_masked_spectrum(shape):
    if 0 in shape:
        found = lowpass2d(torch.zeros(shape), CUTOFFS)
        assert [low.shape for low in found] == [shape] * 3
        return
    x = draw(shape)
    found, expected = lowpass2d(x, CUTOFFS), naive_lowpass2d(x, CUTOFFS)
    for low, wanted in zip(found, expected, strict=True):
        assert error(low, wanted) < 1e-12
    assert error(gradient(found, x), gradient(expected, x)) < 1e-11


@pytest.mark.parametrize("cutoffs", [(0.0,), (0.01, 0.3), (0.5,), (0.7, 0.1, 0.45), (0.2,) * 2, ()])
@pytest.mark.parametrize("shape", [(2, 12, 9), (8, 8), (1, 6), (17, 6)], ids=str)
def test_any_cutoffs_in_any_order(shape, cutoffs):
    x = draw(shape).detach()
    for low, wanted in zip(lowpass2d(x, cutoffs), naive_lowpass2d(x, cutoffs), strict=True):
        assert error(low, wanted) < 1e-12


def test_all_sizes_take_the_path_that_the_lists_say(monkeypatch):
    def fail(*_):
        raise AssertionError("the FFT")

    monkeypatch.setattr(LOWPASS2D, "_by_fft", fail)
    for shape in PRODUCTS:
        lowpass2d(torch.zeros(shape), CUTOFFS)
    for shape in TRANSFORMS:
        with pytest.raises(AssertionError, match="the FFT"):
            lowpass2d(torch.zeros(shape), CUTOFFS)


# At 164 and 328 the float32 arithmetic of the resize moves the edge of a mask.
@pytest.mark.parametrize("size", [*range(1, 140), 164, 200, 328, 333])
def test_masks_are_resized_as_torch_does(size):
    for cutoff in (*CUTOFFS, 0.3):
        rows, columns = LOWPASS2D._box(size, size, cutoff)
        box = torch.fft.fftfreq(64).abs() < cutoff + 1e-8
        half = torch.fft.rfftfreq(64) < cutoff + 1e-8
        for found, mask, length in ((rows, box, size), (columns, half, size // 2 + 1)):
            resized = functional.interpolate(mask.float()[None, None], size=length, mode="nearest")
            assert found == tuple(bool(value) for value in resized.flatten())


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[14]], ids=str)
def test_filters_are_projections(shape):
    """Filtering twice changes nothing, and a filter keeps the mean."""
    x = draw(shape).detach()
    (low,) = lowpass2d(x, (0.2,))
    if shape in SYMMETRIC:  # a mask that is not symmetric is no projection of real images
        torch.testing.assert_close(lowpass2d(low, (0.2,))[0], low)
    torch.testing.assert_close(low.mean((-2, -1)), x.mean((-2, -1)))


@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[14], SHAPES[-1]], ids=str)
def test_rounding_is_that_of_the_number_format(shape, dtype):
    x = draw(shape, dtype)
    exact = x.detach().double().requires_grad_()
    found, expected = lowpass2d(x, CUTOFFS), naive_lowpass2d(exact, CUTOFFS)
    for low, wanted in zip(found, expected, strict=True):
        assert low.dtype == dtype
        assert error(low, wanted) < TOLERANCE[dtype][0]
    assert error(gradient(found, x), gradient(expected, exact)) < TOLERANCE[dtype][1]


@pytest.mark.parametrize("shape", [(1, 4, 5), (13, 3), (2, 129)], ids=str)
def test_gradcheck(shape):
    def filters(x):
        return tuple(lowpass2d(x, CUTOFFS))

    assert torch.autograd.gradcheck(filters, draw(shape), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(filters, draw(shape), atol=1e-7)


def test_a_call_in_inference_mode_does_not_spoil_training(monkeypatch):
    monkeypatch.setattr("sixfold.kernels._tables._kept", {})
    with torch.inference_mode():
        lowpass2d(draw((8, 6)).detach(), (0.25,))
    x = draw((8, 6))
    assert gradient(lowpass2d(x, (0.25,)), x).shape == x.shape


def test_a_trace_does_not_spoil_later_calls(monkeypatch):
    from torch._subclasses import FakeTensorMode

    monkeypatch.setattr("sixfold.kernels._tables._kept", {})
    with FakeTensorMode() as fake:
        lowpass2d(fake.from_tensor(torch.zeros(8, 6)), (0.25,))
    assert float(lowpass2d(torch.ones(8, 6), (0.25,))[0].sum()) == pytest.approx(48)


@pytest.mark.parametrize("shape", [SHAPES[5], SHAPES[14], SHAPES[-1]], ids=str)
def test_compiles_whole_with_its_backward(shape, unchecked):
    compiles(lambda x: torch.stack(lowpass2d(x, CUTOFFS)), [draw(shape)])


class Bands(torch.nn.Module):
    def forward(self, x):
        return lowpass2d(x, CUTOFFS)


@pytest.mark.parametrize("shape", [SHAPES[0], (2, 3, 17, 9), (2, 3, 129, 4)], ids=str)
def test_exports_with_any_batch(shape, unchecked):
    x = draw(shape, torch.float32).detach()
    exports(Bands(), x, torch.cat([x, x, x]), {0: torch.export.Dim("batch")})


@pytest.mark.parametrize("cutoffs", [(-0.1,), (0.2, float("nan"))])
def test_a_cutoff_that_makes_no_sense_is_named(cutoffs):
    with pytest.raises(ValueError, match=r"cutoffs should be 0 or above, got x \(4, 4\) and"):
        lowpass2d(torch.zeros(4, 4), cutoffs)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"x should have pixels .*got x \(2, 0, 4\)"):
        lowpass2d(torch.zeros(2, 0, 4), (0.2,))


def test_one_compiled_function_takes_changing_sizes(unchecked):
    compiled = torch.compile(lambda x: lowpass2d(x, CUTOFFS)[0], fullgraph=True, backend="eager")
    for size in ((8, 8), (9, 7), (12, 130), (8, 8)):
        x = draw((2, 3, *size))
        torch.testing.assert_close(compiled(x), lowpass2d(x, CUTOFFS)[0])
