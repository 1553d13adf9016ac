"""Enhance speech while it arrives, a few samples at a time, with a causal FRCRN."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.speech.audio.files import check_finite
from sixfold.speech.models.frcrn.layers import Cache
from sixfold.speech.models.frcrn.model import FRCRN


class Streamer:
    """Enhance a stream: ``push`` what arrived, get back what is finished; ``flush`` at its end.

    Joined, the returned pieces are ``model(noisy).waveform`` of all that was pushed, however it was
    split. Between pushes live a window of samples, the last spectra of the overlap-add, and what
    each layer remembers; none of it grows with the length of the stream.

    The input should be at the model's level, as for `FRCRN`:
    `sixfold.speech.audio.files.level_gain` of some speech recorded before; a stream's own level is
    unknown until its end. A ``model.folded()`` is faster.

    Args:
        model: A causal one, in eval mode.
        channels: Signals side by side, each enhanced by itself.

    Raises:
        UserError: the model looks ahead, or is in training mode.
    """

    def __init__(self, model: FRCRN, channels: int = 1) -> None:
        if not model.config.causal:
            raise UserError(
                "this FRCRN is not causal: each frame of its mask depends on frames that come "
                "later, and its gates may on the whole utterance; for recordings use enhance of "
                "sixfold.speech.models.frcrn, or train with causal: true"
            )
        if model.training:
            raise UserError("this FRCRN is in training mode; call model.eval() or model.folded()")
        self.model, self.channels = model, channels
        self._win, self._hop = model.config.win_length, model.config.hop_length
        self._start()

    @property
    def latency_samples(self) -> int:
        """The longest wait: after n pushed samples, all but the last ``latency_samples`` are out.

        One window minus one sample: 639 for the released window. Output hop l is finished by the
        frame that begins with it, which is complete a window later; its first sample has then
        waited for ``win_length - 1`` others. Those who push a hop at a time get what ends
        ``win_length - hop_length`` samples before the end of what they pushed.
        """
        return self._win - 1

    @property
    def latency_ms(self) -> float:
        """`latency_samples` in milliseconds; the time to compute comes on top."""
        return 1000 * self.latency_samples / self.model.config.sample_rate

    @torch.no_grad()
    def push(self, samples: Tensor) -> Float[Tensor, "channels finished"]:
        """Take the next samples, any number of them; return those finished, which may be none.

        Args:
            samples: Shaped (channels, time), on any device.

        Raises:
            UserError: the shape is another, or samples are NaN or infinite, which would spoil all
                that follows. The stream goes on as if they had not been pushed.
        """
        self._check(samples)
        self._waiting = torch.cat([self._waiting, samples.to(self._waiting)], 1)
        frames = (self._waiting.shape[1] - self._win) // self._hop + 1
        if frames < 1:
            return self._waiting[:, :0]
        finished = frames * self._hop
        whole = self._waiting[:, : finished - self._hop + self._win]
        self._waiting = self._waiting[:, finished:].clone()  # a view would keep all of it
        return self._enhance(whole)[:, :finished]

    @torch.no_grad()
    def flush(self) -> Float[Tensor, "channels rest"]:
        """Return the rest, as if zeros followed; the next push begins a new stream."""
        rest = self._waiting.shape[1]
        if self._spectra.shape[-1] and rest == self._win - self._hop:  # whole frames, all done
            tail = self._overlapped(self._spectra)
        elif rest:
            tail = self._enhance(functional.pad(self._waiting, (0, self._win - rest)))
        else:
            tail = self._waiting
        self._start()
        return tail[:, :rest]

    def _start(self) -> None:
        window, bins = self.model.spectrum.window, self.model.config.n_fft // 2 + 1
        self._cache: Cache = {}
        self._waiting = window.new_zeros(self.channels, 0)  # begins where the output stopped
        self._spectra = window.new_zeros(self.channels, 2, bins, 0)  # that reach into what follows

    def _enhance(self, noisy: Tensor) -> Tensor:
        """Turn whole frames into samples; only a hop for each frame is finished."""
        spectrum = self.model.spectrum(noisy)
        mask = self.model.mask(spectrum, self._cache)
        noisy_bins, mask_bins = (
            torch.view_as_complex(x.movedim(1, -1).contiguous()) for x in (spectrum, mask)
        )
        estimate = torch.view_as_real(noisy_bins * mask_bins).movedim(-1, 1)
        return self._overlapped(torch.cat([self._spectra, estimate], -1))

    def _overlapped(self, spectra: Tensor) -> Tensor:
        """Overlap-add what is new to spectra of before; keep those that more will overlap."""
        old = self._spectra.shape[-1]
        keep = min(spectra.shape[-1], self._win // self._hop - 1)
        self._spectra = spectra[..., spectra.shape[-1] - keep :].clone()
        return self.model.spectrum.inverse(spectra)[:, old * self._hop :]

    def _check(self, samples: Tensor) -> None:
        if samples.ndim != 2 or samples.shape[0] != self.channels or samples.is_complex():
            raise UserError(
                f"this stream takes samples shaped ({self.channels}, time), got "
                f"{tuple(samples.shape)}; for one signal pass x[None], for more say "
                "Streamer(model, channels=...)"
            )
        if not samples.is_floating_point():
            raise UserError(f"a stream takes float samples within ±1, got {samples.dtype}")
        check_finite("what was pushed", samples)
