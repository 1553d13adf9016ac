"""CFSR as a graph: merged, of any batch, height and width; the file is compared with PyTorch."""

import json
import sys

import numpy as np
import pytest
import torch
from tiny_networks import tiny_cfsr

from sixfold.core.cli import main
from sixfold.core.weights.convert import save_pretrained


def test_the_exported_graph_enlarges_pictures_of_any_size(tmp_path, monkeypatch, unchecked):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = tiny_cfsr(depths=(1,))
    save_pretrained(tmp_path / "w.safetensors", model, "cfsr", model.config)
    words = ["export", "vision/cfsr", tmp_path / "out", "--weights", tmp_path / "w.safetensors"]
    monkeypatch.setattr(sys, "argv", ["sixfold", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["upscale"] == 2
    assert facts["inputs"]["pictures"]["shape"] == ["batch", 3, "height", "width"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for shape in ((1, 3, 5, 9), (3, 3, 31, 1), (2, 3, 40, 23)):
        x = torch.rand(shape)
        expected = model(x)
        torch.testing.assert_close(program(x), expected, rtol=0, atol=1e-5)
        (found,) = session.run(None, {"pictures": x.numpy()})
        np.testing.assert_allclose(found, expected.detach(), rtol=0, atol=1e-5)
    convolutions = [n for n in program.graph.nodes if "conv2d" in str(n.target)]
    # around the body 3; in a layer its own, the mixer's 4 and the network's 3, of merged kernels
    assert len(convolutions) == 3 + (1 + 4 + 3)
