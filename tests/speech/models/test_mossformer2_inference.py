"""Separation of recordings of any length: tensors, and files."""

import pytest
import soundfile
import torch
from reference_mossformer2 import ReferenceMossFormer2

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.speech import MossFormer2, MossFormer2Config
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.stitching import separate_windows
from sixfold.speech.models.mossformer2.export import exportable
from sixfold.speech.models.mossformer2.inference import (
    in_bf16,
    load,
    run,
    separate,
    with_aligned_polarity,
)

RATE = 1000
TINY = MossFormer2Config(
    channels=8, kernel_size=4, blocks=1, group=64, key_channels=6, memory_channels=4, memory=3
)


def test_one_window_is_one_pass():
    torch.manual_seed(0)
    model = MossFormer2(TINY.model_copy(update={"sample_rate": RATE})).eval()
    mixture = torch.randn(5 * RATE)
    with torch.no_grad():
        expected = with_aligned_polarity(model)(mixture[None])[0]
    assert torch.equal(separate(model, mixture, RATE), expected)


def test_speakers_are_tracked_though_one_output_is_inverted():
    """The second output of the released network is inverted."""
    voices = torch.randn(2, 30 * RATE) * (1 + torch.arange(2)[:, None])
    mixture, windows = voices.sum(0), []

    def oracle(window: torch.Tensor) -> torch.Tensor:
        first = int((mixture == window[0, 0]).nonzero()[0, 0])
        windows.append(first)
        order = [0, 1] if len(windows) % 2 else [1, 0]
        there = voices[order, first : first + window.shape[-1]]
        return (there * torch.tensor([[1.0], [-1.0]]))[None]

    joined = separate_windows(with_aligned_polarity(oracle), mixture, RATE, 8.0)
    assert len(windows) > 3
    assert torch.allclose(joined, voices, atol=1e-5)


def test_files_keep_their_rate_and_length(tmp_path, capsys):
    torch.manual_seed(0)
    save_pretrained(tmp_path / "m.safetensors", MossFormer2(TINY), "mossformer2", TINY)
    soundfile.write(tmp_path / "mix.wav", 0.1 * torch.randn(4410).numpy(), 44_100)
    run(tmp_path / "mix.wav", tmp_path / "out", weights=tmp_path / "m.safetensors")
    assert "resampled to 8000 Hz" in capsys.readouterr().out
    for number in (1, 2):
        audio, rate = read_audio(tmp_path / "out" / f"speaker-{number}.wav")
        assert (audio.shape, rate) == ((1, 4410), 44_100)


def test_bf16_costs_a_hundredth_of_the_amplitude():
    """The error is 40 dB below the signal, with random weights."""
    torch.manual_seed(0)
    model, mixture = MossFormer2(TINY).eval(), 0.1 * torch.randn(1, 400)
    with torch.no_grad():
        exact, rough = model(mixture), in_bf16(model)(mixture)
    assert rough.dtype == torch.float32
    ratio = 10 * torch.log10(exact.square().sum() / (rough - exact).square().sum())
    assert 30 < float(ratio) < 60  # neither equal to float32 nor far off


def test_bf16_needs_a_cpu_with_amx(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    soundfile.write(tmp_path / "mix.wav", 0.1 * torch.randn(2000).numpy(), 8000)
    save_pretrained(tmp_path / "m.safetensors", MossFormer2(TINY), "mossformer2", TINY)
    files = tmp_path / "mix.wav", tmp_path / "out"
    with pytest.raises(UserError, match="CPU with AMX, which this one lacks"):
        run(*files, weights=tmp_path / "m.safetensors", precision="bf16")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    run(*files, weights=tmp_path / "m.safetensors", precision="bf16")
    rough, _ = read_audio(tmp_path / "out" / "speaker-1.wav")
    run(*files, weights=tmp_path / "m.safetensors")
    exact, _ = read_audio(tmp_path / "out" / "speaker-1.wav")
    ratio = 10 * torch.log10(exact.square().sum() / (rough - exact).square().sum())
    assert 25 < float(ratio) < 60  # neither equal to float32 nor far off


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: separate(m, torch.zeros(9), 16_000), "taken for 8000 Hz; the audio is at 16000"),
        (lambda m: separate(m, torch.zeros(2, 9), 8000), r"shaped \(time,\) or .*got \(2, 9\)"),
        (lambda m: separate(m, torch.full((99,), torch.nan), 8000), "99 of 99 samples are NaN"),
        (lambda m: separate(m, torch.zeros(99), 8000, 4.0), "above 4.0; got 4.0"),
    ],
)
def test_bad_input_is_named(call, message, unchecked):
    with pytest.raises(UserError, match=message):
        call(MossFormer2(TINY).eval())


def official_checkpoint(folder):
    """Write a checkpoint with official keys, which say nothing of the sample rate."""
    torch.manual_seed(0)
    sizes = {"channels": 8, "blocks": 1, "speakers": 2, "kernel_size": 4, "group": 64, "key": 6}
    folder.mkdir()
    network = ReferenceMossFormer2(**sizes, inner=4)
    torch.save(network.state_dict(), folder / "last_best_checkpoint.pt")
    return folder / "last_best_checkpoint.pt"


def test_a_sample_rate_that_nobody_said_is_asked_for(tmp_path):
    soundfile.write(tmp_path / "mix.wav", 0.1 * torch.randn(2000).numpy(), 16_000)
    weights = official_checkpoint(tmp_path / "anywhere")
    files = tmp_path / "mix.wav", tmp_path / "out"
    with pytest.raises(UserError, match=r"--sample-rate 8000 .* or --sample-rate 16000"):
        run(*files, weights=weights)
    with pytest.raises(UserError, match="--sample-rate 8000"):
        exportable(MossFormer2.from_pretrained(weights))
    for rate in (0, -8000):
        with pytest.raises(UserError, match=r"sample_rate: .* greater than 0"):
            run(*files, weights=weights, sample_rate=rate)
    assert not (tmp_path / "out").exists()
    run(*files, weights=weights, sample_rate=16_000)
    expected = separate(
        MossFormer2.from_pretrained(weights, sample_rate=16_000),
        read_audio(tmp_path / "mix.wav")[0][0],
        16_000,
    )
    found = read_audio(tmp_path / "out" / "speaker-1.wav")[0]
    torch.testing.assert_close(found, expected[:1], rtol=0, atol=1e-6)


def test_the_released_weights_know_their_sample_rate(tmp_path):
    weights = official_checkpoint(tmp_path / "MossFormer2_SS_16K")
    assert load(weights).config.sample_rate == 16_000
    assert MossFormer2.from_pretrained(weights).config.sample_rate == 16_000


def test_audio_at_another_rate_names_both_mends(tmp_path):
    model = MossFormer2.from_pretrained(official_checkpoint(tmp_path / "anywhere"))
    with pytest.raises(UserError, match=r"from_pretrained\(path, sample_rate=16000\).*resample"):
        separate(model, torch.zeros(99), 16_000)
    known = MossFormer2(TINY.model_copy(update={"sample_rate": 8000})).eval()
    with pytest.raises(UserError, match=r"works at 8000 Hz, the audio is at 16000 Hz; use .*resam"):
        separate(known, torch.zeros(99), 16_000)


def test_two_channels_and_a_file_for_a_folder_are_refused_before_the_work(tmp_path):
    save_pretrained(tmp_path / "m.safetensors", MossFormer2(TINY), "mossformer2", TINY)
    weights = tmp_path / "m.safetensors"
    soundfile.write(tmp_path / "stereo.wav", torch.zeros(100, 2).numpy(), 8000)
    soundfile.write(tmp_path / "mono.wav", torch.zeros(100).numpy(), 8000)
    with pytest.raises(UserError, match="2 channels, separation takes one"):
        run(tmp_path / "stereo.wav", tmp_path / "out", weights=weights)
    with pytest.raises(UserError, match="is a file; name a folder"):
        run(tmp_path / "mono.wav", tmp_path / "stereo.wav", weights=weights)
