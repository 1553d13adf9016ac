"""The recordings of training and test: published data sets, or synthetic voices and noises.

`DATASETS` has the origin and the licence of each data set; the checksums of their files are in
checksums.csv. Speakers and noise recordings are divided between the splits here, for all tasks.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Literal

import torch
from torch import Tensor

from sixfold.core.data.fetch import Dataset, File, fetch
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.resampling import resample
from sixfold.speech.data import synthetic

SAMPLE_RATE = 16000

Source = Literal["real", "builtin"]
Split = Literal["train", "test"]

_CLEARERVOICE = (
    "https://raw.githubusercontent.com/modelscope/ClearerVoice-Studio/"
    "6b3774dc79c46ae8bed2a4fa5f706f0ac8c75c61/"
)
# Download folders of the data sets; a set that is not listed exists in mirrors only.
_FOLDERS = {
    "vctk_p234_and_noise_48k": (
        _CLEARERVOICE + "train/data_generation/speech_enhancement/generate_noisy_speech/data/"
    ),
    "small_examples": _CLEARERVOICE + "clearvoice/samples/path_to_input_wavs_sr/",
    "libri2mix_examples": "https://raw.githubusercontent.com/alibabasglab/MossFormer2/"
    "5727f739947605f884da8d7a1448c64f32d37b9d/MossFormer2_samples_Libri2Mix/",
    "spatialized_dns_example_4ch": "https://raw.githubusercontent.com/donghoney0416/DeFTAN-II/"
    "3d4cef13707eeac4985a2cd9464ea47c942a5a46/audio/dns/",
}


def _files(name: str) -> tuple[File, ...]:
    """Read the file list of a data set from checksums.csv, beside this file."""
    table = (files("sixfold.speech.data") / "checksums.csv").read_text(encoding="utf-8")
    folder = _FOLDERS.get(name)
    return tuple(
        File(row["path"], row["sha256"], int(row["bytes"]), folder and folder + row["path"])
        for row in csv.DictReader(table.splitlines())
        if row["set"] == name
    )


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="asterisk_prompts_16k",
            home="https://packages.debian.org/source/stable/asterisk-core-sounds "
            "(asterisk-core-sounds-{en,es,fr,it,ru}-g722 1.6.1, decoded to 16 kHz WAV)",
            licence="CC BY-SA 3.0 (en, es, fr), CC BY 3.0 (it, ru)",
            citation="Asterisk Core Sounds 1.6.1, Digium; voices Allison Smith (en), June Wallack "
            "(fr), Carlo Flora (it), Maxim Topal (ru), es-mx unnamed",
            files=_files("asterisk_prompts_16k"),
        ),
        Dataset(
            name="vctk_p234_and_noise_48k",
            home="https://github.com/modelscope/ClearerVoice-Studio",
            licence="speech CC BY 4.0 (CSTR VCTK Corpus), noise Apache-2.0 (of the repository)",
            citation="Yamagishi, Veaux, MacDonald: CSTR VCTK Corpus, 2019; "
            "ClearerVoice-Studio, Alibaba, 2024",
            files=_files("vctk_p234_and_noise_48k"),
        ),
        Dataset(
            name="small_examples",
            home="https://github.com/modelscope/ClearerVoice-Studio",
            licence="public domain (LJ Speech)",
            citation="Ito and Johnson: The LJ Speech Dataset, 2017",
            files=_files("small_examples"),
        ),
    )
}

# Mixtures of two speakers, their sources, and the released MossFormer2's outputs: test only.
LIBRI2MIX = Dataset(
    name="libri2mix_examples",
    home="https://github.com/alibabasglab/MossFormer2",
    licence="speech CC BY 4.0 (LibriSpeech), separated speech MIT (of the repository)",
    citation="Cosentino et al.: LibriMix, 2020 (arXiv:2005.11262); Panayotov et al.: LibriSpeech, "
    "ICASSP 2015; Zhao et al.: MossFormer2, ICASSP 2024",
    files=_files("libri2mix_examples"),
)

# One item of four microphones, its direct sound, and the output of the authors' DeFTAN-II.
SPATIALIZED = Dataset(
    name="spatialized_dns_example_4ch",
    home="https://github.com/donghoney0416/DeFTAN-II",
    licence="speech and noise of the DNS Challenge (mixed, mostly CC BY 4.0), as its list says",
    citation="Reddy et al.: The INTERSPEECH 2020 Deep Noise Suppression Challenge "
    "(arXiv:2005.13981); Lee and Choi: DeFTAN-II, TASLP 2024",
    files=_files("spatialized_dns_example_4ch"),
)

# Speaker or noise recording: its data set, and the prefix of its paths.
_REAL = {
    "train": {
        "speech": {
            "en": ("asterisk_prompts_16k", "en/"),
            "es": ("asterisk_prompts_16k", "es/"),
            "it": ("asterisk_prompts_16k", "it/"),
            "ru": ("asterisk_prompts_16k", "ru/"),
        },
        "noise": {
            "ch03_sm001": ("vctk_p234_and_noise_48k", "noise/ch03_sm001"),
            "ch03_sm002": ("vctk_p234_and_noise_48k", "noise/ch03_sm002"),
        },
    },
    "test": {
        "speech": {
            "fr": ("asterisk_prompts_16k", "fr/"),
            "p234": ("vctk_p234_and_noise_48k", "speech/p234"),
            "lj": ("small_examples", "LJ001"),
        },
        "noise": {
            "ch08_sm001": ("vctk_p234_and_noise_48k", "noise/ch08_sm001"),
            "ch08_sm002": ("vctk_p234_and_noise_48k", "noise/ch08_sm002"),
        },
    },
}
_SYNTHETIC_NOISE_S = 30


@dataclass(frozen=True)
class SplitRecordings:
    """Recordings of one split at `SAMPLE_RATE`: speech by speaker and file, noise by file."""

    speech: dict[str, dict[str, Tensor]]
    noise: dict[str, Tensor]


def read(source: Source, split: Split, seed: int) -> SplitRecordings:
    """Read or synthesise the recordings of one split, in a fixed order.

    Args:
        source: Real or synthetic ("builtin") data.
        split: Training or test.
        seed: Seed of the synthetic noise.

    Raises:
        UserError: a data set is not available, or eSpeak NG is not installed.
    """
    return _real(split) if source == "real" else _synthetic(split, seed)


def attributions(source: Source, sets: Iterable[Dataset] = DATASETS.values()) -> dict[str, Any]:
    """List origin, licence, citation and checksums of every data set that a source uses.

    Args:
        source: Real or synthetic ("builtin") data.
        sets: Data sets of the real data.
    """
    if source == "builtin":
        licence = "GPL-3.0 (the program, not what it says)"
        home = "https://github.com/espeak-ng/espeak-ng"
        package = {"home": home, "licence": licence, "version": version("espeakng-loader")}
        return {"espeakng-loader": package}
    return {
        dataset.name: {
            "home": dataset.home,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "sha256": {file.path: file.sha256 for file in dataset.files},
        }
        for dataset in sets
    }


def _real(split: Split) -> SplitRecordings:
    folders = {name: fetch(dataset) for name, dataset in DATASETS.items()}

    def recordings(name: str, prefix: str) -> dict[str, Tensor]:
        paths = [f.path for f in DATASETS[name].files if f.path.startswith(prefix)]
        return {path: read_audio(folders[name] / path, SAMPLE_RATE)[0][0] for path in paths}

    speech = {speaker: recordings(*place) for speaker, place in _REAL[split]["speech"].items()}
    noise = {}
    for place in _REAL[split]["noise"].values():
        noise |= recordings(*place)
    return SplitRecordings(speech, noise)


def _synthetic(split: Split, seed: int) -> SplitRecordings:
    train = split == "train"
    voices = synthetic.TRAIN_VOICES if train else synthetic.TEST_VOICES
    sentences = synthetic.TRAIN_SENTENCES if train else synthetic.TEST_SENTENCES
    speech = {
        speaker: {
            f"sentence {n}": resample(audio, synthetic.VOICE_RATE, SAMPLE_RATE)
            for n, audio in enumerate(synthetic.speak(voice, sentences))
        }
        for speaker, voice in voices.items()
    }
    return SplitRecordings(speech, _train_noise(seed) if train else _test_noise(seed))


def _train_noise(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    length = _SYNTHETIC_NOISE_S * SAMPLE_RATE
    wind = synthetic.coloured(2.0, length, generator)
    return {
        "rain": synthetic.coloured(0.5, length, generator),
        "wind": synthetic.gusts(wind, 0.5, SAMPLE_RATE, generator),
        "machine 50 Hz": synthetic.hum(50.0, length, SAMPLE_RATE, generator),
        "crowd of six": _babble(synthetic.TRAIN_CROWD, synthetic.TRAIN_SENTENCES),
    }


def _test_noise(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    length = _SYNTHETIC_NOISE_S * SAMPLE_RATE
    street = synthetic.coloured(1.3, length, generator)
    return {
        "street": synthetic.gusts(street, 2.0, SAMPLE_RATE, generator),
        "machine 87 Hz": synthetic.hum(87.0, length, SAMPLE_RATE, generator),
        "crowd of five": _babble(synthetic.TEST_CROWD, synthetic.TEST_SENTENCES),
    }


def _babble(voices: list[synthetic.Voice], sentences: tuple[str, ...]) -> Tensor:
    samples = synthetic.babble(voices, sentences, _SYNTHETIC_NOISE_S * synthetic.VOICE_RATE)
    return resample(samples, synthetic.VOICE_RATE, SAMPLE_RATE)
