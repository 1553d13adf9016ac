"""Networks made frequency dynamic: nothing is lost, what was frozen stays frozen, they train."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from sixfold.core import UserError, from_pretrained
from sixfold.vision import FDConv2d, FDConvConfig, FDConvNet
from sixfold.vision.models.fdconv import SYSTEM, convert, convertible, pretrained_lite0
from sixfold.vision.models.fdconv.convert import dynamic_layers

TINY = {"backbone": "resnet18", "kernel_num": 4, "num_classes": 3}


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def assert_same(model: nn.Module, converted: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected, found = model.eval()(x), converted.eval()(x)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "count", "settings"),
    [("resnet50", 48, {"zero_init_last": False}), ("convnext_tiny", 36, {"ls_init_value": 1.0})],
)
def test_a_network_of_timm_computes_what_it_did(name, count, settings):
    model = timm.create_model(name, num_classes=5, **settings)
    converted = convert(model, 8)
    assert len(dynamic_layers(converted)) == count
    assert not dynamic_layers(model)
    assert_same(model, converted, images(1, 3, 32, 32))


def test_resnet50_gains_as_many_parameters_as_published():
    with torch.device("meta"):
        model = timm.create_model("resnet50", num_classes=0)
        converted = convert(model)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, converted))
    assert (before, after - before) == (23_508_032, 3_647_120)


def test_a_pretrained_network_computes_what_it_did():
    model: Any = pretrained_lite0()
    assert_same(model, convert(model, 8), images(1, 3, 32, 32))
    features: Any = pretrained_lite0(features_only=True)
    assert torch.equal(features.conv_stem.weight, model.conv_stem.weight)


def test_a_frozen_stage_stays_frozen_but_for_the_modulations():
    model = timm.create_model("resnet18")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("conv1", "bn1", "layer1")))
    converted = convert(model, 4)
    stage = {n: p for n, p in converted.named_parameters() if n.startswith("layer1")}
    trained = {name for name, p in stage.items() if p.requires_grad}
    assert trained == {name for name in stage if "KSM" in name or "FBM" in name}
    assert all(p.requires_grad for n, p in converted.named_parameters() if n.startswith("layer2"))


class Detector(nn.Module):
    """Return one tensor of a detector, for comparison: the features of its backbone."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([f.flatten(1) for f in self.model.backbone(x).values()], 1)


def test_a_detector_of_torchvision_trains_and_predicts():
    torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    )
    converted = convert(model, 4)
    names = dynamic_layers(converted)
    assert len(names) == 48
    assert all(name.startswith("backbone.body") for name in names)
    assert_same(Detector(model), Detector(converted), images(1, 3, 64, 64))
    box = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}
    losses: Any = converted.train()([images(3, 64, 64)], [box])
    torch.stack(list(losses.values())).sum().backward()
    layer: Any = converted.get_submodule("backbone.body.layer4.2.conv2")
    assert float(layer.dft_weight.grad.norm()) > 0
    with torch.no_grad():
        (found,) = converted.eval()([images(3, 64, 64)])
    assert set(found) == {"boxes", "labels", "scores"}


def test_a_segmentation_network_of_torchvision_trains_and_predicts():
    torch.manual_seed(0)
    model = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=4
    )
    converted, x = convert(model, 4), images(2, 3, 32, 32)
    assert len(dynamic_layers(converted)) == 48
    logits = converted.train()(x)["out"]
    nn.functional.cross_entropy(logits, torch.zeros(2, 32, 32, dtype=torch.long)).backward()
    with torch.no_grad():
        assert converted.eval()(x)["out"].argmax(1).shape == (2, 32, 32)


def test_a_network_saves_and_loads(tmp_path):
    model = FDConvNet(FDConvConfig(**TINY))
    x = images(2, 3, 32, 32)
    nn.functional.cross_entropy(model.train()(x), torch.tensor([0, 2])).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    model.eval().save(tmp_path / "net.safetensors")
    again = FDConvNet.from_pretrained(tmp_path / "net.safetensors")
    assert again.config == model.config
    assert torch.equal(again(x), model(x))


def test_a_converted_network_of_timm_saves_and_loads(tmp_path):
    plain = timm.create_model("resnet18", num_classes=3)
    chosen = FDConvNet.from_timm(plain, 4, filter=lambda name, _: name.startswith("layer4"))
    assert len(dynamic_layers(chosen)) == 5  # its shortcut too
    chosen.eval().save(tmp_path / "net.safetensors")
    again = from_pretrained(tmp_path / "net.safetensors", SYSTEM)
    assert_same(plain, again, images(1, 3, 32, 32))


def official(prefix: str, tmp_path: Path) -> tuple[FDConvNet, Path]:
    """Save a detector's checkpoint as the official code does: nested, without frequency order."""
    torch.manual_seed(0)
    model = FDConvNet(FDConvConfig(kernel_num=2)).eval()
    state = {k.replace("network.", prefix): v for k, v in model.state_dict().items()}
    state = {key: value for key, value in state.items() if "frequency" not in key}
    others = {"neck.lateral_convs.0.conv.weight": torch.zeros(2, 2, 1, 1)}
    torch.save({"state_dict": {**state, **others}, "meta": {}}, tmp_path / "official.pth")
    return model, tmp_path / "official.pth"


def test_the_backbone_of_an_official_detector_loads(tmp_path):
    model, path = official("backbone.", tmp_path)
    again = FDConvNet.from_pretrained(path)
    assert again.config.kernel_num == 2
    x = images(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


def test_what_cannot_be_converted_is_named():
    model = timm.create_model("resnet18")
    with pytest.raises(UserError, match=r"ResNet is converted already: layer1\.0\.conv1"):
        convert(convert(model, 4), 4)
    with pytest.raises(UserError, match="Sequential has nothing to convert"):
        convert(nn.Sequential(nn.Conv2d(3, 64, 3)), 4)
    with pytest.raises(UserError, match="no field 'kernel'"):
        convert(model, 4, kernel=3)
    with pytest.raises(UserError, match="timm has no 'resnet51'"):
        FDConvNet(FDConvConfig(backbone="resnet51"))
    with pytest.raises(UserError, match="is no plain Conv2d"):
        FDConv2d.from_conv2d(FDConv2d(32, 32, 3))
    with pytest.raises(UserError, match=r"takes \(batch, 3, height, width\), got \(1, 1, 8, 8\)"):
        FDConvNet(FDConvConfig(**TINY))(images(1, 1, 8, 8))


def test_a_filter_chooses_layers():
    model = timm.create_model("resnet18")
    names = convertible(model, 4, lambda name, module: name.endswith("conv2"))
    assert names == [f"layer{i}.{j}.conv2" for i in range(1, 5) for j in range(2)]
    copied = copy.deepcopy(model)
    assert set(dynamic_layers(convert(copied, 4, lambda n, _: n in names))) == set(names)


def test_a_shared_layer_stays_shared():
    model = nn.Sequential(conv := nn.Conv2d(20, 20, 3, padding=1), nn.ReLU(), conv)
    made: Any = convert(model, 4)
    assert made[0] is made[2]
    assert isinstance(made[0], FDConv2d)
    assert_same(model, made, images(1, 20, 5, 5))


def test_a_layer_alone_becomes_a_dynamic_one():
    assert isinstance(convert(nn.Conv2d(20, 20, 3), 4), FDConv2d)


def test_a_copy_that_would_differ_is_refused():
    with pytest.raises(UserError, match="would not compute what the model does"):
        convert(nn.Conv2d(20, 20, 3), 4, att_multi=1.5)
