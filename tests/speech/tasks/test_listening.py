"""Spectrograms of the reports."""

from xml.etree import ElementTree

import numpy as np

from sixfold.speech.tasks.listening import spectrogram_figure


def test_spectrograms_stand_in_one_row():
    many = {f"signal {i}": np.arange(800) % (i + 2) for i in range(9)}
    drawing = ElementTree.fromstring(str(spectrogram_figure("s", many, 8000).image))
    wide, high = (float(drawing.attrib[side].removesuffix("pt")) for side in ("width", "height"))
    assert wide > 8 * high
