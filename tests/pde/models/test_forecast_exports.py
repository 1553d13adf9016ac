"""Every forecasting network leaves PyTorch: torch.export and ONNX, any number of fields."""

import json
from typing import Any

import pytest
import torch

from sixfold.core.system import load_function
from sixfold.core.weights.export import export
from sixfold.pde.models import dil_resnet, ffno, fno, sinenet, unet_mod

pytest.importorskip("onnxruntime")
FRAMES: dict[str, Any] = {"time_history": 2, "grid": (32, 32)}
SINENET = {**FRAMES, "hidden_channels": 2, "num_waves": 1, "mult": 1.5}
NETWORKS: dict[str, Any] = {
    "sinenet": (sinenet.SYSTEM, {**SINENET, "norm": False, "disentangle": False}),
    "sinenet, circular": (sinenet.SYSTEM, {**SINENET, "padding": "circular"}),
    "sinenet, conditional": (
        sinenet.SYSTEM,
        {**SINENET, "conditioning": "add", "condition_on_parameter": True},
    ),
    "unet_mod": (
        unet_mod.SYSTEM,
        {**FRAMES, "hidden_channels": 8, "mults": (1, 1), "num_blocks": 1},
    ),
    "dil_resnet": (dil_resnet.SYSTEM, {**FRAMES, "hidden_channels": 2, "blocks": (1,)}),
    "ffno": (ffno.SYSTEM, {**FRAMES, "width": 4, "modes": 4, "num_layers": 1}),
    "fno": (fno.SYSTEM, {**FRAMES, "width": 4, "modes": 4, "num_layers": 1}),
}
QUICK = ("fno",)  # the graphs of the others take torch several seconds each
CASES = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NETWORKS]


@pytest.mark.parametrize("name", CASES)
def test_it_exports(name, tmp_path, unchecked):
    system, settings = NETWORKS[name]
    torch.manual_seed(0)
    model = system.build(system.config.parse(settings, "test"))
    module, inputs, dynamic, outputs, facts = load_function(system.export)(model)
    report = export(
        module, inputs, tmp_path, dynamic=dynamic, outputs=outputs, facts=facts, tolerance=1e-4
    )
    assert report["inputs"]["frames"]["shape"] == ["batch", 2, model.config.input_channels, 32, 32]
    assert report["smallest_sizes"] == {"batch": 1}
    written = json.loads((tmp_path / "export.json").read_text())
    assert written["normalizer"]["sd"] == [1.0] * model.config.output_channels
