"""Audio: files, sample rates and levels; streams of blocks, windows, array spectra, conversion."""

from sixfold.speech.audio.files import read_audio, read_blocks, write_audio
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.audio.resampling import resample

__all__ = ["level_gain", "read_audio", "read_blocks", "resample", "write_audio"]
