"""One's own recordings in the layouts that people have, and what is said of misfits."""

import os

import pytest
import torch

from sixfold.core import UserError
from sixfold.speech.audio import write_audio
from sixfold.speech.data.crops import CropConfig, Crops, hold_out
from sixfold.speech.data.layouts import open_layout


def write(path, samples=800, sample_rate=8000, channels=1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    audio = 0.1 * torch.randn(channels, samples, generator=generator)
    write_audio(path, audio, sample_rate)
    return path


def names(layout):
    return [(i.input.name, *(t.parent.name for t in i.targets)) for i in layout.items]


def test_voicebank(tmp_path):
    for part in ("trainset_28spk_wav", "testset_wav"):
        for name in ("p226_001.wav", "p226_002.wav"):
            for kind in ("noisy", "clean"):
                write(tmp_path / f"{kind}_{part}" / name)
    clean = "clean_trainset_28spk_wav"
    assert names(open_layout(tmp_path, 1)) == [("p226_001.wav", clean), ("p226_002.wav", clean)]


def test_dns_challenge_names(tmp_path):
    write(tmp_path / "noisy" / "book_snr5_fileid_3.wav")
    write(tmp_path / "clean" / "clean_fileid_3.wav")
    (item,) = open_layout(tmp_path, 1).items
    assert item.targets[0].name == "clean_fileid_3.wav"


@pytest.mark.parametrize("mix", ["mix", "mix_clean", "mix_both"])
def test_librimix_and_wsj0(tmp_path, mix):
    for folder in (mix, "s1", "s2"):
        write(tmp_path / folder / "a_b.wav")
    assert names(open_layout(tmp_path, 2)) == [("a_b.wav", "s1", "s2")]


@pytest.mark.parametrize(
    "columns",
    ["mixture_path,source_1_path,source_2_path", "mix_wav,s1_wav,s2_wav", "mixture,S1,S2"],
)
def test_csv_of_mixtures(tmp_path, columns):
    for name in ("m.wav", "x.wav", "y.wav"):
        write(tmp_path / name)
    table = tmp_path / "table.csv"
    table.write_text(f"id,{columns},length\n7,m.wav,x.wav,{tmp_path / 'y.wav'},800\n")
    (item,) = open_layout(table, 2).items
    assert [p.name for p in (item.input, *item.targets)] == ["m.wav", "x.wav", "y.wav"]


def test_csv_of_pairs(tmp_path):
    write(tmp_path / "n.wav")
    write(tmp_path / "c.wav")
    (tmp_path / "t.csv").write_text("noisy,clean\nn.wav,c.wav\n")
    assert len(open_layout(tmp_path / "t.csv", 1).items) == 1


def test_scp(tmp_path):
    noisy, clean = write(tmp_path / "n.wav"), write(tmp_path / "c.wav")
    (tmp_path / "train.scp").write_text(f"{noisy} {clean} 0.1\n\n")
    assert len(open_layout(tmp_path / "train.scp", 1).items) == 1
    (tmp_path / "noisy.scp").write_text("utt1 n.wav\n")
    (tmp_path / "clean.scp").write_text(f"utt1 {clean}\n")
    assert len(open_layout(tmp_path, 1).items) == 1


def test_clean_and_noise_are_mixed_at_the_asked_ratio(tmp_path):
    write(tmp_path / "clean" / "a.wav", samples=16000)
    write(tmp_path / "noise" / "deep" / "n.wav", samples=1000, sample_rate=16000, seed=1)
    layout = open_layout(tmp_path, 1)
    crops = Crops(layout, 8000, CropConfig(seconds=0.5, snr_db=(3.0, 3.0)))
    crop = crops.sample(0, torch.Generator().manual_seed(0))
    clean, noise = crop["targets"][0], crop["input"][0] - crop["targets"][0]
    assert float(20 * torch.log10(clean.norm() / noise.norm())) == pytest.approx(3.0, abs=1e-3)


def test_crops_are_cut_at_one_place_resampled_and_padded(tmp_path):
    write(tmp_path / "mix" / "a.wav", samples=16000, channels=2)
    write(tmp_path / "s1" / "a.wav", samples=16000, channels=2)
    write(tmp_path / "mix" / "b.wav", samples=800, channels=2)
    write(tmp_path / "s1" / "b.wav", samples=800, channels=2)
    crops = Crops(open_layout(tmp_path, 1), 16000, CropConfig(seconds=0.25))
    crop = crops.sample(0, torch.Generator().manual_seed(5))
    assert crop["input"].shape == (2, 4000)
    assert crop["targets"].shape == (1, 4000)
    assert torch.equal(crop["targets"][0], crop["input"][0])  # the same file, the same place
    short = crops.sample(1, torch.Generator().manual_seed(5))
    assert not short["input"][:, 1600:].any()
    whole = list(crops.recordings())
    assert [tuple(x.shape) for x, _ in whole] == [(2, 32000), (2, 1600)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole, crops.recordings(), strict=True))


def test_what_is_held_out_is_not_trained_on(tmp_path):
    for number in range(10):
        for folder in ("noisy", "clean"):
            write(tmp_path / folder / f"{number}.wav")
    train, valid = hold_out(open_layout(tmp_path, 1), 0.2, seed=0)
    assert len(train.items) == 8
    assert len(valid.items) == 2
    assert not {i.input for i in train.items} & {i.input for i in valid.items}
    assert hold_out(open_layout(tmp_path, 1), 0.2, seed=0) == (train, valid)


def test_faults_are_named(tmp_path):
    def fault(message, targets=1, place=tmp_path):
        with pytest.raises(UserError, match=message):
            open_layout(place, targets)

    fault("there is no .*nowhere", place=tmp_path / "nowhere")
    fault(r"should hold noisy\*/ with clean\*/.*it holds no folders")
    fault(r"should hold mix\*/ with s1/, s2/", targets=2)
    os.mkfifo(tmp_path / "pipe")
    fault("pipe is no .csv", place=tmp_path / "pipe")
    write(tmp_path / "noisy" / "a.wav")
    (tmp_path / "clean").mkdir()
    fault("clean holds no sound files")
    write(tmp_path / "clean" / "b.wav")
    fault("2 recordings .* have no partner of the same name .* 'a' in .*noisy")
    (tmp_path / "clean" / "b.wav").rename(tmp_path / "clean" / "a.wav")
    write(tmp_path / "clean" / "a.wav", samples=700)
    fault("has 800 samples at 8000 Hz, its target .* 700 at 8000 Hz")
    (tmp_path / "clean" / "a.wav").write_bytes(b"")
    fault("a.wav is empty")
    table = tmp_path / "t.csv"
    table.write_text("noisy,length\n")
    fault("no column of the target .e.g. clean.; it has: noisy, length", place=table)
    table.write_text("noisy,clean\na.wav,b.wav\n")
    fault("line 2: there is no file a.wav", place=table)
    table.write_text("noisy,clean\n")
    fault("lists no recording", place=table)
    (tmp_path / "t.scp").write_text("a.wav\n")
    fault("line 1: 2 paths were expected", place=tmp_path / "t.scp")
    (tmp_path / "t.txt").write_text("")
    fault("is no .csv and no .scp", place=tmp_path / "t.txt")
