"""An exported file computes what the module computes, at other lengths too, or does not exist."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from sixfold.core.config import UserError
from sixfold.core.weights import export as export_module
from sixfold.core.weights.export import export

onnxruntime = pytest.importorskip("onnxruntime")  # as its packages: sixfold-core[onnx]
TIME = {"audio": {0: Dim("batch"), 1: Dim("time", min=64)}}


class Toy(nn.Module):
    """A convolution, batch norm and an STFT: the parts that speech models are made of."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 4, 5, padding=2), nn.BatchNorm1d(4)
        self.window = nn.Buffer(torch.hann_window(64))

    def forward(self, audio):
        wave = self.norm(self.conv(audio[:, None])).mean(1)
        return wave, torch.stft(wave, 64, 16, window=self.window, return_complex=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    module, folder = Toy(), tmp_path_factory.mktemp("toy") / "export"
    names = {"outputs": ["wave", "spectrum"], "facts": {"sample_rate": 8000}}
    return module, folder, export(module, [torch.randn(2, 800)], folder, dynamic=TIME, **names)


def test_both_formats_are_written_with_their_errors(exported):
    module, folder, report = exported
    assert module.training
    assert {f.name for f in folder.iterdir()} == {"model.pt2", "model.onnx", "export.json"}
    assert json.loads((folder / "export.json").read_text()) == report
    assert report["inputs"] == {"audio": {"shape": ["batch", "time"], "dtype": "float32"}}
    assert report["smallest_sizes"] == {"batch": 1, "time": 64}
    assert report["outputs"] == {
        "wave": {"shape": ["batch", "time"], "dtype": "float32"},
        "spectrum": {"shape": ["batch", 33, "varies", 2], "dtype": "float32"},
    }
    assert report["sample_rate"] == 8000
    assert report["onnx"]["opset"] >= 17
    for name in ("torch_export", "onnx"):
        errors = report[name]["max_abs_error"]
        assert errors.keys() == {"example", "twice the example", "smallest"}
        assert max(errors.values()) < 1e-4


def test_the_files_run_alone_at_a_third_length(exported):
    module, folder, _ = exported
    audio = torch.randn(1, 1111)  # torch writes assertions against a batch of one
    with torch.no_grad():
        wave, spectrum = module.eval()(audio)
    module.train()
    program = torch.export.load(folder / "model.pt2").module()
    torch.testing.assert_close(program(audio), (wave, spectrum))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("audio", ["batch", "time"])]
    assert [i.name for i in session.get_outputs()] == ["wave", "spectrum"]
    expected = [wave.numpy(), torch.view_as_real(spectrum).numpy()]
    for found, value in zip(session.run(None, {"audio": audio.numpy()}), expected, strict=True):
        np.testing.assert_allclose(np.asarray(found), value, atol=1e-4)


def test_nothing_of_other_libraries_is_printed_and_modes_are_kept(tmp_path, capfd):
    module = nn.Sequential(Toy(), nn.Identity()).eval()
    module[1].train()
    export(module[0].eval(), [torch.randn(2, 320)], tmp_path / "a", dynamic=TIME)
    report = export(nn.Sequential(module[1]), [torch.randn(2, 3)], tmp_path / "b")
    assert capfd.readouterr() == ("", "")
    assert module[1].training
    assert not module[0].training
    assert list(report["outputs"]) == ["output_0"]
    assert report["outputs"]["output_0"]["shape"] == [2, 3]
    assert "smallest_sizes" not in report


def test_an_error_above_the_tolerance_leaves_the_folder_as_it_was(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "model.pt2").write_text("of before")
    with pytest.raises(UserError, match=r"tolerance -1; nothing was written"):
        export(Toy(), [torch.randn(2, 320)], folder, ["torch_export"], TIME, tolerance=-1)
    assert [(f.name, f.read_text()) for f in folder.iterdir()] == [("model.pt2", "of before")]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_graph_that_fails_at_another_length_is_no_export(tmp_path, monkeypatch):
    def frozen(program, file, shapes, outputs):
        file.write_text("graph")
        return (lambda audio: [audio + 1] if audio.shape[1] == 8 else [audio]), {}

    monkeypatch.setitem(export_module._WRITERS, "torch_export", frozen)

    class AddOne(nn.Module):
        def forward(self, audio):
            return audio + 1

    dynamic = {"audio": {1: Dim("time")}}
    with pytest.raises(UserError, match=r"by 1 on inputs \(1, 16\) \(twice the example\)"):
        export(AddOne(), [torch.zeros(1, 8)], tmp_path / "out", ["torch_export"], dynamic)
    assert list(tmp_path.iterdir()) == []


def test_an_axis_that_torch_cannot_keep_dynamic_is_explained(tmp_path):
    dynamic = {"audio": {1: Dim("time")}}  # the STFT pads by reflection: 33 samples at least
    with pytest.raises(UserError, match=r"(?s)export of Toy: .*Dim\('time', min=33\)$"):
        export(Toy(), [torch.randn(1, 320)], tmp_path / "out", ["torch_export"], dynamic)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_an_error(tmp_path):
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    with pytest.raises(UserError, match="by nan"):
        export(Root(), [-torch.ones(3)], tmp_path / "out", ["torch_export"])


@pytest.mark.parametrize(
    ("formats", "dynamic", "message"),
    [(["onx"], {}, "no format 'onx'; did you mean 'onnx'"), (["onnx"], {"x": {}}, "no input 'x'")],
)
def test_unknown_names_are_refused(tmp_path, formats, dynamic, message):
    with pytest.raises(UserError, match=message):
        export(Toy(), [torch.zeros(1, 320)], tmp_path / "out", formats, dynamic)


def test_a_file_takes_no_folder_of_results(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="mine is no folder; name another"):
        export(Toy(), [torch.zeros(2, 800)], tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(UserError, match=r"needs onnx; try: pip install 'sixfold-core\[onnx\]'"):
        export(Toy(), [torch.zeros(1, 320)], tmp_path / "out")
