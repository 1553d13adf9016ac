"""Training of the speech systems on one's own recordings: ``sixfold train speech/frcrn``.

`sixfold.speech.data.layouts` says which folders and lists can be given.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.core import System, UserError
from sixfold.core.own_data import Recipe, Splits, command
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.speech import metrics
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.data.crops import CropConfig, Crops, hold_out
from sixfold.speech.data.layouts import Layout, open_layout
from sixfold.speech.losses import pit_si_snr, si_snr
from sixfold.speech.models import conv_tasnet, deftan2, frcrn, mossformer2, tf_transformer
from sixfold.speech.models.deftan2.loss import pcm_loss
from sixfold.speech.models.mossformer2 import se_48k_inference

Estimate = Callable[[Any, Tensor, int], Tensor]  # model, (channel, time), rate -> (source, time)


def frcrn_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the released losses, at the level that the network works at."""
    noisy, clean = batch["input"][:, 0], batch["targets"][:, 0]
    gain = level_gain(noisy)
    return frcrn.frcrn_loss(model, {"noisy": gain * noisy, "clean": gain * clean})


def separation_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the negative SI-SNR in the best order of speakers."""
    return pit_si_snr(model(batch["input"][:, 0]), batch["targets"])


def full_band_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the error of the mask."""
    return mossformer2.psm_loss(model, batch["input"][:, 0], batch["targets"][:, 0])


def array_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return SI-SNR and PCM, both of which the paper names, at the level of the networks."""
    noisy, clean = batch["input"], batch["targets"][:, 0]
    estimate = model(noisy)[:, 0]
    level = noisy[:, 0].std(1, keepdim=True).clamp_min(1e-9)
    pcm = pcm_loss(estimate / level, clean / level, noisy[:, 0] / level)
    return {"si_snr": -si_snr(estimate, clean).mean(), "pcm": pcm}


def enhance_frcrn(model: Any, noisy: Tensor, sample_rate: int) -> Tensor:
    """Enhance the first channel."""
    return frcrn.enhance(model.folded(), noisy[:1], sample_rate)


def enhance_full_band(model: Any, noisy: Tensor, sample_rate: int) -> Tensor:
    """Enhance the first channel."""
    return se_48k_inference.enhance(model, noisy[:1], sample_rate)


def separate_whole(model: Any, mixture: Tensor, sample_rate: int) -> Tensor:
    """Separate the first channel in one pass."""
    del sample_rate
    return model(mixture[:1].to(next(model.parameters()).device))[0].cpu()


def enhance_whole(model: Any, noisy: Tensor, sample_rate: int) -> Tensor:
    """Enhance the recording of an array in one pass."""
    del sample_rate
    return model(noisy[None].to(next(model.parameters()).device))[0].cpu()


def evaluate(estimate: Estimate) -> Callable[[Any, Crops], dict[str, float]]:
    """Return the scores of a system: mean SI-SDR in dB, and its mean improvement on the input.

    Recordings with a silent target or input have no score and are left out.
    """

    def score(model: Any, valid: Crops) -> dict[str, float]:
        found = []
        for noisy, targets in valid.recordings():
            if all(float(x.std()) > 0 for x in (*targets, *noisy[:1])):
                estimates = list(estimate(model, noisy, valid.sample_rate)[: len(targets)])
                found.append(_si_sdr(estimates, noisy[0], list(targets)))
        if not found:
            raise UserError("every validation recording is silent; give others with --valid")
        mean, improvement = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
        return {"si_sdr": mean, "si_sdr_improvement": improvement}

    return score


def _si_sdr(estimates: list[Tensor], noisy: Tensor, targets: list[Tensor]) -> tuple[float, float]:
    if any(float(x.std()) == 0 or not bool(x.isfinite().all()) for x in estimates):
        return SILENT_DB, SILENT_DB  # a network that is not trained yet may be silent
    order = metrics.best_permutation(estimates, targets)
    pairs = [(estimates[i], target) for i, target in zip(order, targets, strict=True)]
    after = sum(metrics.si_sdr(e, t) for e, t in pairs) / len(pairs)
    before = sum(metrics.si_sdr(noisy, t) for t in targets) / len(targets)
    return after, after - before


SILENT_DB = -100.0


def open_mixtures(
    data: Path, valid: Path | float, model: Any, options: CropConfig, seed: int
) -> Splits:
    """Open mixtures with a target for each speaker, see `open_recordings`."""
    return open_recordings(data, valid, model, options, seed, targets=model.config.speakers)


def open_recordings(
    data: Path, valid: Path | float, model: Any, options: CropConfig, seed: int, targets: int = 1
) -> Splits:
    """Open recordings that have the channels of a network, to be read at its sample rate.

    Raises:
        UserError: as `open_layout`; a recording has another number of channels than the network; or
            there are too few to hold some out.
    """
    config = model.config
    microphones = getattr(config, "microphones", 1)
    layout = open_layout(data, targets)
    if isinstance(valid, Path):
        held = open_layout(valid, targets)
    elif len(layout.items) < 2:
        raise UserError(f"{data} holds one recording; give others for validation with --valid")
    else:
        layout, held = hold_out(layout, valid, seed)
    for split in (layout, held):
        _check_channels(split, microphones)
    train, held_out = (Crops(split, config.sample_rate, options) for split in (layout, held))
    items = [i for split in (layout, held) for i in (*split.items, *split.noises)]
    rates = sorted({item.sample_rate for item in items})
    print(
        f"{data}: {len(layout.items)} recordings to train on, {len(held.items)} for validation, at "
        f"{', '.join(map(str, rates))} Hz; the network works at {config.sample_rate} Hz"
    )
    return Splits(train, held_out, [path for item in items for path in (item.input, *item.targets)])


def _check_channels(layout: Layout, microphones: int) -> None:
    for item in layout.items:
        if microphones > 1 and not item.targets:
            raise UserError(
                "noise is not added to the recordings of an array on the fly, for it would come "
                "from no direction; give recordings and their targets"
            )
        if item.channels != microphones:
            raise UserError(
                f"{item.input} has {item.channels} channels, the network takes {microphones}; "
                + ("add --set microphones=..." if microphones > 1 else "pick one of them first")
            )


PLATEAU = ScheduleConfig(name="plateau", gamma=0.5, patience=4)  # halved after five without a gain
STOPPING = EarlyStopping(monitor="si_sdr", mode="max", patience=10)


SEPARATION = {"batch": 4, "learning_rate": 1.5e-4, "clip": 10.0}  # the released code's


def _command(
    system: System, loss: Callable[..., Any], estimate: Estimate, **fit: Any
) -> Callable[..., Any]:
    config = FitConfig(steps=20_000, schedule=PLATEAU, best=STOPPING, **fit)
    opened = open_mixtures if loss is separation_loss else open_recordings
    return command(system, Recipe(opened, loss, evaluate(estimate), config, CropConfig))


train_frcrn = _command(
    frcrn.SYSTEM, frcrn_loss, enhance_frcrn, batch=4, learning_rate=1e-3, clip=10.0
)
train_mossformer2 = _command(mossformer2.SYSTEM, separation_loss, separate_whole, **SEPARATION)
train_mossformer = _command(mossformer2.MOSSFORMER, separation_loss, separate_whole, **SEPARATION)
train_conv_tasnet = _command(
    conv_tasnet.SYSTEM, separation_loss, separate_whole, batch=4, learning_rate=1e-3, clip=5.0
)
train_se_48k = _command(
    mossformer2.SE_48K, full_band_loss, enhance_full_band, batch=4, learning_rate=1e-3, clip=10.0
)
train_deftan2 = _command(
    deftan2.SYSTEM, array_loss, enhance_whole, batch=4, learning_rate=4e-4, clip=5.0
)
train_tf_transformer = _command(
    tf_transformer.SYSTEM, array_loss, enhance_whole, batch=4, learning_rate=4e-4, clip=5.0
)
