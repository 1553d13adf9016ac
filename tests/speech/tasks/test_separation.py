"""The separation experiment: what is mixed, what scores it, and that its baseline is itself."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torchaudio.models import conv_tasnet_base

from sixfold.core import UserError
from sixfold.core.config import Config
from sixfold.core.data.fetch import available, fetch
from sixfold.core.training.sampling import default_collate
from sixfold.speech import ConvTasNet, ConvTasNetConfig
from sixfold.speech.audio.files import read_audio
from sixfold.speech.data import separation as separation_data
from sixfold.speech.data.recordings import LIBRI2MIX
from sixfold.speech.data.separation import (
    PAIR,
    PROMPTS,
    SAMPLE_RATE,
    Pairs,
    SeparationData,
    fetch_examples,
    mix,
    prepare,
    read_examples,
    read_test,
)
from sixfold.speech.models.conv_tasnet import convert
from sixfold.speech.tasks.separation import (
    OTHER_VOICES,
    TASK,
    ideal_ratio_mask,
    loss,
    network,
    ordered,
    score,
    score_separator,
    si_sdri,
)

MIRROR = os.environ.get("SIXFOLD_MIRROR") or str(Path(__file__).parents[4] / "shared" / "data")
TINY = ConvTasNetConfig(
    features=8, kernel_size=8, channels=8, hidden=8, layers=2, stacks=1, mask="relu"
)


def tiny(**changes) -> ConvTasNet:
    torch.manual_seed(0)
    return ConvTasNet(TINY.model_copy(update=changes))


def measured(reference: str, folder: Path, samples: Path | None = None) -> dict[str, float]:
    scores = TASK.references[reference](folder, samples)
    return {name: value for name, value in scores.items() if value is not None}


def voice(seconds: float, seed: int) -> torch.Tensor:
    """Make noise that comes and goes."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return 0.05 * torch.randn(len(time), generator=generator) * (7 * time + seed).sin()


def invented(source: str, split: str) -> dict[str, dict[str, torch.Tensor]]:
    first = 0 if split == "train" else 100
    return {
        speaker: {f"{split} {k}": voice(3, first + 10 * n + k) for k in range(2)}
        for n, speaker in enumerate(("one", "two"))
    }


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Invented voices where the built-in ones would be."""
    pytest.importorskip("espeakng_loader")  # its version is in the manifest
    monkeypatch.setattr(separation_data, "read", invented)
    prepare(SeparationData(test_clips=4), "builtin", 0, tmp_path / "separation")
    return tmp_path / "separation"


@pytest.fixture(scope="module")
def mirror():
    """The published recordings, wherever they are."""
    with pytest.MonkeyPatch.context() as patch:
        if Path(MIRROR).is_dir():
            patch.setenv("SIXFOLD_MIRROR", MIRROR)
        if not (available(LIBRI2MIX) and available(PROMPTS)):
            pytest.skip("neither cache nor mirror (SIXFOLD_MIRROR) hold the published recordings")
        yield


def test_sources_sum_to_the_mixture_at_their_ratio():
    for ratio_db in (-2.5, 0.0, 2.5):
        mixture, sources = mix(voice(1, 0), 7 * voice(1, 1), ratio_db)
        torch.testing.assert_close(sources.sum(0), mixture)
        powers = sources.square().mean(1)
        assert float(10 * (powers[0] / powers[1]).log10()) == pytest.approx(ratio_db, abs=1e-3)


def test_training_items_follow_from_index_and_generator_alone(prepared):
    pairs = Pairs(prepared, SeparationData(seconds=0.5))

    def item(index: int, seed: int) -> dict[str, torch.Tensor]:
        return pairs.sample(index, torch.Generator().manual_seed(seed))

    assert item(3, 0)["sources"].shape == (2, SAMPLE_RATE // 2)
    assert torch.equal(item(3, 0)["mixture"], item(3, 0)["mixture"])
    assert torch.equal(item(3, 0)["sources"][0], item(3, 1)["sources"][0])
    assert not torch.equal(item(3, 0)["sources"][1], item(3, 1)["sources"][1])
    assert not torch.equal(item(3, 0)["sources"][0], item(4, 0)["sources"][0])


def test_pauses_are_no_training_crops(monkeypatch, tmp_path, prepared):
    def paused(source: str, split: str) -> dict[str, dict[str, torch.Tensor]]:
        talk = invented(source, split)
        for own in talk.values():
            own["pause"] = 1e-4 * voice(2, 7)
        return talk

    before = len(Pairs(prepared, SeparationData(seconds=0.5)))
    monkeypatch.setattr(separation_data, "read", paused)
    prepare(SeparationData(test_clips=4), "builtin", 0, tmp_path / "paused")
    pairs = Pairs(tmp_path / "paused", SeparationData(seconds=0.5))
    assert before < len(pairs) < before + 5  # those at the edge of the pause hold speech
    generator = torch.Generator().manual_seed(0)
    for n in range(len(pairs)):
        assert float(pairs.sample(n, generator)["sources"].std(1).min()) > 1e-3


def test_the_same_settings_give_the_same_bytes(prepared):
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in prepared.iterdir()}

    before = contents()
    prepare(SeparationData(test_clips=4), "builtin", 0, prepared)
    assert contents() == before
    prepare(SeparationData(test_clips=4), "builtin", 1, prepared)
    assert contents()["test.safetensors"] != before["test.safetensors"]
    assert contents()["train.safetensors"] == before["train.safetensors"]


def test_real_splits_share_no_recording(mirror):
    train, test = (separation_data.read("real", split) for split in ("train", "test"))
    assert list(train) == list(test) == list(PAIR)
    for speaker in PAIR:
        assert len(test[speaker]) == 5
        assert max(train[speaker]) < min(test[speaker])  # by name
        everything = sum(file.path.startswith(f"{speaker}/") for file in PROMPTS.files)
        assert len(train[speaker]) + len(test[speaker]) == everything


def test_builtin_voices_say_other_sentences_in_the_test():
    pytest.importorskip("espeakng_loader")
    train, test = (separation_data.read("builtin", split) for split in ("train", "test"))
    assert list(train) == list(test)
    for speaker, own in test.items():
        assert 60 < sum(map(len, train[speaker].values())) / SAMPLE_RATE < 120
        for audio in own.values():
            assert 1 < len(audio) / SAMPLE_RATE < 7
            assert audio.isfinite().all()


def test_the_published_score_is_reproduced(mirror):
    """The paper says 21.7 dB SI-SDRi for its test set; these are 20 mixtures of 3000."""
    gains = [si_sdri(ordered(x["estimates"], x["sources"]), x) for x in fetch_examples()]
    assert len(gains) == 20
    assert sum(gains) / 20 == pytest.approx(21.35, abs=0.01)


def test_prepared_examples_are_those_fetched(mirror, tmp_path, monkeypatch):
    items = fetch_examples()[:2]
    monkeypatch.setattr(separation_data, "fetch_examples", lambda: items)
    monkeypatch.setattr(separation_data, "read", invented)
    prepare(SeparationData(test_clips=1, test_seconds=1), "real", 0, tmp_path / "separation")
    for found, expected in zip(read_examples(tmp_path / "separation"), items, strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    samples = tmp_path / "samples"
    samples.mkdir()
    published = measured("published", tmp_path / "separation", samples)
    assert published["si_sdri"] > 20
    assert published[OTHER_VOICES] > 20
    assert published["sdri"] > 20
    assert read_audio(samples / "mixture-0.wav")[1] == SAMPLE_RATE
    mixture = TASK.references["mixture"](tmp_path / "separation", None)
    assert mixture["si_sdri"] == mixture["sdri"] == mixture[OTHER_VOICES] == 0
    ideal = measured("ideal_ratio_mask", tmp_path / "separation")
    assert ideal["si_sdri"] > 3
    assert 9 < ideal[OTHER_VOICES] < published["si_sdri"]
    manifest = json.loads((tmp_path / "separation" / "manifest.json").read_text())
    assert set(manifest["sets"]) == {"asterisk_prompts_16k", "libri2mix_examples"}


def test_the_examples_are_named_with_home_and_licence():
    assert len(LIBRI2MIX.files) == 100
    for file in LIBRI2MIX.files:
        assert file.url is not None
        assert file.url.endswith(f"/MossFormer2_samples_Libri2Mix/{file.path}")
        assert len(bytes.fromhex(file.sha256)) == 32


def test_without_the_examples_what_needs_them_is_not_measured(prepared, tmp_path):
    assert set(TASK.references["published"](prepared, None).values()) == {None}
    with torch.inference_mode():
        scores = score_separator(prepared, tmp_path, separator=network(tiny().eval()))
    assert scores.pop(OTHER_VOICES) is None
    assert all(isinstance(value, float) for value in scores.values())
    heard = sorted(path.name for path in tmp_path.glob("*.wav"))
    assert heard == [f"clip-{n}-speaker-{k}.wav" for n in (0, 1) for k in (1, 2)]


def test_an_estimates_order_and_sign_and_level_do_not_matter(prepared):
    test = read_test(prepared)
    clip = {name: value[0] for name, value in test.items()}
    mixed = clip["sources"] + 0.1 * clip["mixture"]
    straight = score(ordered(mixed, clip["sources"]), clip)
    turned = score(ordered(-3 * mixed.flip(0), clip["sources"]), clip)
    assert turned == pytest.approx(straight, abs=1e-3)


def test_masks_share_the_mixture_out(prepared):
    test = read_test(prepared)
    clip = {name: value[0] for name, value in test.items()}
    estimates = ideal_ratio_mask(clip)
    torch.testing.assert_close(estimates.sum(0), clip["mixture"], rtol=0, atol=1e-5)
    alone = {"mixture": clip["sources"][0], "sources": clip["sources"] * torch.tensor([[1.0], [0]])}
    torch.testing.assert_close(ideal_ratio_mask(alone), alone["sources"], rtol=0, atol=1e-5)


class Fixed(nn.Module):
    """Gives what it was told to."""

    def __init__(self, estimates: torch.Tensor) -> None:
        super().__init__()
        self.estimates = estimates

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        return self.estimates


def test_solved_items_do_not_count():
    batch = default_collate([{"mixture": m, "sources": s} for m, s in [_pair(0), _pair(1)]])
    estimates = batch["sources"] + 0.1 * batch["mixture"][:, None]
    one = loss(Fixed(estimates), batch)["pit_si_snr"]
    estimates[0] = batch["sources"][0].flip(0)
    assert -25 < float(one) < -10
    alone = {name: value[1:] for name, value in batch.items()}
    expected = loss(Fixed(estimates[1:]), alone)["pit_si_snr"]
    assert loss(Fixed(estimates), batch)["pit_si_snr"] == expected


def _pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return mix(voice(0.2, seed), voice(0.2, seed + 10), 0.0)


def test_training_lowers_the_loss(prepared):
    pairs, model = Pairs(prepared, SeparationData(seconds=0.25)), tiny()
    batch = default_collate([pairs.sample(k, _generator()) for k in range(4)])
    values = []
    for _ in range(10):
        value = loss(model, batch)["pit_si_snr"]
        parameters = list(model.parameters())
        for parameter, slope in zip(
            parameters, torch.autograd.grad(value, parameters), strict=True
        ):
            parameter.data -= 0.01 * slope
        values.append(value.item())
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] - 1


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 100, 1001])
def test_conv_tasnet_keeps_the_length(samples):
    assert tiny()(torch.randn(2, samples)).shape == (2, 2, samples)


def test_torchaudios_checkpoint_becomes_ours():
    with torch.device("meta"):
        official = conv_tasnet_base(3)
    config, state = convert(official.state_dict())
    assert config == ConvTasNetConfig(speakers=3, mask="relu")
    with torch.device("meta"):
        own = ConvTasNet(config).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in state.items()}


def test_unusable_checkpoints_are_named():
    state = tiny().network.state_dict()
    with pytest.raises(UserError, match="has 2 blocks, not stacks of 8"):
        convert(state)
    state = tiny(layers=8).network.state_dict()
    del state["mask_generator.input_conv.weight"]
    with pytest.raises(UserError, match=r"nothing in it becomes '.*input_conv.weight'"):
        convert(state)


BAD = {
    "unequal lengths": (lambda f: mix(voice(1, 0), voice(2, 0), 0.0), "8000 and 16000 samples"),
    "one speaker": (
        lambda f: loss(tiny(speakers=1), Pairs(f, SeparationData()).sample(0, _generator())),
        r"Conv-TasNet takes float audio shaped \(batch, time\)",
    ),
    "one speaker of two": (
        lambda f: loss(
            tiny(speakers=1), default_collate([Pairs(f, SeparationData()).sample(0, _generator())])
        ),
        r"estimates \(1, 1, 8000\) and targets \(1, 2, 8000\) .* as many speakers",
    ),
    "lengths in the loss": (
        lambda f: loss(tiny(), {"mixture": torch.ones(1, 99), "sources": torch.ones(1, 2, 98)}),
        r"estimates \(1, 2, 99\) and targets \(1, 2, 98\)",
    ),
    "whole numbers": (lambda f: tiny()(torch.ones(1, 99).long()), "got torch.int64"),
    "no data": (
        lambda f: TASK.references["mixture"](f / "none", None),
        "make it with: sixfold prepare",
    ),
    "long crops": (lambda f: Pairs(f, SeparationData(seconds=60)), "speaker's 6.00 s"),
    "long clips": (
        lambda f: prepare(SeparationData(test_seconds=9), "builtin", 0, f),
        "no test recording of one is 9.0 s long, the longest has 3.00 s",
    ),
    "odd kernel": (
        lambda f: ConvTasNetConfig.parse({"kernel_size": 15}, "model"),
        "kernel_size 15 should be even",
    ),
}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, prepared, unchecked):
    call, message = BAD[case]
    with pytest.raises(UserError, match=message):
        call(prepared)


def test_the_task_is_whole():
    assert issubclass(SeparationData, Config)
    assert list(TASK.references) == ["mixture", "ideal_ratio_mask", "published"]


def test_a_mirror_that_is_changed_is_found_out(tmp_path, monkeypatch):
    folder = tmp_path / LIBRI2MIX.name
    folder.mkdir()
    for file in LIBRI2MIX.files:
        (folder / file.path).write_bytes(b"\0" * file.size)
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path))
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="not the published file"):
        fetch(LIBRI2MIX)
