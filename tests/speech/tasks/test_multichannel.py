"""The multichannel experiment: its data, its references, its baseline, one tiny run of it all."""

import hashlib
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sixfold.core import UserError
from sixfold.core.pipeline.measure import macs
from sixfold.core.weights.convert import save_pretrained
from sixfold.speech import DeFTAN2, DeFTAN2Config, TFTransformer, TFTransformerConfig
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.data import multichannel as data
from sixfold.speech.data.multichannel import MultichannelData, Recordings, convolve, record
from sixfold.speech.data.recordings import SPATIALIZED, SplitRecordings
from sixfold.speech.metrics import si_sdr
from sixfold.speech.models.delay_and_sum import advance, delay_and_sum, estimate_delays
from sixfold.speech.tasks.multichannel import TASK, loss, network, score_enhancer

pytest.importorskip("pyroomacoustics")
CONFIG = MultichannelData(microphones=3, rooms=2, test_clips=2, seconds=0.4, test_seconds=0.6)
NETWORKS = {
    "deftan2": DeFTAN2(
        DeFTAN2Config(
            microphones=3, n_fft=64, blocks=1, channels=4, heads=2, head_channels=4, hidden=8
        )
    ),
    "one microphone": DeFTAN2(
        DeFTAN2Config(
            microphones=1, n_fft=64, blocks=1, channels=4, heads=2, head_channels=4, hidden=8
        )
    ),
    "transformer": TFTransformer(
        TFTransformerConfig(microphones=3, n_fft=64, blocks=1, channels=8, heads=2, hidden=8)
    ),
}


def sound(seconds: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(int(seconds * data.SAMPLE_RATE), generator=generator)


def invented(source: str, split: str, seed: int) -> SplitRecordings:
    first = 0 if split == "train" else 100
    speech = {f"{split} {n}": {"file": sound(1.5, first + n)} for n in range(2)}
    return SplitRecordings(speech, {f"{split} noise": sound(3, first + 50)})


def published() -> dict[str, Tensor]:
    clean = sound(0.6, 1)
    return {
        "noisy": clean + 0.3 * sound(0.6, 2).repeat(3, 1),
        "clean": clean,
        "enhanced": 2 * clean,
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "read", invented)
        patch.setattr(data, "_published", published)
        data.prepare(CONFIG, "real", 0, folder / "multichannel")
        data.prepare(CONFIG, "real", 0, folder / "again")
    return folder / "multichannel"


def test_the_same_seed_prepares_the_same_bytes(prepared):
    def digests(folder: Path) -> dict[str, str]:
        files = sorted(folder.iterdir())
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    names = {f"{name}.safetensors" for name in ("rooms", "train", "test", "published")}
    assert set(digests(prepared)) == names | {"manifest.json"}
    assert digests(prepared) == digests(prepared.parent / "again")


def test_the_authors_item_comes_from_their_repository_with_checksums():
    assert {file.path for file in SPATIALIZED.files} == {"noisy.wav", "target.wav", "enhanced.wav"}
    for file in SPATIALIZED.files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.url
        assert file.url.endswith(f"/audio/dns/{file.path}")


def test_a_crop_is_a_function_of_its_generator_and_holds_the_clean_sound(prepared):
    crops = Recordings(prepared, CONFIG)
    assert len(crops) == 2 * int(1.5 / 0.4)
    one, same, other = (crops.sample(0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert one["noisy"].shape == (3, 6400)
    assert one["clean"].shape == (6400,)
    assert torch.equal(one["noisy"], same["noisy"])
    assert not torch.equal(one["noisy"], other["noisy"])
    torch.testing.assert_close(level_gain(one["noisy"][0]), torch.ones(1), rtol=1e-3, atol=0)


def test_convolution_keeps_what_needs_no_past():
    x, taps = torch.randn(40, dtype=torch.double), torch.randn(2, 7, dtype=torch.double)
    expected = torch.nn.functional.conv1d(x[None, None], taps[:, None].flip(-1))[0]
    torch.testing.assert_close(convolve(x, taps), expected)
    torch.testing.assert_close(convolve(x, taps[0]), expected[0])


@pytest.mark.parametrize("snr_db", [-5.0, 10.0])
def test_a_recording_has_the_asked_ratio_at_microphone_0_and_its_direct_sound(snr_db):
    speech, noise, echo = torch.randn(3, 1000)
    room = {"speech": torch.zeros(2, 101), "noise": torch.zeros(2, 101), "direct": torch.zeros(30)}
    room["speech"][:, 20], room["direct"][20], room["noise"][:, 60] = 1.0, 1.0, echo[0]
    made = record(speech, noise, room, snr_db)
    assert made["noisy"].shape == (2, 900)
    gain = made["clean"] @ speech[80:980] / speech[80:980].square().sum()
    torch.testing.assert_close(made["clean"], gain * speech[80:980], rtol=1e-3, atol=1e-4)
    rest = made["noisy"][0] - made["clean"]
    found = 20 * torch.log10(made["clean"].norm() / rest.norm())
    assert float(found) == pytest.approx(snr_db, abs=1e-2)


@pytest.mark.parametrize("delay", [0.0, 0.3, 4.5, -7.25])
def test_a_pure_delay_is_found_and_undone(delay):
    torch.manual_seed(0)
    source = torch.randn(1, 4000)
    source = torch.nn.functional.conv1d(source, torch.hann_window(9)[None, None])  # no Nyquist
    late = advance(source, torch.tensor([-delay]))
    noisy = torch.cat([source, late]) + 1e-3 * torch.randn(2, source.shape[1])
    found = estimate_delays(noisy, 10)
    assert float(found[0]) == 0
    assert abs(float(found[1]) - delay) < 0.1
    middle = slice(20, -20)
    assert si_sdr(delay_and_sum(noisy, 10)[middle], source[0, middle]) > 25


def test_averaging_lowers_independent_noise_and_keeps_silence():
    torch.manual_seed(0)
    source = torch.randn(4000)
    summed = delay_and_sum(source + torch.randn(4, 4000), 5)
    assert si_sdr(summed, source) == pytest.approx(10 * math.log10(4), abs=0.3)
    assert torch.equal(delay_and_sum(torch.zeros(3, 100), 5), torch.zeros(100))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_trains_on_a_batch_and_is_scored(name, prepared, tmp_path):
    model, crops = NETWORKS[name].train(), Recordings(prepared, CONFIG)
    items = [crops.sample(n, torch.Generator().manual_seed(n)) for n in range(2)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    torch.stack(list(loss(model, batch).values())).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    with torch.inference_mode():
        scores = score_enhancer(prepared, tmp_path, enhance=network(model.eval()))
    assert scores["si_sdr"] is not None
    assert scores["si_sdr_published"] is not None
    assert {file.name for file in tmp_path.iterdir()} == {"clip-0.wav", "clip-1.wav"}


def test_references_are_scored_where_they_exist(prepared, tmp_path):
    found = {name: score(prepared, None) for name, score in TASK.references.items()}
    assert found["deftan2_published"]["si_sdr"] is None
    assert found["deftan2_published"]["si_sdr_published"] == float("inf")
    assert found["delay_and_sum"]["si_sdr"] != found["microphone"]["si_sdr"]
    TASK.references["microphone"](prepared, tmp_path)
    heard, _ = read_audio(tmp_path / "clean-1.wav")
    assert torch.equal(heard[0], data.read_test(prepared)["clean"][1])


@pytest.mark.slow  # the voices take seconds to speak
def test_built_in_voices_end_to_end_leave_the_authors_item_out(tmp_path):
    pytest.importorskip("espeakng_loader")
    config = CONFIG.model_copy(update={"rooms": 1, "test_clips": 1, "microphones": 2})
    data.prepare(config, "builtin", 0, tmp_path / "data")
    scores = TASK.references["delay_and_sum"](tmp_path / "data", None)
    assert scores["si_sdr"] is not None
    assert scores["si_sdr_published"] is None
    assert len(Recordings(tmp_path / "data", config)) > 0


def test_the_baseline_keeps_any_length_and_items_apart_and_its_checkpoints_come_back(tmp_path):
    tiny = TFTransformerConfig(microphones=2, n_fft=16, blocks=1, channels=4, heads=2, hidden=8)
    model = TFTransformer(tiny).eval()
    for samples in (1, 31, 100):
        noisy = torch.randn(3, 2, samples)
        enhanced = model(noisy)
        assert enhanced.shape == (3, 1, samples)
        torch.testing.assert_close(enhanced[1:2], model(noisy[1:2]), rtol=1e-4, atol=1e-5)
    save_pretrained(tmp_path / "m.safetensors", model, "tf_transformer", tiny)
    loaded = TFTransformer.from_pretrained(tmp_path / "m.safetensors")
    assert torch.equal(loaded(noisy), enhanced)
    with pytest.raises(UserError, match="10 channels do not split into 4 heads"):
        TFTransformerConfig.parse({"channels": 10}, "x")


@pytest.mark.slow
def test_the_baseline_costs_what_deftan2_costs():
    second = torch.zeros(1, 4, 16_000)
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know the fused attention of a CPU
        plain, deftan2 = (macs(network, second) for network in (TFTransformer(), DeFTAN2()))
    assert plain == pytest.approx(deftan2, rel=0.01)


def test_crops_longer_than_the_recordings_are_refused(prepared):
    with pytest.raises(UserError, match=r"crops of 2\.0 s do not fit .* 1\.50 s"):
        Recordings(prepared, CONFIG.model_copy(update={"seconds": 2.0}))
    with pytest.raises(UserError, match="sixfold prepare speech"):
        data.read_test(prepared / "nowhere")


def test_without_the_room_simulation_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "read", invented)
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(UserError, match=r"sixfold-speech\[rooms\]"):
        data.prepare(CONFIG, "builtin", 0, tmp_path / "data")
