"""Streaming enhancement with a causal FRCRN: audio in and out a few samples at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.speech.audio.arrays import Audio, check_finite, to_array, to_tensor
from sixfold.speech.audio.network import check_eval_mode
from sixfold.speech.models.frcrn.layers import Cache
from sixfold.speech.models.frcrn.model import FRCRN


class Streamer:
    """Enhance a stream: ``push`` new samples and get finished ones back; ``flush`` at the end.

    The concatenated outputs equal ``model(noisy).waveform`` of the concatenated inputs, however
    they were split. The state between two calls is a window of samples, the last spectra of the
    overlap-add and the layers' `Cache`; its size does not depend on the length of the stream.

    The input should be at the level of the training data, as for `FRCRN`. The level of a stream is
    unknown until its end: take `sixfold.speech.audio.level_gain` of an earlier recording. A
    ``model.folded()`` is faster.

    Args:
        model: Causal network in eval mode.
        channels: Number of parallel signals, each enhanced separately.

    Raises:
        UserError: the model is not causal, or is in training mode.
    """

    def __init__(self, model: FRCRN, channels: int = 1) -> None:
        if not model.config.causal:
            raise UserError(
                "this FRCRN is not causal: each frame of its mask depends on later frames, and its "
                "gates may depend on the whole utterance; for recordings use "
                "sixfold.speech.models.frcrn.enhance, or train with causal: true"
            )
        check_eval_mode(model)
        self.model, self.channels = model, channels
        self._win_length, self._hop_length = model.config.win_length, model.config.hop_length
        self._start()

    @property
    def latency_samples(self) -> int:
        """The algorithmic latency: after n pushed samples, all but the last so many are returned.

        One window minus one sample: 639 for the released window. An output hop is finished by the
        frame that starts with it, which is complete one window later; the first sample of that hop
        has then waited for ``win_length - 1`` others. After a push of whole hops, the output is
        ``win_length - hop_length`` samples behind the input.
        """
        return self._win_length - 1

    @property
    def latency_ms(self) -> float:
        """`latency_samples` in milliseconds, without the time to compute."""
        return 1000 * self.latency_samples / self.model.config.sample_rate

    @torch.no_grad()
    def push(self, samples: Audio) -> Audio:
        """Enhance the next samples, and return the finished ones, possibly none.

        Args:
            samples: Any number of samples shaped (channels, time) or, for one channel, (time,): a
                tensor on any device, or a NumPy array.

        Returns:
            Finished samples of the same shape, kind and dtype, on the network's device.

        Raises:
            UserError: the shape does not match, samples are NaN or infinite, which would spoil all
                later output, or the model was put in training mode. The state of the stream is
                unchanged.
        """
        check_eval_mode(self.model)
        given = self._check(samples)
        self._restore = partial(_as_given, like=samples)
        self._waiting = torch.cat([self._waiting, given.to(self._waiting)], 1)
        frames = (self._waiting.shape[1] - self._win_length) // self._hop_length + 1
        if frames < 1:
            return self._restore(self._waiting[:, :0])
        finished = frames * self._hop_length
        ready = self._waiting[:, : finished - self._hop_length + self._win_length]
        self._waiting = self._waiting[:, finished:].clone()  # a view would keep all of it
        return self._restore(self._enhance(ready)[:, :finished])

    @torch.no_grad()
    def flush(self) -> Any:
        """Return the remaining samples, as if zeros followed, in the form of the last push.

        The next push starts a new stream.
        """
        rest = self._waiting.shape[1]
        if (
            self._spectra.shape[-1] and rest == self._win_length - self._hop_length
        ):  # no incomplete frame is left
            tail = self._overlap_add(self._spectra)
        elif rest:
            tail = self._enhance(functional.pad(self._waiting, (0, self._win_length - rest)))
        else:
            tail = self._waiting
        tail = self._restore(tail[:, :rest])
        self._start()
        return tail

    def _start(self) -> None:
        window, bins = self.model.spectrum.window, self.model.config.n_fft // 2 + 1
        self._cache: Cache = {}
        # Input from the end of the output on, and spectra of frames that overlap later ones.
        self._waiting = window.new_zeros(self.channels, 0)
        self._spectra = window.new_zeros(self.channels, 2, bins, 0)
        self._restore: Callable[[Tensor], Any] = lambda samples: samples

    def _enhance(self, noisy: Tensor) -> Tensor:
        """Enhance whole frames; only one hop of samples per frame is final."""
        spectrum = self.model.spectrum(noisy)
        mask = self.model.mask(spectrum, self._cache)
        noisy_bins, mask_bins = (
            torch.view_as_complex(x.movedim(1, -1).contiguous()) for x in (spectrum, mask)
        )
        estimate = torch.view_as_real(noisy_bins * mask_bins).movedim(-1, 1)
        return self._overlap_add(torch.cat([self._spectra, estimate], -1))

    def _overlap_add(self, spectra: Tensor) -> Tensor:
        """Overlap-add new spectra to the kept ones; keep those that later frames overlap."""
        old = self._spectra.shape[-1]
        keep = min(spectra.shape[-1], self._win_length // self._hop_length - 1)
        self._spectra = spectra[..., spectra.shape[-1] - keep :].clone()
        return self.model.spectrum.inverse(spectra)[:, old * self._hop_length :]

    def _check(self, samples: Tensor | np.ndarray) -> Float[Tensor, "channels time"]:
        given = torch.atleast_2d(to_tensor(samples))
        if given.ndim != 2 or given.shape[0] != self.channels:
            raise UserError(
                f"this stream takes samples shaped ({self.channels}, time), got "
                f"{tuple(samples.shape)}; for several signals make a Streamer(model, channels=...)"
            )
        check_finite("pushed samples", given)
        return given


def _as_given(samples: Float[Tensor, "channels time"], like: Tensor | np.ndarray) -> Any:
    samples = samples[0] if like.ndim == 1 else samples
    if isinstance(like, np.ndarray):
        return to_array(samples, like.dtype)
    return samples.to(like.dtype)
