"""Audio: files, sample rates and levels; blocks and windows of long recordings; array spectra."""

from sixfold.speech.audio.files import level_gain, read_audio, resample, write_audio

__all__ = ["level_gain", "read_audio", "resample", "write_audio"]
