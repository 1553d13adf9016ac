"""FDConv's layers: what must hold for any of them, and against the published formulation."""

import copy
from typing import Any

import pytest
import torch
from reference_fdconv import PlainFDConv2d
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.vision import FDConv1d, FDConv2d, FDLinear
from sixfold.vision.models.fdconv.sample_conv import convolve_samples, convolve_taps

WIDE: dict = {"use_fdconv_if_c_gt": 0}
CASES = {  # arguments of a layer, and the size of its pictures
    "3x3": ({"kernel_size": 3, "padding": 1}, (6, 5)),
    "large pictures": ({"kernel_size": 3, "padding": 1}, (20, 20)),
    "strided, dilated": ({"kernel_size": 3, "padding": 2, "stride": 2, "dilation": 2}, (9, 8)),
    "1x1": ({"kernel_size": 1}, (3, 2)),
    "1x1, strided": ({"kernel_size": 1, "stride": 2}, (5, 4)),
    "no bias": ({"kernel_size": 3, "bias": False}, (5, 6)),
    "same": ({"kernel_size": 3, "padding": "same"}, (4, 5)),
}
OPTIONS = {
    "copies": {"param_ratio": 2},
    "lowest half": {"param_reduction": 0.5},
    "uneven groups": {"kernel_num": 7},
    "odd share": {"param_reduction": 0.37, "kernel_num": 3},
    "tanh": {"ksm_local_act": "tanh", "ksm_global_act": "tanh"},
    "softmax": {"ksm_global_act": "softmax", "ksm_only_kernel_att": True},
    "kernel attention only": {"ksm_only_kernel_att": True},
    "no local": {"use_ksm_local": False},
    "one group": {"kernel_num": 1},
    "automatic": {"kernel_num": None},
    "spatial parameter": {"convert_param": False},
    "no bands": {"use_fbm_if_k_in": ()},
    "bands": {"fbm_cfg": {"k_list": (2, 3), "spatial_group": 2, "act": "softmax"}},
    "all bands": {"fbm_cfg": {"lowfreq_att": True, "spatial_group": 99, "act": "tanh"}},
}


def randomised(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
        if value.is_floating_point() and "running" not in name:
            value.data += 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return layer


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def layer(**arguments) -> Any:
    return randomised(FDConv2d(6, 4, **WIDE | arguments))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("numbers", [1 << 22, 300], ids=["at once", "in parts"])
def test_outputs_and_gradients_are_those_of_the_published_formulation(
    case, training, numbers, monkeypatch
):
    monkeypatch.setattr("sixfold.vision.models.fdconv.generated_conv.NUMBERS", numbers)
    arguments, size = CASES[case]
    fast = layer(**arguments).double().train(training)
    plain = PlainFDConv2d(copy.deepcopy(fast))
    x = draw(3, 6, *size, dtype=torch.float64)
    results = []
    for model in (fast, plain):
        given = x.clone().requires_grad_()
        y = model(given)
        sent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        grads = torch.autograd.grad((y * sent).sum(), [given, *model.parameters()])
        results.append([y, *grads])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("size", [3, 1])
def test_every_option_trains_saves_and_loads(name, size):
    made = layer(kernel_size=size, padding=size // 2, **OPTIONS[name])
    x = draw(2, 6, 5, 5)
    made(x).square().mean().backward()
    without = [key for key, p in made.named_parameters() if p.grad is None]
    assert not without
    other = FDConv2d(6, 4, size, padding=size // 2, **WIDE | OPTIONS[name]).eval()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), made.eval()(x))


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"lowest half", "odd share"}))
@pytest.mark.parametrize("groups", [1, 2])
def test_it_begins_as_the_convolution_it_is_made_of(name, groups):
    conv = nn.Conv2d(6, 4, 3, padding=1, groups=groups).eval()
    made, x = FDConv2d.from_conv2d(conv, **WIDE | OPTIONS[name]), 10 * draw(2, 6, 7, 5)
    torch.testing.assert_close(made(x), conv(x), rtol=1e-5, atol=1e-4)
    back = made.to_conv2d()
    torch.testing.assert_close(back.weight, conv.weight, rtol=1e-5, atol=1e-6)
    assert torch.equal(back(x).isfinite(), conv(x).isfinite())


def test_a_reduced_spectrum_begins_as_the_low_passed_kernel():
    conv = nn.Conv2d(6, 6, 3)
    made = FDConv2d.from_conv2d(conv, param_reduction=0.5, **WIDE)
    again = FDConv2d.from_conv2d(made.to_conv2d(), param_reduction=0.5, **WIDE)
    assert (
        0.1
        < float((made.static_kernel() - conv.weight.detach()).norm() / conv.weight.detach().norm())
        < 0.9
    )
    torch.testing.assert_close(again.static_kernel(), made.static_kernel(), rtol=0, atol=0.06)


def test_groups_do_not_see_each_other_through_the_kernel():
    made = layer(kernel_size=3, padding=1, groups=2, use_fbm_if_k_in=()).eval()
    x = draw(2, 6, 5, 5)
    changed = x.clone()
    changed[:, :3] = changed[:, :3].flip(2)  # another half, with the same mean
    difference = (made(changed) - made(x)).abs().amax((0, 2, 3))
    assert difference[:2].min() > 1e-3
    assert difference[2:].max() < 1e-5


def test_a_batch_of_two_is_two_batches_of_one():
    made, x = layer(kernel_size=3).eval(), draw(2, 6, 5, 5)
    torch.testing.assert_close(made(x), torch.cat([made(x[:1]), made(x[1:])]))
    torch.testing.assert_close(made(x[0]), made(x)[0])


def test_it_trains_on_one_sample_and_leaves_the_statistics():
    made, x = layer(kernel_size=3), draw(2, 6, 5, 5)
    before = copy.deepcopy(made.state_dict())
    y = made.train()(x[:1])
    torch.testing.assert_close(y, made.eval()(x[:1]))
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    made.train()(x)
    assert not torch.equal(made.KSM_Global.bn.running_mean, before["KSM_Global.bn.running_mean"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("size", [3, 1])
def test_the_dtype_of_the_input_is_kept(dtype, size):
    made, x = layer(kernel_size=size).eval(), draw(2, 6, 8, 8)
    y = made.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), made.float()(x), rtol=0.05, atol=0.1)


def test_autocast_computes_in_its_dtype_and_returns_the_inputs():
    made, x = layer(kernel_size=3).eval(), draw(2, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = [made(x), made(x.bfloat16())]
    assert [y.dtype for y in found] == [torch.float32, torch.bfloat16]
    assert not torch.equal(found[0], made(x))
    torch.testing.assert_close(found[0], made(x), rtol=0.05, atol=0.1)


def test_the_order_of_the_frequencies_is_saved_and_may_be_absent():
    made = layer(kernel_size=3)
    state = made.state_dict()
    assert state["frequency_groups"].dtype == torch.uint8
    assert layer(kernel_size=3, kernel_num=20).kernel_shape == (4, 6, 3, 3)
    official = {k: v for k, v in state.items() if k != "frequency_groups"}
    other = layer(kernel_size=3)
    other.load_state_dict(official, strict=True)
    with pytest.raises(RuntimeError, match="dft_weight"):
        other.load_state_dict({k: v for k, v in official.items() if k != "dft_weight"})


def test_few_channels_or_another_kernel_make_a_plain_convolution():
    plain: list[Any] = [FDConv2d(16, 64, 3), FDConv2d(64, 64, 5)]
    for made in plain:
        assert set(made.state_dict()) == {"weight", "bias"}
        x = draw(1, made.in_channels, 7, 7)
        assert torch.equal(made(x), nn.functional.conv2d(x, made.weight, made.bias))
    assert FDConv2d(17, 17, 3).is_dynamic


def test_a_sequence_is_a_picture_of_one_column():
    made, x = FDConv1d(6, 4, 3, stride=2, padding=1, **WIDE), draw(2, 6, 11)
    assert made(x).shape == nn.Conv1d(6, 4, 3, 2, 1)(x).shape
    randomised(made).eval()
    as_picture = FDConv2d(6, 4, (3, 1), (2, 1), (1, 0), **WIDE).eval()
    as_picture.load_state_dict(made.state_dict())
    assert torch.equal(made(x), as_picture(x[..., None])[..., 0])
    assert made.to_conv1d()(x).shape == made(x).shape


def test_a_linear_layer_is_a_1x1_convolution_of_its_places():
    linear, x = nn.Linear(6, 4).eval(), draw(2, 3, 5, 6)
    made = FDLinear.from_linear(linear, **WIDE)
    torch.testing.assert_close(made(x), linear(x))
    torch.testing.assert_close(made.to_linear().weight, linear.weight)
    randomised(made)
    as_picture = FDConv2d(6, 4, 1, **WIDE).eval()
    as_picture.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(x), as_picture(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    assert made(x[:, 0, 0]).shape == (2, 4)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_taps_add_up_to_the_convolution(padding, stride, groups):
    if padding == "same" and stride != (1, 1):
        stride = (1, 1)
    x, kernel = draw(2, 4, 9, 8), draw(2, 6, 4 // groups, 3, 2)
    given = (x, kernel, stride, padding, (2, 1), groups)
    expected = convolve_samples(*given)
    torch.testing.assert_close(convolve_taps(*given), expected, rtol=1e-5, atol=1e-5)


def test_it_exports_with_any_batch_and_names_a_wrong_size(unchecked):
    made, x = layer(kernel_size=3, padding=1).eval(), draw(2, 6, 6, 6)
    batch = torch.export.Dim("batch")
    program = torch.export.export(made, (x,), dynamic_shapes=({0: batch},)).module()
    for size in (1, 5):
        x = draw(size, 6, 6, 6)
        torch.testing.assert_close(program(x), made(x))
    with pytest.raises(AssertionError, match=r"input\.size\(\)\[2\] == 6"):
        program(draw(2, 6, 8, 6))


def test_it_compiles_whole_with_its_backward_at_changing_sizes(unchecked):
    made = layer(kernel_size=3, padding=1)
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    for size in ((6, 6), (6, 8), (9, 7), (6, 6)):
        x = draw(2, 6, *size)
        expected = made(x)
        found = compiled(x)
        torch.testing.assert_close(found, expected)
        found.sum().backward()
    assert made.dft_weight is not None
    assert made.dft_weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_numb": 3}, "no field 'kernel_numb'; did you mean 'kernel_num'"),
        ({"padding_mode": "reflect"}, "pads with zeros only, got padding_mode 'reflect'"),
        ({"ksm_global_act": "softmax"}, "set ksm_only_kernel_att as well"),
        ({"linear_mode": True}, "linear_mode is for kernels of 1x1, got 3x3"),
        ({"kernel_num": 200}, "has 120 frequencies, too few for 200 groups"),
        ({"fbm_cfg": {"spatial_group": 4}}, "spatial_group 4 does not divide 6 channels"),
        ({"fbm_cfg": {"k_list": [4, 2]}}, "k_list should ascend"),
        ({"convert_param": False, "param_ratio": 2}, "leave param_ratio"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        FDConv2d(6, 4, 3, **WIDE | arguments)


def test_a_wrong_input_is_named():
    with pytest.raises(UserError, match=r"takes \(batch, 6, height, width\), got \(2, 5, 4, 4\)"):
        layer(kernel_size=3)(draw(2, 5, 4, 4))
    with pytest.raises(UserError, match=r"takes \(batch, ..., 6\), got \(2, 5\)"):
        FDLinear(6, 4, **WIDE)(draw(2, 5))
    with pytest.raises(UserError, match=r"takes \(batch, 6, time\), got \(2, 5, 9\)"):
        FDConv1d(6, 4, 3, **WIDE)(draw(2, 5, 9))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("train", [True, False])
def test_an_empty_batch_has_the_shape_of_a_full_one(size, train):
    made = layer(kernel_size=size, padding=size // 2).train(train)
    y = made(draw(0, 6, 5, 4).requires_grad_())
    assert y.shape == (0, *made(draw(2, 6, 5, 4)).shape[1:])
    y.sum().backward()
    assert FDLinear(20, 24, kernel_num=2)(torch.zeros(0, 5, 20)).shape == (0, 5, 24)


def test_arguments_of_one_axis_may_be_tuples_as_torchs():
    made = FDConv1d(20, 24, (3,), (2,), (1,), (1,), kernel_num=2)
    assert made(draw(2, 20, 9)).shape == (2, 24, 5)


def test_it_says_its_shape_on_the_meta_device():
    made = layer(kernel_size=3, padding=1).to("meta")
    assert made(torch.empty(2, 6, 5, 4, device="meta")).shape[2:] == (5, 4)
