"""The Fourier layer against its literal form: full transforms and a zero-filled spectrum."""

from importlib import import_module

import pytest
import torch
from kernel_checks import agree, allocated, compiles, error, gradients, repeats
from property_tests import given, settings, st
from torch import Tensor

from sixfold.kernels import merge_corners, spectral_conv

MODULE = import_module("sixfold.kernels.spectral_conv")  # the package gives a function this name
FORMS = ("_by_matmul", "_by_fft")
CORNERS = {  # as the published networks number their weights
    1: [""],
    2: ["+", "-"],
    3: ["++", "-+", "+-", "--"],
    4: ["+++", "-++", "+-+", "--+", "-+-", "++-", "+--", "---"],
}
Sizes = tuple[tuple[int, ...], tuple[int, ...]]
DISJOINT: list[Sizes] = [  # points and modes of each axis
    ((6, 5, 7, 4), (2, 2, 3, 2)),
    ((4, 4, 4, 6), (2, 2, 2, 4)),  # every mode kept, the last one's Nyquist too
    ((5, 6, 3), (2, 1, 2)),
    ((8, 7), (3, 4)),
    ((9, 8), (4, 5)),
    ((8,), (5,)),
    ((7,), (1,)),
]
OVERLAPPING: list[Sizes] = [
    ((8, 8, 8, 4), (5, 4, 5, 3)),
    ((4, 3, 5), (3, 2, 3)),
    ((3, 4), (3, 2)),
]


def naive_spectral_conv(x: Tensor, blocks: list[Tensor]) -> Tensor:
    """Transform all axes in full, contract block by block, assign into zeros, transform back."""
    axes = tuple(range(2, x.ndim))
    spectrum = torch.fft.rfftn(x, dim=axes)
    out = spectrum.new_zeros(x.shape[0], blocks[0].shape[1], *spectrum.shape[2:])
    for signs, block in zip(CORNERS[len(axes)], blocks, strict=True):
        modes = block.shape[2:]
        ends = [
            slice(m) if s == "+" else slice(n - m, n)
            for s, m, n in zip(signs, modes, x.shape[2:], strict=False)
        ]
        spot = (slice(None), slice(None), *ends, slice(modes[-1]))
        out[spot] = torch.einsum("bi...,io...->bo...", spectrum[spot], block)
    return torch.fft.irfftn(out, s=x.shape[2:], dim=axes)


def draw(sizes: Sizes, *, batch=2, channels=(2, 3), dtype=torch.float64) -> tuple[Tensor, list]:
    points, modes = sizes
    generator = torch.Generator().manual_seed(sum(points) + batch)
    x = torch.randn(batch, channels[0], *points, generator=generator, dtype=torch.float64)
    blocks = [
        torch.randn(*channels, *modes, 2, generator=generator, dtype=torch.float64).to(dtype)
        for _ in CORNERS[len(points)]
    ]
    return x.to(dtype), [torch.view_as_complex(block) for block in blocks]


def force(form: str, monkeypatch) -> None:
    monkeypatch.setattr(MODULE, "_fft_is_cheaper", lambda *_: form == "_by_fft")


@pytest.mark.parametrize(
    ("sizes", "form"),
    [(s, f) for s in DISJOINT for f in FORMS] + [(s, "") for s in OVERLAPPING],
    ids=str,
)
def test_values_and_gradients_are_those_of_full_transforms(sizes, form, monkeypatch):
    force(form, monkeypatch)
    x, blocks = draw(sizes)
    leaves = [x.requires_grad_(), *(block.requires_grad_() for block in blocks)]
    y, expected = spectral_conv(x, merge_corners(blocks)), naive_spectral_conv(x, blocks)
    assert error(y, expected) < 1e-12
    found, wanted = gradients(y, leaves), gradients(expected, leaves)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-11 * max(1.0, float(other.norm()))  # a block may count 0


@pytest.mark.parametrize("sizes", DISJOINT, ids=str)
def test_the_size_of_the_parts_does_not_matter(sizes, monkeypatch):
    """Fields one by one and three modes at a time, the last parts smaller than the others."""
    force("_by_matmul", monkeypatch)
    monkeypatch.setattr("sixfold.kernels._truncated_dft.NUMBERS", 1)
    monkeypatch.setattr(MODULE, "MIXED", 3)
    x, blocks = draw(sizes, batch=3)
    leaves = [x.requires_grad_(), *(block.requires_grad_() for block in blocks)]
    y, expected = spectral_conv(x, merge_corners(blocks)), naive_spectral_conv(x, blocks)
    assert error(y, expected) < 1e-12
    found, wanted = gradients(y, leaves), gradients(expected, leaves)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-11 * max(1.0, float(other.norm()))


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_batch_gives_an_empty_one(form, monkeypatch):
    force(form, monkeypatch)
    x, blocks = draw(((8, 7), (3, 4)), batch=0)
    x, weight = x.requires_grad_(), merge_corners(blocks).requires_grad_()
    found = spectral_conv(x, weight)
    assert found.shape == (0, 3, 8, 7)
    of_x, of_weight = torch.autograd.grad(found.sum(), (x, weight))
    assert of_x.shape == x.shape
    assert not of_weight.any()


@pytest.mark.parametrize("wanted", [(True, False), (False, True)], ids=["fields", "weight"])
def test_a_gradient_of_one_argument_alone_is_that_of_both(wanted, monkeypatch):
    force("_by_matmul", monkeypatch)
    x, blocks = draw(DISJOINT[0])
    both = [x.requires_grad_(), merge_corners(blocks).requires_grad_()]
    leaves = [t.detach().requires_grad_(wants) for t, wants in zip(both, wanted, strict=True)]
    (found,) = gradients(spectral_conv(*leaves), [t for t in leaves if t.requires_grad])
    assert torch.equal(found, gradients(spectral_conv(*both), both)[wanted.index(True)])


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 4), st.integers(1, 3))
def test_any_size_and_any_modes(data, axes, batch):
    points = tuple(data.draw(st.integers(1, 6)) for _ in range(axes))
    modes = [data.draw(st.integers(1, n)) for n in points[:-1]]
    modes.append(data.draw(st.integers(1, points[-1] // 2 + 1)))
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, 2, *points, generator=generator, dtype=torch.float64)
    corners = CORNERS[axes]
    blocks = [
        torch.randn(2, 1, *modes, generator=generator, dtype=torch.complex128) for _ in corners
    ]
    y, expected = spectral_conv(x, merge_corners(blocks)), naive_spectral_conv(x, blocks)
    assert (y - expected).norm() <= 1e-12 * (1 + expected.norm())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", [DISJOINT[0], DISJOINT[3], DISJOINT[6]], ids=str)
def test_rounding_is_that_of_float32(sizes, form, monkeypatch):
    force(form, monkeypatch)
    x, blocks = draw(sizes, dtype=torch.float32)
    leaves = (x.requires_grad_(), merge_corners(blocks).requires_grad_())
    agree(spectral_conv, spectral_conv, leaves)  # in float64 it is tied to the literal form above


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", [((3, 2, 3, 2), (1, 1, 1, 2)), ((4, 5), (2, 2))], ids=str)
def test_gradcheck(sizes, form, monkeypatch):
    force(form, monkeypatch)
    x, blocks = draw(sizes, batch=1, channels=(1, 2))
    leaves = (x.requires_grad_(), merge_corners(blocks).requires_grad_())
    torch.autograd.gradcheck(spectral_conv, leaves, eps=1e-6, atol=1e-7, fast_mode=True)
    torch.autograd.gradgradcheck(spectral_conv, leaves, eps=1e-6, atol=1e-7, fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_memory_layout_does_not_matter(form, monkeypatch):
    force(form, monkeypatch)
    x, blocks = draw(DISJOINT[0])
    weight = merge_corners(blocks)
    strided = x.permute(5, 3, 0, 2, 1, 4).contiguous().permute(2, 4, 3, 1, 5, 0)
    assert not strided.is_contiguous()
    other = weight.transpose(0, -2).contiguous().transpose(0, -2)
    y = spectral_conv(x, weight)
    torch.testing.assert_close(spectral_conv(strided, other), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_fields_and_autocast_compute_in_float32(form, monkeypatch):
    force(form, monkeypatch)
    x, blocks = draw(DISJOINT[4], dtype=torch.float32)
    weight = merge_corners(blocks)
    expected = spectral_conv(x, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(spectral_conv(x, weight), expected)
    half = x.bfloat16()
    y = spectral_conv(half, weight)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, spectral_conv(half.float(), weight).bfloat16())


def test_a_table_made_in_inference_mode_serves_training(monkeypatch):
    monkeypatch.setattr("sixfold.kernels._tables._kept", {})
    x, blocks = draw(DISJOINT[4])
    weight = merge_corners(blocks)
    with torch.inference_mode():
        expected = spectral_conv(x, weight)
    y = spectral_conv(x.requires_grad_(), weight.requires_grad_())
    torch.testing.assert_close(y, expected.clone())
    y.sum().backward()


@pytest.mark.parametrize(
    ("sizes", "kept", "fft"),
    [
        ((32, 32, 32, 10), (16, 16, 16, 4), False),
        ((32, 32, 32, 10), (24, 24, 24, 2), False),  # the published LESnets
        ((32, 32, 32, 10), (32, 32, 32, 6), True),
        ((1024,), (16,), False),
        ((1024,), (128,), True),
        ((1, 1), (1, 1), True),
    ],
    ids=str,
)
def test_the_form_is_chosen_by_its_cost(sizes, kept, fft):
    assert MODULE._fft_is_cheaper(sizes, kept) == fft


def test_the_tensor_shrinks_at_once():
    x, blocks = draw(((16, 16, 16, 16), (2, 2, 2, 2)), dtype=torch.float32)
    weight = merge_corners(blocks)
    used = allocated(lambda: spectral_conv(x, weight))
    assert used < 2.5 * x.nbytes  # of that 1.5 is the result
    assert allocated(lambda: naive_spectral_conv(x, blocks)) > 3 * used


@pytest.mark.parametrize("form", FORMS)
def test_two_runs_agree_to_the_bit(form, monkeypatch):
    force(form, monkeypatch)
    x, blocks = draw(DISJOINT[0], dtype=torch.float32)
    leaves = (x.requires_grad_(), merge_corners(blocks).requires_grad_())
    repeats(spectral_conv, leaves)


@pytest.mark.parametrize("form", FORMS)
def test_compiles_whole_with_its_backward(form, monkeypatch, unchecked):
    force(form, monkeypatch)
    x, blocks = draw(DISJOINT[2])
    compiles(spectral_conv, (x.requires_grad_(), merge_corners(blocks).requires_grad_()))


class Layer(torch.nn.Module):
    def __init__(self, blocks: list[Tensor]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(merge_corners(blocks))

    def forward(self, x):
        return spectral_conv(x, self.weight)


@pytest.mark.parametrize("form", FORMS)
def test_exports_with_any_batch(form, monkeypatch, unchecked):
    force(form, monkeypatch)
    x, blocks = draw(DISJOINT[0], dtype=torch.float32)
    layer = Layer(blocks)
    program = torch.export.export(
        layer,
        (x,),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        prefer_deferred_runtime_asserts_over_guards=True,  # as sixfold.core.weights.export
    )
    larger = torch.cat([x, 2 * x, -x])
    torch.testing.assert_close(program.module()(larger), layer(larger))


@pytest.mark.slow
def test_the_matrix_product_form_runs_as_onnx(tmp_path, monkeypatch, unchecked):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    force("_by_matmul", monkeypatch)
    x, blocks = draw(((5, 4, 3), (2, 2, 2)), dtype=torch.float32)
    layer = Layer(blocks).eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(layer, (x,), dynamo=True, dynamic_shapes=batch, verbose=False)
    assert program is not None
    program.save(tmp_path / "layer.onnx")
    session = runtime.InferenceSession(tmp_path / "layer.onnx")
    larger = torch.cat([x, 2 * x, -x])
    (y,) = session.run(None, {session.get_inputs()[0].name: larger.numpy()})
    assert error(torch.from_numpy(y), layer(larger).double()) < 2e-6


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((1, 2), (3, 2, 2, 2), r"one to four axes.*got x \(1, 2\) and weight \(3, 2, 2, 2\)"),
        ((1, 2, 8), (2, 3, 2, 2, 2), r"got x \(1, 2, 8\) and weight \(2, 3, 2, 2, 2\)"),
        ((1, 2, 8), (3, 2, 2, 3), r"in, out, 2\), got .* weight \(3, 2, 2, 3\)"),
        ((1, 3, 8), (3, 2, 2, 2), "x has 3 channels, weight reads 2"),
        ((1, 2, 8), (6, 2, 2, 2), "1 to 5 modes of the 8 points of axis 2 of x, not 6"),
        ((1, 2, 8, 8), (3, 2, 2, 2, 2), "an even number of modes from 2 to 16 .*axis 2.*not 3"),
        ((1, 2, 4, 8), (10, 2, 2, 2, 2), "from 2 to 8 of the 4 points of axis 2 of x, not 10"),
    ],
)
def test_sizes_that_do_not_fit_are_named(x, weight, message, unchecked):
    with pytest.raises(ValueError, match=message):
        spectral_conv(torch.zeros(x), torch.zeros(weight))


def test_half_precision_weights_are_refused(unchecked):
    with pytest.raises(
        TypeError, match=r"weight should be float32 or float64, got torch\.bfloat16"
    ):
        spectral_conv(torch.zeros(1, 2, 8), torch.zeros(3, 2, 2, 2, dtype=torch.bfloat16))


def test_every_corner_needs_a_block(unchecked):
    with pytest.raises(ValueError, match="blocks of 2 axes have 2 corners, got 3 blocks"):
        merge_corners([torch.zeros(1, 1, 2, 2, dtype=torch.complex64)] * 3)
