"""RePaViT leaves PyTorch: torch.export and ONNX, batches of any size, merged = unmerged."""

import pytest
import torch
from optional_packages import needs
from tiny_vits import FAMILIES, build, from_timm, randomised

from sixfold.core.weights.export import export
from sixfold.vision.models.repavit import RePaViT, convert
from sixfold.vision.models.repavit.export import exportable


def check_file(model: RePaViT, folder, formats) -> None:
    module, inputs, dynamic, outputs, facts = exportable(model)
    report = export(module, inputs, folder, formats, dynamic, outputs=outputs, facts=facts)
    assert report["inputs"]["images"]["shape"] == ["batch", *inputs[0].shape[1:]]
    assert report["outputs"]["logits"]["shape"] == ["batch", 5]
    images = torch.randn(5, *inputs[0].shape[1:])
    expected = model.eval()(images).detach()
    program = torch.export.load(folder / "model.pt2").module()
    torch.testing.assert_close(program(images), expected, rtol=1e-3, atol=1e-4)
    if "onnx" in formats:
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx")
        (found,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["vit", "poolformer"])
def test_torch_export_of_the_merged_form_computes_what_the_training_form_does(
    family, tmp_path, unchecked
):
    check_file(build(family), tmp_path / "a", ["torch_export"])


@needs("onnx", "onnxruntime", "onnxscript")
def test_onnx_computes_the_same(tmp_path, unchecked):
    check_file(build("vit", depth=2), tmp_path / "a", ["torch_export", "onnx"])


@needs("onnx", "onnxruntime", "onnxscript")
@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"idle_ratio": 1.0}, {"vanilla": True}, {"feature_norm": "LayerNorm"}], ids=str
)
def test_onnx_of_every_form(changes, tmp_path, unchecked):
    check_file(build("vit", depth=2, **changes), tmp_path / "a", ["torch_export", "onnx"])


@needs("onnx", "onnxruntime", "onnxscript")
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_of_every_family(family, tmp_path, unchecked):
    check_file(build(family), tmp_path / "a", ["torch_export", "onnx"])


@pytest.mark.slow
def test_a_model_of_timm_exports_at_its_own_size(tmp_path, unchecked):
    backbone = randomised(convert(from_timm("swin_tiny_patch4_window7_224")))
    options = {"embed_dim": 12, "depths": (2, 1), "num_heads": (2, 3)}
    model = RePaViT.wrap(backbone, **options).eval()
    assert exportable(model).inputs[0].shape == (2, 3, 28, 28)
    check_file(model, tmp_path / "a", ["torch_export"])


def test_preparing_an_export_leaves_the_network_as_it_is():
    model = build("vit").train()
    assert not exportable(model).module.training
    assert model.training
    assert not model.config.merged
