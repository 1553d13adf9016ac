"""Audio: files, blocks of long recordings, sample rates and levels, spectra of arrays."""

from sixfold.speech.audio.files import level_gain, read_audio, resample, write_audio

__all__ = ["level_gain", "read_audio", "resample", "write_audio"]
