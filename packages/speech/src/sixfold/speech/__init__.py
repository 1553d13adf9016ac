"""Speech enhancement and separation.

The parts that need more than torch are imported from their own modules: ``data``, ``metrics``,
``enhance``, ``streaming``.
"""

from sixfold.speech.deftan2 import SYSTEM as DEFTAN2
from sixfold.speech.deftan2 import DeFTAN2, DeFTAN2Config
from sixfold.speech.frcrn import FRCRN, PAPER, SYSTEM, Estimate, FRCRNConfig
from sixfold.speech.mossformer2 import MOSSFORMER, MossFormer, MossFormer2, MossFormer2Config
from sixfold.speech.mossformer2 import SYSTEM as MOSSFORMER2

SYSTEMS = (SYSTEM, MOSSFORMER2, MOSSFORMER, DEFTAN2)

__all__ = [
    "FRCRN",
    "PAPER",
    "SYSTEMS",
    "DeFTAN2",
    "DeFTAN2Config",
    "Estimate",
    "FRCRNConfig",
    "MossFormer",
    "MossFormer2",
    "MossFormer2Config",
]
