"""What the package's README shows runs as it stands."""

import re
from pathlib import Path

import pytest
import soundfile
import torch
from optional_packages import needs
from safetensors.torch import load_file

from sixfold.core.cli import build_app

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "packages/speech/README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a recording, and a mirror with a tiny network under the published name."""
    weights = tmp_path / "mirror/FRCRN_SE_16K/last_best_checkpoint.pt"
    weights.parent.mkdir(parents=True)
    torch.save(load_file(HERE / "data/frcrn/w4_eval/state_dict.safetensors"), weights)
    for name in ("noisy/1", "noisy/2", "clean/1", "clean/2"):
        path = tmp_path / f"recordings/{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * torch.randn(40_000).numpy(), 16_000)
    soundfile.write(tmp_path / "noisy.wav", 0.1 * torch.randn(9000).numpy(), 44_100)
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*parts: str) -> dict:
    names: dict = {}
    for block in BLOCKS:
        if any(part in block for part in parts):
            exec(compile(block, README, "exec"), names)
    return names


def test_recordings_arrays_and_memory(home):
    names = run("FRCRN.from_pretrained", "io.BytesIO")
    assert soundfile.info(home / "clean.wav").samplerate == 16_000
    assert (names["rate"], names["audio"].shape) == (16_000, (1, 16_000))


def test_training_on_recordings_of_ones_own(home):
    run("FRCRN.from_pretrained", "io.BytesIO", "train(")
    assert (home / "runs/mine/model.safetensors").is_file()


@needs("onnx", "onnxruntime", "onnxscript")
@pytest.mark.slow
def test_export(home, unchecked):
    assert len(BLOCKS) == 5
    run("")
    words = ["export", "speech/frcrn", "again", "--weights", "FRCRN_SE_16K"]
    build_app()(words, result_action="return_value")
    assert {file.name for file in (home / "again").iterdir()} == {
        file.name for file in (home / "exported").iterdir()
    }
