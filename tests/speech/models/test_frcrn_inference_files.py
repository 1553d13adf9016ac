"""`sixfold run speech/frcrn`: files of any rate, length and format, written atomically."""

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from sixfold.core import UserError
from sixfold.core.cli import build_app
from sixfold.core.pipeline.measure import peak_memory
from sixfold.core.weights.convert import save_pretrained
from sixfold.speech import FRCRN, FRCRNConfig, audio
from sixfold.speech.audio import conversion
from sixfold.speech.models.frcrn import inference


def tiny(seed: int = 0, **changes) -> FRCRN:
    """Build a network with windows of 16 samples."""
    small = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8}
    torch.manual_seed(seed)
    model = FRCRN(FRCRNConfig.model_validate(small | {"memory": 3, "reduction": 2} | changes))
    return model.eval().requires_grad_(False)


@pytest.fixture
def weights(tmp_path):
    model = tiny(attention="none")
    save_pretrained(tmp_path / "weights.safetensors", model, "frcrn", model.config)
    return tmp_path / "weights.safetensors"


def recording(path, samples=3001, channels=1, rate=16_000):
    generator = torch.Generator().manual_seed(1)
    noise = 0.05 * torch.randn(samples, channels, generator=generator)
    soundfile.write(path, noise.numpy(), rate)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000])
@pytest.mark.parametrize("samples", [1, 3001])
def test_a_file_keeps_its_rate_channels_and_length(tmp_path, weights, suffix, rate, samples):
    noisy = recording(tmp_path / f"noisy{suffix}", samples, 2, rate)
    clean = tmp_path / f"clean{suffix}"
    inference.run(noisy, clean, weights=weights, chunk_s=0.1)
    before, after = soundfile.info(noisy), soundfile.info(clean)
    assert (after.frames, after.channels) == (before.frames, before.channels) == (samples, 2)
    assert (after.samplerate, after.format) == (before.samplerate, before.format)


@pytest.mark.parametrize("chunk_s", [0.05, 30.0])
def test_a_file_is_enhanced_as_a_tensor_is(tmp_path, weights, chunk_s):
    noisy = recording(tmp_path / "noisy.wav", 5000, channels=2)
    inference.run(noisy, tmp_path / "clean.wav", weights=weights, chunk_s=chunk_s)
    expected = inference.enhance(FRCRN.from_pretrained(weights), audio.read_audio(noisy)[0])
    got, _ = audio.read_audio(tmp_path / "clean.wav")
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_file_at_another_rate_is_resampled_and_back(tmp_path, weights, capsys):
    noisy = recording(tmp_path / "noisy.wav", 5000, rate=48_000)
    inference.run(noisy, tmp_path / "clean.wav", weights=weights, chunk_s=0.03)
    low, _ = audio.read_audio(noisy, 16_000)
    expected = audio.resample(
        inference.enhance(FRCRN.from_pretrained(weights), low), 16_000, 48_000
    )
    got, _ = audio.read_audio(tmp_path / "clean.wav")
    torch.testing.assert_close(got, expected[:, :5000], atol=1e-5, rtol=0)
    said = capsys.readouterr().out
    assert "1 channel(s) at 48000 Hz" in said
    assert "nothing above 8000 Hz is left" in said


def test_silence_is_no_error(tmp_path, weights):
    soundfile.write(tmp_path / "noisy.wav", torch.zeros(900).numpy(), 16_000)
    inference.run(tmp_path / "noisy.wav", tmp_path / "clean.wav", weights=weights)
    got, _ = audio.read_audio(tmp_path / "clean.wav")
    assert got.shape == (1, 900)
    assert not got.any()


def test_a_causal_network_enhances_files_too(tmp_path):
    model = tiny(causal=True)
    save_pretrained(tmp_path / "causal.safetensors", model, "frcrn", model.config)
    noisy, clean = recording(tmp_path / "noisy.wav"), tmp_path / "clean.wav"
    inference.run(noisy, clean, weights=tmp_path / "causal.safetensors", chunk_s=0.02)
    expected = inference.enhance(model, audio.read_audio(noisy)[0])
    torch.testing.assert_close(audio.read_audio(clean)[0], expected, atol=1e-5, rtol=0)


def test_memory_does_not_grow_with_the_file(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(conversion, "BLOCK", 400)

    def held(samples: int) -> int:
        noisy = recording(tmp_path / f"{samples}.wav", samples)
        return peak_memory(
            lambda: inference.run(
                noisy, tmp_path / "out.wav", weights=weights, chunk_s=400 / 16_000
            )
        )

    assert held(2400) < 1.05 * held(1200)


def broken_files(folder):
    """Write one file of each kind that cannot be enhanced; return them with their errors."""
    whole = recording(folder / "whole.wav", 20_000).read_bytes()
    flac = recording(folder / "whole.flac", 20_000).read_bytes()
    files = {
        "empty.wav": (b"", "is empty"),
        "truncated.wav": (whole[: len(whole) // 2], "cut off"),
        "truncated.flac": (flac[: len(flac) // 2], "cut off"),
        "text.wav": (b"this is no sound at all, but a text", "no sound file"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    soundfile.write(folder / "zero.wav", torch.zeros(0, 1).numpy(), 16_000)
    for name in ("nan", "inf"):
        samples = torch.zeros(5000, 1)
        samples[4000] = float(name)
        soundfile.write(folder / f"{name}.wav", samples.numpy(), 16_000, "FLOAT")
    said = {name: message for name, (_, message) in files.items()}
    said |= {"zero.wav": "holds no samples", "missing.wav": "there is no file"}
    return said | {"nan.wav": "1 of 5000 samples are NaN", "inf.wav": "are NaN or infinite"}


def test_a_broken_input_is_refused_and_nothing_is_overwritten(tmp_path, weights):
    clean = tmp_path / "clean.wav"
    clean.write_bytes(b"of yesterday")
    for name, message in broken_files(tmp_path).items():
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UserError, match=message):
            inference.run(tmp_path / name, clean, weights=weights)
        assert clean.read_bytes() == b"of yesterday"
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/clean.wav", "there is no folder .*missing; make it first"),
        ("noisy.wav/clean.wav", "there is no folder .*noisy.wav; make it first"),
        ("clean.xyz", r"write \.wav, \.flac or \.ogg, not '\.xyz'"),
        ("clean", "not 'without suffix'"),
        ("noisy.wav", "is the input"),
        ("link.wav", "is the input"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_first(tmp_path, weights, output, message):
    noisy = recording(tmp_path / "noisy.wav")
    (tmp_path / "link.wav").symlink_to(noisy)
    content = noisy.read_bytes()
    with pytest.raises(UserError, match=message):
        inference.run(noisy, tmp_path / output, weights=weights)
    assert noisy.read_bytes() == content


def test_a_folder_without_permission_is_refused(tmp_path, weights, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match="is not writable"):
        inference.run(recording(tmp_path / "noisy.wav"), tmp_path / "clean.wav", weights=weights)


@pytest.mark.parametrize("rate", [15_991, 44_101])
def test_an_odd_rate_is_kept_too(tmp_path, weights, rate):
    noisy = recording(tmp_path / "noisy.wav", rate=rate)
    inference.run(noisy, tmp_path / "clean.wav", weights=weights)
    found = soundfile.info(tmp_path / "clean.wav")
    assert (found.frames, found.samplerate) == (3001, rate)


def test_a_device_that_is_not_there_is_refused(tmp_path, weights):
    noisy = recording(tmp_path / "noisy.wav")
    with pytest.raises(UserError, match="device 'abacus' cannot be used"):
        inference.run(noisy, tmp_path / "clean.wav", weights=weights, device="abacus")


def test_a_negative_chunk_length_is_refused(tmp_path, weights):
    noisy = recording(tmp_path / "noisy.wav")
    with pytest.raises(UserError, match="chunk_s"):
        inference.run(noisy, tmp_path / "clean.wav", weights=weights, chunk_s=-1.0)


def wrong_weights(folder, weights):
    """Write checkpoints that do not fit; return them with their errors."""
    model = tiny(attention="none")
    save_pretrained(folder / "other.safetensors", model, "deftan2", model.config)
    size = FRCRNConfig.model_validate(model.config.model_dump() | {"channels": 6})
    save_pretrained(folder / "size.safetensors", model, "frcrn", size)
    content = weights.read_bytes()
    (folder / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (folder / "foreign.pt").write_bytes(b"no pickle")
    state = load_file(weights)
    state["unets.unet.linear.weight_re"] = torch.full((1, 1, 1, 1), float("nan"))
    save_file(state, folder / "nan.safetensors")
    torch.save({"conv.weight": torch.zeros(3)}, folder / "another.pt")
    return {
        "other.safetensors": "checkpoint of deftan2, not of frcrn",
        "size.safetensors": "the config says 6",
        "cut.safetensors": "damaged or no checkpoint",
        "foreign.pt": "damaged or no checkpoint",
        "nan.safetensors": "holds NaN in unets.unet.linear.weight_re",
        "another.pt": "no FRCRN checkpoint",
        "missing.pt": "there is no checkpoint",
    }


def test_weights_that_do_not_fit_are_refused_and_nothing_is_overwritten(tmp_path, weights):
    noisy, clean = recording(tmp_path / "noisy.wav"), tmp_path / "clean.wav"
    clean.write_bytes(b"of yesterday")
    for name, message in wrong_weights(tmp_path, weights).items():
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UserError, match=message):
            inference.run(noisy, clean, weights=tmp_path / name)
        assert clean.read_bytes() == b"of yesterday"
        assert sorted(tmp_path.iterdir()) == before


def test_without_weights_those_of_the_pipeline_are_taken(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noisy = recording(tmp_path / "noisy.wav")
    with pytest.raises(UserError, match=r"--weights official\.pt.*dvc repro pipelines/speech"):
        inference.run(noisy, tmp_path / "clean.wav")
    trained = tmp_path / inference.DEFAULT_WEIGHTS
    trained.parent.mkdir(parents=True)
    weights.rename(trained)
    inference.run(noisy, tmp_path / "clean.wav")
    assert (tmp_path / "clean.wav").is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("out of memory")])
def test_an_interrupted_run_leaves_no_file(tmp_path, weights, monkeypatch, error):
    noisy, clean = recording(tmp_path / "noisy.wav"), tmp_path / "clean.wav"
    clean.write_bytes(b"of yesterday")
    before, forward, calls = sorted(tmp_path.iterdir()), FRCRN.forward, []

    def failing(self, window):
        calls.append(len(list(tmp_path.glob(".sixfold-*/clean.wav"))))
        if len(calls) == 3:
            raise error
        return forward(self, window)

    monkeypatch.setattr(FRCRN, "forward", failing)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        inference.run(noisy, clean, weights=weights, chunk_s=0.02)
    assert calls == [1, 1, 1]  # the unfinished file was there, elsewhere
    assert sorted(tmp_path.iterdir()) == before
    assert clean.read_bytes() == b"of yesterday"


def test_the_command_line_runs_it(tmp_path, weights, capsys):
    noisy, clean = recording(tmp_path / "noisy.wav"), tmp_path / "clean.wav"
    words = ["run", "speech/frcrn", str(noisy), str(clean), "--weights", str(weights)]
    build_app()([*words, "--chunk-s", "0.1"], result_action="return_value")
    assert soundfile.info(clean).frames == 3001
    assert "clean.wav: written" in capsys.readouterr().out
