"""Speech enhancement.

The parts that need more than torch are imported from their own modules: ``data``, ``metrics``,
``enhance``, ``streaming``.
"""

from sixfold.speech.frcrn import FRCRN, PAPER, SYSTEM, Estimate, FRCRNConfig

SYSTEMS = (SYSTEM,)

__all__ = ["FRCRN", "PAPER", "SYSTEMS", "Estimate", "FRCRNConfig"]
