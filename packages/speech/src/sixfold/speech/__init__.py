"""Speech enhancement and separation.

The parts that need more than torch are imported from their own modules: ``data``, ``metrics``,
``enhance``, ``streaming``.
"""

from sixfold.speech.frcrn import FRCRN, PAPER, SYSTEM, Estimate, FRCRNConfig
from sixfold.speech.mossformer2 import MOSSFORMER, MossFormer, MossFormer2, MossFormer2Config
from sixfold.speech.mossformer2 import SYSTEM as MOSSFORMER2

SYSTEMS = (SYSTEM, MOSSFORMER2, MOSSFORMER)

__all__ = [
    "FRCRN",
    "PAPER",
    "SYSTEMS",
    "Estimate",
    "FRCRNConfig",
    "MossFormer",
    "MossFormer2",
    "MossFormer2Config",
]
