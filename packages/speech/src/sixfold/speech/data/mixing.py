"""What the tasks' data have in common: prepared folders, trimmed recordings, random crops."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_folder
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.data.recordings import SAMPLE_RATE, SplitRecordings


def write_prepared(
    folder: Path, tensors: dict[str, dict[str, Tensor]], manifest: dict[str, Any]
) -> None:
    """Write files of tensors, by name, and manifest.json to a folder, atomically.

    An existing folder is replaced.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_folder(folder) as partial:
        for name, content in tensors.items():
            (partial / f"{name}.safetensors").write_bytes(save(content))
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the description of prepared data: source, licences, splits and test clips."""
    return json.loads(prepared_file(folder, "manifest.json").read_text(encoding="utf-8"))


def prepared_file(folder: Path, name: str) -> Path:
    """Return the path of a file of the prepared data.

    Raises:
        UserError: the file is missing; the message has the command that makes it.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with: sixfold prepare speech")
    return path


def training_tensors(train: SplitRecordings) -> dict[str, Tensor]:
    """Concatenate the trimmed recordings of each speaker; keep noise recordings as they are."""
    speech = {
        f"speech/{speaker}": torch.cat([trim_silence(audio) for audio in recordings.values()])
        for speaker, recordings in train.speech.items()
    }
    return speech | {f"noise/{name}": audio for name, audio in train.noise.items()}


def describe(split: SplitRecordings) -> dict[str, Any]:
    """List the recordings of a split and their lengths in seconds, for the manifest."""
    return {
        "speech": {
            speaker: {
                "recordings": list(recordings),
                "seconds": round(sum(map(len, recordings.values())) / SAMPLE_RATE, 2),
            }
            for speaker, recordings in split.speech.items()
        },
        "noise": {name: round(len(x) / SAMPLE_RATE, 2) for name, x in split.noise.items()},
    }


def long_enough(what: str, recordings: dict[str, Tensor], samples: int) -> dict[str, Tensor]:
    """Keep the recordings that are at least as long as a test clip.

    Raises:
        UserError: every recording is shorter.
    """
    kept = {name: audio for name, audio in recordings.items() if len(audio) >= samples}
    if not kept:
        longest = max(map(len, recordings.values())) / SAMPLE_RATE
        raise UserError(
            f"no {what} is {samples / SAMPLE_RATE} s long, the longest has {longest:.2f} s; "
            "set test_seconds, in this task's block of data, to at most that"
        )
    return kept


def trim_silence(audio: Float[Tensor, " time"]) -> Float[Tensor, " samples"]:
    """Scale a recording to the working level, and cut the silence before and after its speech."""
    audio = audio * level_gain(audio)
    frame = SAMPLE_RATE // 50
    power = audio[: len(audio) // frame * frame].reshape(-1, frame).square().mean(1)
    loud = torch.nonzero(power > 1e-4 * power.max())[:, 0]  # within 40 dB of the loudest frame
    return audio[int(loud[0]) * frame : (int(loud[-1]) + 1) * frame].clone()


def random_crop(audio: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Cut a random crop from a recording; also return the index of its first sample."""
    start = random_integer(len(audio) - samples + 1, generator)
    return audio[start : start + samples], start


def random_integer(end: int, generator: torch.Generator) -> int:
    """Draw an integer from 0 to ``end`` - 1."""
    return int(torch.randint(end, (), generator=generator))


def random_uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    """Draw a number between two bounds, uniformly."""
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))
