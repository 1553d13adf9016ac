"""Exported graphs of DeFTAN-II give the same numbers at any length."""

import pytest
import torch
from optional_packages import needs

from sixfold.core.weights.export import export
from sixfold.speech import DeFTAN2, DeFTAN2Config
from sixfold.speech.models.deftan2.export import Enhancer, exportable

TINY = DeFTAN2Config(
    microphones=2, n_fft=32, blocks=1, channels=4, heads=2, head_channels=4, hidden=8
)


def tiny(**changes) -> DeFTAN2:
    torch.manual_seed(0)
    return DeFTAN2(TINY.model_copy(update=changes)).eval()


@pytest.mark.parametrize("samples", [17, 31, 32, 33, 47, 48, 49, 160])
def test_the_transform_as_products_is_the_transform(samples):
    model, noisy = tiny(sources=2), torch.randn(3, 2, samples)
    torch.testing.assert_close(Enhancer(model).eval()(noisy), model(noisy), rtol=0, atol=5e-6)


def test_exporting_leaves_the_model_as_it_is():
    model = tiny().train()
    before = model.state_dict()
    module, _, _ = exportable(model)
    assert not module.training
    assert model.state_dict().keys() == before.keys()


@needs("onnx", "onnxruntime", "onnxscript")
@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"stride": 2, "window": 3, "sources": 2}], ids=str)
def test_exports_to_torch_and_onnx(tmp_path, unchecked, changes):
    model = tiny(**changes)
    module, inputs, dynamic = exportable(model)
    report = export(module, inputs, tmp_path / "export", dynamic=dynamic)
    for name in ("torch_export", "onnx"):
        assert max(report[name]["max_abs_error"].values()) < 1e-5
    program = torch.export.load(tmp_path / "export" / "model.pt2").module()
    for samples in (64, 79, 80, 81, 200):
        noisy = torch.randn(1, 2, samples)
        torch.testing.assert_close(program(noisy), model(noisy), rtol=0, atol=5e-6)
