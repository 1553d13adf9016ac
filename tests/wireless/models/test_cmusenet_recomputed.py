"""CMuSeNet's training step and packed inference against its layers one after the other."""

import copy

import pytest
import torch

from sixfold.wireless.models.cmusenet import CMuSeNet, CMuSeNetConfig, layers, recomputed
from sixfold.wireless.models.cmusenet.layers import BasicBlock, Bottleneck, ComplexBatchNorm2d

BLOCKS = {
    "basic": lambda: BasicBlock(3, 3, 1),
    "basic with a shortcut": lambda: BasicBlock(2, 3, 2),
    "bottleneck": lambda: Bottleneck(8, 2, 1),
    "bottleneck with a shortcut": lambda: Bottleneck(3, 2, 2),
    "norm": lambda: ComplexBatchNorm2d(3),
}


def made(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a block of no special weights in double precision, and an input for it."""
    torch.manual_seed(0)
    block = BLOCKS[name]().double().train()
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    channels = block.conv1.conv_r.in_channels if hasattr(block, "conv1") else len(block.weight)
    x = torch.randn(3, 2 * channels, 5, 4, dtype=torch.float64) + 0.5
    return block, x.requires_grad_()


def step(block: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the output, every gradient, and the running moments after it."""
    y = block(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    grads = torch.autograd.grad((y * weights).sum(), [x, *block.parameters()])
    return [y, *grads, *block.buffers()]


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "trains_here", lambda x, training: False)


@pytest.mark.parametrize("large", [1, 2**20], ids=["first again", "first kept"])
@pytest.mark.parametrize("gauss", [1, 64], ids=["Gauss", "block form"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_its_layers_one_after_the_other(name, gauss, large, monkeypatch):
    monkeypatch.setattr(recomputed, "GAUSS_CHANNELS", gauss)
    monkeypatch.setattr(recomputed, "LARGE", large)
    block, x = made(name)
    other = copy.deepcopy(block)
    ours = step(block, x)
    plainly(monkeypatch)
    theirs = step(other, x)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradcheck(name):
    block, x = made(name)
    assert torch.autograd.gradcheck(block, x[:2, :, :3, :3].detach().requires_grad_(), atol=1e-6)


def test_kernels_that_are_frozen_get_no_gradient_and_pass_it_on():
    block, x = made("basic")
    whole = step(block, x)[1]
    block.requires_grad_(False)
    weights = torch.randn(3, 6, 5, 4, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    (alone,) = torch.autograd.grad((block(x) * weights).sum(), x)
    torch.testing.assert_close(alone, whole)
    assert not block(x.detach()).requires_grad


def test_an_input_without_a_gradient_leaves_those_of_the_kernels():
    block, x = made("basic with a shortcut")
    parameters = list(block.parameters())
    expected = torch.autograd.grad(block(x).sum(), parameters)
    found = torch.autograd.grad(block(x.detach()).sum(), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("width", [5, 64], ids=["block form", "Gauss"])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_packed_kernels_compute_the_same(block, width):
    torch.manual_seed(0)
    config = CMuSeNetConfig(bins=256, width=width, layers=(2, 1), block=block)
    model = CMuSeNet(config).train()
    x = torch.randn(2, 2, *config.folded_shape())
    model(x)
    model.eval()
    packed = model.packed()
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), model(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(packed(x[:1]), model(x[:1]), rtol=1e-5, atol=1e-6)
        wide = model.double()
        torch.testing.assert_close(wide.packed()(x.double()), wide(x.double()))
