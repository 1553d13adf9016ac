"""The files of CMuSeNet's published recordings (IEEE DataPort, doi 10.21227/hcc1-6p22).

A recording is a .dat file, interleaved float64 I and Q at 20 MS/s, and beside it a .json file of
that name: a list of the signals in it, each with ``fc`` and ``bw`` in Hz, the centre counted from
the middle of the band.
"""

import json
from pathlib import Path
from typing import Any

from sixfold.core import UserError

SAMPLE_RATE_HZ = 20e6


def read_signals(path: Path) -> dict[str, Any]:
    """Read a list of signals as SigMF metadata, whose annotations last for the whole recording.

    Args:
        path: Path of the .json file.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        signals = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON file that can be read ({error})") from None
    annotations = []
    for number, signal in enumerate(signals if isinstance(signals, list) else [signals]):
        edges = signal if isinstance(signal, dict) else {}
        center, width = edges.get("fc"), edges.get("bw")
        if (
            not isinstance(center, (int, float))
            or not isinstance(width, (int, float))
            or width <= 0
        ):
            raise UserError(
                f"{path}: signal {number} has fc {center!r} and bw {width!r}; a list of signals "
                "says both in Hz"
            )
        annotations.append(
            {
                "core:sample_start": 0,
                "core:freq_lower_edge": center - width / 2,
                "core:freq_upper_edge": center + width / 2,
                "core:label": str(edges.get("mod", "")),
            }
        )
    facts = {"core:datatype": "cf64_le", "core:sample_rate": SAMPLE_RATE_HZ}
    facts |= {"core:version": "1.2.0", "core:dataset": path.with_suffix(".dat").name}
    return {"global": facts, "captures": [], "annotations": annotations}
