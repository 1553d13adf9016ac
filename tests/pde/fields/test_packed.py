"""Packed networks forecast as the plain ones do."""

import pytest
import torch

from sixfold.pde.fields.convolution import PaddedConv, PointwiseConv
from sixfold.pde.fields.packed import PackedConv, can_pack, packed
from sixfold.pde.models.dil_resnet import DilResNet, DilResNetConfig
from sixfold.pde.models.fno import FNO, FNOConfig
from sixfold.pde.models.sinenet import SineNet, SineNetConfig, SineNetODE, SineNetODEConfig
from sixfold.pde.models.unet_mod import UNetMod, UNetModConfig

SMALL = {"hidden_channels": 5, "mult": 1.4, "time_history": 2}
NETWORKS = {
    "zeros": lambda: SineNet(SineNetConfig(**SMALL, num_waves=2)),
    "circular": lambda: SineNet(SineNetConfig.parse({**SMALL, "padding": "circular"}, "test")),
    "each axis": lambda: SineNet(
        SineNetConfig(**SMALL, num_waves=1, num_blocks=2, padding=("circular", "replicate"))
    ),
    "ode": lambda: SineNetODE(SineNetODEConfig(**SMALL)),
    "unet_mod": lambda: UNetMod(UNetModConfig(hidden_channels=8, mults=(1, 2), time_history=2)),
    "dil_resnet": lambda: DilResNet(
        DilResNetConfig(hidden_channels=4, blocks=(1,), time_history=2)
    ),
}
needs_operators = pytest.mark.skipif(
    not can_pack(torch.ones(1, 1, 3, 3)), reason="this PyTorch lacks oneDNN's operators"
)


@needs_operators
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_packed_network_is_the_network_to_rounding(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    lean, x = packed(model), torch.randn(2, 2, 3, 32, 48)
    kinds = {type(module) for module in lean.modules()}
    assert PackedConv in kinds
    assert not kinds & {PaddedConv, PointwiseConv}
    torch.testing.assert_close(lean(x), model(x), rtol=1e-4, atol=1e-5)
    assert lean(x[:0]).shape[0] == 0
    assert any(isinstance(m, PaddedConv | PointwiseConv) for m in model.modules())  # the original


@needs_operators
@torch.no_grad()
def test_the_finer_grid_is_packed_too():
    torch.manual_seed(0)
    settings = {**SMALL, "padding": "circular", "num_waves": 1, "conditioning": "add"}
    model = SineNet(SineNetConfig.parse(settings, "test")).eval()
    x, time = torch.randn(1, 2, 3, 128, 128), torch.ones(1)
    lean = packed(model)
    assert isinstance(lean, SineNet)
    torch.testing.assert_close(
        lean.at_finer_grid(x, time), model.at_finer_grid(x, time), rtol=1e-4, atol=1e-5
    )


def test_what_cannot_be_packed_stays():
    plain = FNO(FNOConfig(width=2, modes=2, num_layers=1))
    assert packed(plain) is plain
    precise = NETWORKS["zeros"]().double()
    assert packed(precise) is precise
