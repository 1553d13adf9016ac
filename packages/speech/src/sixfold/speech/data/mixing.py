"""What the experiments' data have in common: prepared folders, recordings cut to their speech."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_folder
from sixfold.speech.audio.files import level_gain
from sixfold.speech.data.recordings import SAMPLE_RATE, Material


def write_prepared(
    folder: Path, tensors: dict[str, dict[str, Tensor]], manifest: dict[str, Any]
) -> None:
    """Write files of tensors, by name, and manifest.json to a folder, all or nothing.

    A folder that is there already is replaced.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_folder(folder) as partial:
        for name, content in tensors.items():
            (partial / f"{name}.safetensors").write_bytes(save(content))
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what `prepare` wrote about its data: source, licences, splits and test clips."""
    return json.loads(prepared_file(folder, "manifest.json").read_text(encoding="utf-8"))


def prepared_file(folder: Path, name: str) -> Path:
    """Return a file of the prepared data.

    Raises:
        UserError: there is none; says how to make it.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with: sixfold prepare speech")
    return path


def training_tensors(train: Material) -> dict[str, Tensor]:
    """Join each speaker's recordings, without the silence around them, to one long one."""
    speech = {
        f"speech/{speaker}": torch.cat([active(audio) for audio in recordings.values()])
        for speaker, recordings in train.speech.items()
    }
    return speech | {f"noise/{name}": audio for name, audio in train.noise.items()}


def describe(material: Material) -> dict[str, Any]:
    """Say which recordings a split holds, and how many seconds."""
    return {
        "speech": {
            speaker: {
                "recordings": list(recordings),
                "seconds": round(sum(map(len, recordings.values())) / SAMPLE_RATE, 2),
            }
            for speaker, recordings in material.speech.items()
        },
        "noise": {name: round(len(x) / SAMPLE_RATE, 2) for name, x in material.noise.items()},
    }


def long_enough(what: str, recordings: dict[str, Tensor], samples: int) -> dict[str, Tensor]:
    """Return the recordings that are as long as a test clip.

    Raises:
        UserError: none is.
    """
    kept = {name: audio for name, audio in recordings.items() if len(audio) >= samples}
    if not kept:
        longest = max(map(len, recordings.values())) / SAMPLE_RATE
        raise UserError(
            f"no {what} is {samples / SAMPLE_RATE} s long, the longest has {longest:.2f} s; "
            "set test_seconds, in this experiment's block of data, to at most that"
        )
    return kept


def active(audio: Float[Tensor, " time"]) -> Float[Tensor, " samples"]:
    """Bring a recording to the working level and cut the silence before and after its speech."""
    audio = audio * level_gain(audio)
    frame = SAMPLE_RATE // 50
    power = audio[: len(audio) // frame * frame].reshape(-1, frame).square().mean(1)
    loud = torch.nonzero(power > 1e-4 * power.max())[:, 0]  # within 40 dB of the loudest frame
    return audio[int(loud[0]) * frame : (int(loud[-1]) + 1) * frame].clone()


def cut(audio: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Cut a stretch from anywhere in a recording; also return its first sample."""
    start = integer(len(audio) - samples + 1, generator)
    return audio[start : start + samples], start


def integer(end: int, generator: torch.Generator) -> int:
    """Draw from 0 to ``end`` - 1."""
    return int(torch.randint(end, (), generator=generator))


def uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    """Draw a number between two bounds."""
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))
