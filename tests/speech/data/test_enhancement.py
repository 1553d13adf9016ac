"""Splits are disjoint, mixtures have their ratio and level, prepared data are reproducible."""

import hashlib
import math
from pathlib import Path

import pytest
import torch
from optional_packages import needs
from property_tests import given, settings, st

from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, File, available
from sixfold.speech.audio.files import write_audio
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.data import enhancement as enhancement_data
from sixfold.speech.data import recordings, synthetic
from sixfold.speech.data.enhancement import EnhancementData, Mixtures, mix, prepare, read_test
from sixfold.speech.data.mixing import read_manifest
from sixfold.speech.data.recordings import DATASETS, SplitRecordings

RATE = recordings.SAMPLE_RATE


def sound(seconds: float, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def invented(source: str, split: str, seed: int) -> SplitRecordings:
    first = 0 if split == "train" else 100
    speech = {
        f"{split} {n}": {f"file {k}": sound(3, first + 10 * n + k) for k in range(2)}
        for n in range(2)
    }
    return SplitRecordings(
        speech, {f"{split} noise {n}": sound(5, first + 50 + n) for n in range(2)}
    )


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(enhancement_data, "read", invented)
    prepare(EnhancementData(), "real", 0, tmp_path / "speech")
    return tmp_path / "speech"


def test_the_registry_names_home_licence_and_a_checksum_of_every_file():
    for dataset in DATASETS.values():
        assert dataset.home.startswith("https://")
        assert dataset.licence
        assert dataset.citation
        assert dataset.files
        for file in dataset.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 44
            assert file.url is None or file.url.endswith("/" + file.path)
    assert [name for name, d in DATASETS.items() if d.files[0].url is None] == [
        "asterisk_prompts_16k"
    ]


def test_real_splits_share_no_speaker_no_recording_and_no_noise_site():
    train, test = recordings._REAL["train"], recordings._REAL["test"]
    for kind in ("speech", "noise"):
        taken = [
            {
                (name, file.path)
                for name, prefix in split[kind].values()
                for file in DATASETS[name].files
                if file.path.startswith(prefix)
            }
            for split in (train, test)
        ]
        assert all(taken)
        assert not taken[0] & taken[1]
        assert not set(train[kind]) & set(test[kind])
    assert not {name[:4] for name in train["noise"]} & {name[:4] for name in test["noise"]}


@needs("espeakng_loader")
def test_synthetic_test_data_share_no_speaker_and_no_noise_with_training():
    test = recordings.read("builtin", "test", 0)
    assert set(test.speech) == set(synthetic.TEST_VOICES)
    assert not set(test.speech) & set(synthetic.TRAIN_VOICES)
    assert not set(test.noise) & set(recordings._train_noise(0))
    for audio in test.noise.values():
        assert len(audio) == 30 * RATE
        assert audio.isfinite().all()
    for own in test.speech.values():
        assert all(1 < len(audio) / RATE < 7 for audio in own.values())


def test_real_recordings_are_read_resampled_and_sorted_to_speakers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = {
        "asterisk_prompts_16k": ("fr/a.wav", "fr/b.wav", "en/a.wav"),
        "vctk_p234_and_noise_48k": ("speech/p234_1.wav", "noise/ch08_sm001.wav"),
        "small_examples": ("LJ001-1.wav",),
    }
    sets = {}
    for name, names in paths.items():
        files = []
        for n, path in enumerate(names):
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_audio(target, sound(1, n)[None], 16000 if "asterisk" in name else 48000)
            content = target.read_bytes()
            files.append(File(path, hashlib.sha256(content).hexdigest(), len(content)))
        sets[name] = Dataset(name, "", "", "", tuple(files))
    monkeypatch.setattr(recordings, "DATASETS", sets)
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path))
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    test = recordings.read("real", "test", 0)
    assert {speaker: list(own) for speaker, own in test.speech.items()} == {
        "fr": ["fr/a.wav", "fr/b.wav"],
        "p234": ["speech/p234_1.wav"],
        "lj": ["LJ001-1.wav"],
    }
    assert list(test.noise) == ["noise/ch08_sm001.wav"]
    assert len(test.speech["fr"]["fr/a.wav"]) == RATE
    assert len(test.noise["noise/ch08_sm001.wav"]) == math.ceil(RATE / 3)


def test_real_data_without_a_mirror_name_the_missing_file_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path))
    monkeypatch.delenv("SIXFOLD_MIRROR", raising=False)
    monkeypatch.setattr("socket.socket", None)
    assert not any(map(available, DATASETS.values()))
    with pytest.raises(UserError, match=r"asterisk_prompts_16k/.* cannot be downloaded"):
        prepare(EnhancementData(), "real", 0, tmp_path / "speech")


def test_the_sets_are_available_where_every_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for dataset in DATASETS.values():
        for file in dataset.files:
            path = tmp_path / dataset.name / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path))
    assert all(map(available, DATASETS.values()))
    path.unlink()
    assert not all(map(available, DATASETS.values()))


@settings(deadline=None, max_examples=30)
@given(snr_db=st.floats(-20, 30), speech_level=st.floats(1e-3, 1), noise_level=st.floats(1e-3, 1))
def test_mixtures_have_their_snr_and_the_working_level(snr_db, speech_level, noise_level):
    noisy, clean = mix(speech_level * sound(0.2, 1), noise_level * sound(0.2, 2), snr_db)
    ratio = clean.norm() / (noisy - clean).norm()
    assert 20 * math.log10(ratio) == pytest.approx(snr_db, abs=0.05)
    assert float(level_gain(noisy)) == pytest.approx(1, abs=1e-3)


def test_equal_settings_give_equal_bytes(prepared: Path):
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in prepared.iterdir()}

    before = contents()
    prepare(EnhancementData(), "real", 0, prepared)
    assert contents() == before
    assert set(before) == {"manifest.json", "test.safetensors", "train.safetensors"}
    assert [path.name for path in prepared.parent.iterdir()] == ["speech"]
    prepare(EnhancementData(), "real", 1, prepared)
    assert contents()["test.safetensors"] != before["test.safetensors"]


def test_the_manifest_describes_the_test_clips(prepared: Path):
    manifest, clips = read_manifest(prepared), read_test(prepared)
    assert manifest["source"] == "real"
    assert set(manifest["sets"]) == set(DATASETS)
    assert clips["noisy"].shape == clips["clean"].shape == (24, int(2.5 * RATE))
    rows = manifest["test"]["clips"]
    for row, noisy, clean in zip(rows, clips["noisy"], clips["clean"], strict=True):
        snr_db = 20 * math.log10(clean.norm() / (noisy - clean).norm())
        assert snr_db == pytest.approx(row["snr_db"], abs=0.01)
        assert 0 <= row["snr_db"] <= 5
        assert row["speaker"] in manifest["test"]["speech"]
        assert row["noise"] in manifest["test"]["noise"]
        assert row["speaker"] not in manifest["train"]["speech"]
        assert row["noise"] not in manifest["train"]["noise"]


def test_training_items_follow_from_index_and_generator_alone(prepared: Path):
    mixtures = Mixtures(prepared, EnhancementData(seconds=0.5))

    def item(index: int, seed: int) -> dict[str, torch.Tensor]:
        return mixtures.sample(index, torch.Generator().manual_seed(seed))

    assert item(3, 0)["noisy"].shape == item(3, 0)["clean"].shape == (RATE // 2,)
    assert torch.equal(item(3, 0)["noisy"], item(3, 0)["noisy"])
    assert not torch.equal(item(3, 0)["noisy"], item(3, 1)["noisy"])
    assert not torch.equal(item(3, 0)["clean"], item(4, 0)["clean"])


def test_an_epoch_covers_every_speaker_at_every_snr(prepared: Path):
    mixtures = Mixtures(prepared, EnhancementData(seconds=0.5, snr_db=(-5, 10)))
    assert len(mixtures) == 2 * 2 * 3 * 2
    generator = torch.Generator().manual_seed(0)
    snrs = []
    for index in range(len(mixtures)):
        item = mixtures.sample(index, generator)
        noise = item["noisy"] - item["clean"]
        snrs.append(20 * math.log10(item["clean"].norm() / noise.norm()))
    assert -5.1 < min(snrs) < -2
    assert 7 < max(snrs) < 10.1


def test_recordings_that_are_too_short_are_named(prepared: Path):
    with pytest.raises(UserError, match=r"crops of 60.0 s .* of 5\.00 s"):
        Mixtures(prepared, EnhancementData(seconds=60))
    with pytest.raises(UserError, match=r"no recording of test 0 is 4.0 s long, .* 3\.00 s"):
        prepare(EnhancementData(test_seconds=4), "real", 0, prepared)
    with pytest.raises(UserError, match=r"no noise recording is 9.0 s long, .* 5\.00 s"):
        prepare(EnhancementData(test_seconds=9), "real", 0, prepared)


def test_folders_that_are_missing_or_cannot_be_written_are_user_errors(
    prepared: Path, tmp_path: Path
):
    with pytest.raises(UserError, match="make it with: sixfold prepare speech"):
        Mixtures(tmp_path / "none", EnhancementData())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*speech"):
        prepare(EnhancementData(), "real", 0, tmp_path / "file" / "speech")


def test_unknown_settings_are_refused():
    with pytest.raises(UserError, match="did you mean 'test_clips'"):
        EnhancementData.parse({"test_clip": 3}, "params.yaml")
