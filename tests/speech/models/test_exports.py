"""Exported graphs map recordings to recordings, complete, as the functions in Python do."""

import copy
import json
from typing import Any

import pytest
import torch
from optional_packages import needs
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.weights.export import export
from sixfold.speech import (
    FRCRN,
    DeFTAN2,
    DeFTAN2Config,
    FRCRNConfig,
    MossFormer,
    MossFormer2,
    MossFormer2Config,
    MossFormer2SE,
    MossFormer2SEConfig,
)
from sixfold.speech.models.deftan2.export import exportable as export_deftan2
from sixfold.speech.models.frcrn import enhance
from sixfold.speech.models.frcrn.export import exportable as export_frcrn
from sixfold.speech.models.mossformer2 import separate
from sixfold.speech.models.mossformer2.export import exportable as export_mossformer2
from sixfold.speech.models.mossformer2.export import exportable_se_48k
from sixfold.speech.models.mossformer2.se_48k_inference import enhance as enhance_48k

UNET = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8, "reduction": 2}
STACK = {"channels": 8, "blocks": 1, "group": 16, "key_channels": 6, "memory_channels": 4}
FRONT = {"n_mels": 4, "n_fft": 40, "hop_length": 8, "sample_rate": 1000}
ARRAY = {"microphones": 2, "n_fft": 32, "blocks": 1, "channels": 4, "heads": 2, "head_channels": 4}


def build(kind, config, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return kind(config.model_validate(sizes)).eval().requires_grad_(False)


def frcrn(**changes) -> FRCRN:
    return build(FRCRN, FRCRNConfig, UNET | {"memory": 3} | changes)


def mossformer2(kind=MossFormer2, **changes) -> MossFormer2:
    sizes = STACK | {"kernel_size": 4, "sample_rate": 8000}
    return build(kind, MossFormer2Config, sizes | changes)


def mossformer() -> MossFormer2:
    return mossformer2(MossFormer, memory_channels=None, masking=False)


def se_48k(**changes) -> MossFormer2SE:
    return build(MossFormer2SE, MossFormer2SEConfig, STACK | FRONT | changes)


def deftan2(**changes) -> DeFTAN2:
    return build(DeFTAN2, DeFTAN2Config, ARRAY | {"hidden": 8} | changes)


def one_by_one(call):
    """Process the recordings of a batch each by itself."""
    return lambda model, batch: torch.cat([call(model, x)[None] for x in batch])


SEPARATE = one_by_one(lambda m, x: separate(m, x, 8000))
CASES = {  # network, what prepares its export, the function in Python, shape of a recording
    "FRCRN": (frcrn, export_frcrn, enhance, ()),
    "FRCRN, causal": (lambda: frcrn(causal=True, hop_length=4), export_frcrn, enhance, ()),
    "MossFormer2": (mossformer2, export_mossformer2, SEPARATE, ()),
    "MossFormer": (mossformer, export_mossformer2, SEPARATE, ()),
    "MossFormer2_SE_48K": (
        se_48k, exportable_se_48k, lambda m, x: enhance_48k(m, x, 1000), ()
    ),
    "DeFTAN-II": (deftan2, export_deftan2, lambda m, x: m(x), (2,)),
    "DeFTAN-II, stride": (
        lambda: deftan2(stride=2, window=3, sources=2), export_deftan2, lambda m, x: m(x), (2,)
    ),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES)


def recordings(*shape: int) -> Tensor:
    """Make noise of which each recording has a level of its own."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return noise * torch.logspace(-3, 0, shape[0]).view(-1, *[1] * (len(shape) - 1))


@every_case
def test_the_module_computes_what_the_function_does_of_one_piece(case):
    make, prepare, function, inner = CASES[case]
    model = make()
    module, inputs, dynamic, _, facts = prepare(model)
    (axes,) = dynamic.values()
    smallest = max(1, axes[inputs[0].ndim - 1].min)
    assert facts == {"sample_rate": model.config.sample_rate}
    for samples in (smallest, smallest + 1, 2 * smallest + 3, 160, 161, 400):
        audio = recordings(2, *inner, samples)
        found, expected = module(audio), function(model, audio)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    silence = torch.zeros(1, *inner, 200)
    torch.testing.assert_close(module(silence), function(model, silence), rtol=0, atol=1e-6)


@every_case
def test_preparing_an_export_leaves_the_network_as_it_is(case):
    make, prepare, _, _ = CASES[case]
    model = make().train()
    before = copy.deepcopy(model.state_dict())
    assert not any(part.training for part in prepare(model).module.modules())
    assert all(part.training for part in model.modules())
    assert model.state_dict().keys() == before.keys()


@needs("onnx", "onnxruntime", "onnxscript")
@pytest.mark.slow
@every_case
def test_files_compute_what_the_function_does_at_any_size(tmp_path, unchecked, case, capfd):
    import onnxruntime

    make, prepare, function, inner = CASES[case]
    model = make()
    module, inputs, dynamic, outputs, facts = prepare(model)
    report = export(module, inputs, tmp_path / "a", dynamic=dynamic, outputs=outputs, facts=facts)
    assert capfd.readouterr() == ("", "")
    assert json.loads((tmp_path / "a/export.json").read_text()) == report
    (name,) = report["inputs"]
    assert report["inputs"][name]["shape"] == ["batch", *inner, "time"]
    assert report["outputs"][outputs[0]]["shape"][-1] == "time"
    assert report["outputs"][outputs[0]]["dtype"] == "float32"
    assert report["sample_rate"] == model.config.sample_rate
    program = torch.export.load(tmp_path / "a/model.pt2").module()
    session = onnxruntime.InferenceSession(tmp_path / "a/model.onnx")
    assert [(i.name, i.shape) for i in session.get_inputs()] == [(name, ["batch", *inner, "time"])]
    assert [i.name for i in session.get_outputs()] == list(outputs)
    least = report["smallest_sizes"]["time"]
    for batch, samples in ((1, least), (1, 99), (1, 160), (1, 161), (2, 64), (3, 300)):
        audio = recordings(batch, *inner, max(least, samples))
        expected = function(model, audio)
        torch.testing.assert_close(program(audio), expected, rtol=1e-5, atol=5e-6)
        found = torch.from_numpy(session.run(None, {name: audio.numpy()})[0])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_dithered_features_are_not_exported():
    with pytest.raises(UserError, match=r"dither 1\.0 makes every call differ"):
        exportable_se_48k(se_48k(dither=1.0))
