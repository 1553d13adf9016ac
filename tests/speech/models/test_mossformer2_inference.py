"""Long recordings are separated without swaps; files in, files out."""

import pytest
import soundfile
import torch

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.speech import MossFormer2, MossFormer2Config
from sixfold.speech.audio.files import read_audio
from sixfold.speech.models.mossformer2.inference import (
    in_bf16,
    join,
    run,
    separate,
    separate_windows,
    upright,
)

RATE = 1000
TINY = MossFormer2Config(
    channels=8, kernel_size=4, blocks=1, group=64, key_channels=6, memory_channels=4, memory=3
)


class Oracle:
    """Separate perfectly, each window's speakers in another order."""

    def __init__(self, sources: torch.Tensor, *, shuffled: bool) -> None:
        self.sources, self.mixture, self.shuffled = sources, sources.sum(0), shuffled
        self.calls = 0

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        length = window.shape[1]
        starts = self.mixture.unfold(0, length, 1)
        first = int((starts - window).abs().sum(1).argmin())
        found = self.sources[:, first : first + length]
        self.calls += 1
        return (found.flip(0) if self.shuffled and self.calls % 2 == 0 else found)[None]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("seconds", [1.0, 2.0, 2.001, 3.0, 8.0, 8.5, 31.7])
def test_speakers_do_not_swap_at_the_seams(shuffled, seconds):
    sources = torch.randn(2, round(seconds * RATE), generator=torch.Generator().manual_seed(0))
    oracle = Oracle(sources, shuffled=shuffled)
    found = separate_windows(oracle, sources.sum(0), RATE, 8.0)
    assert oracle.calls == max(1, -(-round((seconds - 2) * RATE) // 6000))
    torch.testing.assert_close(found, sources, rtol=1e-5, atol=1e-5)


def test_a_speaker_who_pauses_keeps_their_track():
    """One of two is silent in the overlap: the other's correlation decides."""
    generator = torch.Generator().manual_seed(0)
    before, window = torch.randn(2, 2, 50, generator=generator).unbind(0)
    window[0, :20] = before[1, -20:] = 0
    window[1, :20] = before[0, -20:]
    joined = join(before, window, 20)
    assert torch.equal(joined[:, 50:], window.flip(0)[:, 20:])


def test_one_window_is_one_pass():
    torch.manual_seed(0)
    model = MossFormer2(TINY.model_copy(update={"sample_rate": RATE})).eval()
    mixture = torch.randn(5 * RATE)
    with torch.no_grad():
        expected = upright(model)(mixture[None])[0]
    assert torch.equal(separate(model, mixture, RATE), expected)


def test_speakers_that_change_outputs_upside_down_are_told_apart():
    """As the released network's do: its second output is upside down."""
    voices = torch.randn(2, 30 * RATE) * (1 + torch.arange(2)[:, None])
    mixture, windows = voices.sum(0), []

    def oracle(window: torch.Tensor) -> torch.Tensor:
        first = int((mixture == window[0, 0]).nonzero()[0, 0])
        windows.append(first)
        order = [0, 1] if len(windows) % 2 else [1, 0]
        there = voices[order, first : first + window.shape[-1]]
        return (there * torch.tensor([[1.0], [-1.0]]))[None]

    joined = separate_windows(upright(oracle), mixture, RATE, 8.0)
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
    """The error is 40 dB below the signal, with weights as they are drawn."""
    torch.manual_seed(0)
    model, mixture = MossFormer2(TINY).eval(), 0.1 * torch.randn(1, 400)
    with torch.no_grad():
        exact, rough = model(mixture), in_bf16(model)(mixture)
    assert rough.dtype == torch.float32
    ratio = 10 * torch.log10(exact.square().sum() / (rough - exact).square().sum())
    assert 30 < float(ratio) < 60  # not as it were, and not float32 under another name


def test_bf16_wants_a_cpu_with_amx(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    soundfile.write(tmp_path / "mix.wav", 0.1 * torch.randn(2000).numpy(), 8000)
    save_pretrained(tmp_path / "m.safetensors", MossFormer2(TINY), "mossformer2", TINY)
    files = {"input": tmp_path / "mix.wav", "folder": tmp_path / "out"}
    with pytest.raises(UserError, match="CPU with AMX, which this one lacks"):
        run(**files, weights=tmp_path / "m.safetensors", precision="bf16")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    run(**files, weights=tmp_path / "m.safetensors", precision="bf16")
    assert read_audio(tmp_path / "out" / "speaker-1.wav")[0].shape == (1, 2000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: separate(m, torch.zeros(9), 16_000), "works at 8000 Hz, the audio is at 16000"),
        (lambda m: separate(m, torch.zeros(1, 9), 8000), r"shaped \(time,\), got \(1, 9\)"),
        (lambda m: separate(m, torch.full((99,), torch.nan), 8000), "mixture"),
        (lambda m: separate(m, torch.zeros(99), 8000, 4.0), "above 4.0; got 4.0"),
    ],
)
def test_bad_input_is_named(call, message, unchecked):
    with pytest.raises(UserError, match=message):
        call(MossFormer2(TINY).eval())


def test_two_channels_and_a_file_for_a_folder_are_refused_before_the_work(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", torch.zeros(100, 2).numpy(), 8000)
    soundfile.write(tmp_path / "mono.wav", torch.zeros(100).numpy(), 8000)
    with pytest.raises(UserError, match="2 channels, separation takes one"):
        run(tmp_path / "stereo.wav", tmp_path / "out", weights=tmp_path / "no.pt")
    with pytest.raises(UserError, match="is a file; name a folder"):
        run(tmp_path / "mono.wav", tmp_path / "mono.wav", weights=tmp_path / "no.pt")
