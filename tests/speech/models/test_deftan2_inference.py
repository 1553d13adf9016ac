"""`sixfold run speech/deftan2`: recordings of an array, from file to file."""

import pytest
import soundfile
import torch

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.speech import DeFTAN2, DeFTAN2Config
from sixfold.speech.audio.files import read_audio
from sixfold.speech.models.deftan2.inference import run

TINY = DeFTAN2Config(
    microphones=2, n_fft=64, blocks=1, channels=4, heads=2, head_channels=4, hidden=8
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    save_pretrained(tmp_path / "m.safetensors", DeFTAN2(TINY), "deftan2", TINY)
    return tmp_path / "m.safetensors"


def record(path, channels: int, rate: int, samples: int):
    soundfile.write(path, 0.1 * torch.randn(samples, channels).numpy(), rate)
    return path


def test_the_output_has_the_rate_and_length_of_the_input(tmp_path, weights, capsys):
    array = record(tmp_path / "array.wav", 2, 48_000, 9601)
    run(array, tmp_path / "out.wav", weights=weights)
    audio, rate = read_audio(tmp_path / "out.wav")
    assert (audio.shape, rate) == ((1, 9601), 48_000)
    assert "2 channel(s) at 48000 Hz" in capsys.readouterr().out


def test_another_array_is_refused_and_nothing_overwritten(tmp_path, weights):
    array = record(tmp_path / "array.wav", 3, 16_000, 500)
    before = array.read_bytes()
    with pytest.raises(UserError, match=r"3 channels, .* trained for 2 microphones"):
        run(array, tmp_path / "out.wav", weights=weights)
    with pytest.raises(UserError, match="is the input"):
        run(array, array, weights=weights)
    assert array.read_bytes() == before
    assert not (tmp_path / "out.wav").exists()
