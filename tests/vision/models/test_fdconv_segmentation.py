"""The encoder-decoder: any size, any encoder, its commands, its export."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sixfold.core import UserError
from sixfold.core.system import load_function
from sixfold.core.weights.export import export
from sixfold.vision import FDConvConfig, FDConvNet, Segmenter, SegmenterConfig
from sixfold.vision.data.segmentation import draw_shapes
from sixfold.vision.models.fdconv import SEGMENTER, segmenter_from_lite0
from sixfold.vision.models.fdconv.convert import dynamic_layers
from sixfold.vision.models.fdconv.dynamic_conv import DynamicConv2d
from sixfold.vision.models.fdconv.export import at_size
from sixfold.vision.models.fdconv.inference import run, segment
from sixfold.vision.models.fdconv.similarity import kernel_similarity, kernel_spectra

TINY = {"channels": (18, 20), "kernel_num": 4, "classes": 3}


def tiny(**settings) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(SegmenterConfig(**TINY | settings)).eval()


@pytest.mark.parametrize("conv", ["static", "dynamic", "fdconv"])
@pytest.mark.parametrize("size", [(16, 24), (13, 9), (2, 2)], ids=str)
def test_a_picture_of_any_size_keeps_it(conv, size):
    with torch.no_grad():
        assert tiny(conv=conv)(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("conv", ["static", "dynamic", "fdconv"])
def test_training_lowers_the_loss(conv):
    model, x = tiny(conv=conv).train(), torch.rand(4, 3, 16, 16)
    target = (x[:, 0] > 0.5).long()
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-2), []
    for _ in range(8):
        losses.append(nn.functional.cross_entropy(model(x), target))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]


def test_frequencies_that_are_disjoint_make_kernels_that_are_orthogonal():
    similar, mixed = kernel_similarity(tiny()), kernel_similarity(tiny(conv="dynamic"))
    assert similar is not None
    assert mixed is not None
    assert similar < 0.02
    assert kernel_similarity(tiny(conv="static")) is None
    model = tiny(conv="dynamic")
    for layer in model.modules():
        if isinstance(layer, DynamicConv2d):
            layer.weights.data[:] = layer.weights.data[:1]
    assert kernel_similarity(model) == pytest.approx(1)
    assert kernel_spectra(nn.Conv2d(4, 5, 3)).shape == (1, 15, 12)


def test_the_pretrained_encoder_is_dynamic_and_computes_what_it_did(tmp_path):
    model = segmenter_from_lite0(3, kernel_num=4).eval()
    assert len(dynamic_layers(model.encoder)) == 29
    static = segmenter_from_lite0(3, conv="static").eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        for a, b in zip(model.encoder(x), static.encoder(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        expected = model(x)
        model.save(tmp_path / "lite0.safetensors")
        again = Segmenter.from_pretrained(tmp_path / "lite0.safetensors")
        assert torch.equal(again(x), expected)


def test_pictures_become_masks_of_their_size(tmp_path):
    model = tiny()
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        picture, _ = draw_shapes(i, 30, 40)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"pictures/{i}.png")
    (tmp_path / "pictures" / "bad.png").write_text("text")
    folders = (tmp_path / "pictures", tmp_path / "masks")
    with pytest.raises(SystemExit):
        run(*folders, weights=tmp_path / "model.safetensors")
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert [mask.name for mask in masks] == ["0.png", "1.png"]
    with Image.open(masks[0]) as file:
        found = np.array(file)
    picture, _ = draw_shapes(0, 30, 40)
    assert np.array_equal(found, segment(model, picture / 255).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segmenter", "classifier"])
def test_it_exports_with_any_batch(kind, tmp_path, unchecked):
    if kind == "segmenter":
        found, output = at_size(tiny(), 3, 18, 20, "logits"), "logits"
    else:
        settings = {"backbone": "resnet10t", "num_classes": 3, "kernel_num": 4}
        model = FDConvNet(FDConvConfig.parse(settings, "test")).eval()
        found, output = at_size(model, 3, 32, 32, "scores"), "scores"
    report = export(
        found.module, found.inputs, tmp_path, dynamic=found.dynamic, outputs=found.outputs
    )
    assert report["outputs"][output]["shape"][0] == "batch"
    program = torch.export.load(tmp_path / "model.pt2").module()
    with pytest.raises(Exception, match=r"size\(\)\[2\]|shape\[2\]"):
        program(torch.rand(2, 3, 24, 20))


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(UserError, match="conv dynamic is for the small encoder"):
        Segmenter(SegmenterConfig(conv="dynamic", backbone="resnet18"))
    with pytest.raises(UserError, match="timm has no 'resnet51'"):
        Segmenter(SegmenterConfig(backbone="resnet51"))
    with pytest.raises(UserError, match="in training mode"):
        segment(tiny().train(), torch.rand(3, 8, 8))
    with pytest.raises(UserError, match=r"takes a float picture .* got torch.uint8"):
        segment(tiny(), torch.zeros(3, 8, 8, dtype=torch.uint8))
    tiny().save(tmp_path / "model.safetensors")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"masks are \.png files"):
        run(tmp_path / "a.png", tmp_path / "b.jpg", weights=tmp_path / "model.safetensors")


def test_what_its_command_trains_exists():
    assert SEGMENTER.train is not None
    assert callable(load_function(SEGMENTER.train))
