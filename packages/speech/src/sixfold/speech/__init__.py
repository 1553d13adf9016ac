"""Speech enhancement and separation.

The parts that need more than torch are imported from their own modules: ``data``, ``metrics``,
``enhance``, ``streaming``.
"""

from sixfold.speech.models.conv_tasnet import SYSTEM as CONV_TASNET
from sixfold.speech.models.conv_tasnet import ConvTasNet, ConvTasNetConfig
from sixfold.speech.models.deftan2.model import SYSTEM as DEFTAN2
from sixfold.speech.models.deftan2.model import DeFTAN2, DeFTAN2Config
from sixfold.speech.models.frcrn.model import FRCRN, PAPER, SYSTEM, Estimate, FRCRNConfig
from sixfold.speech.models.mossformer2.model import (
    MOSSFORMER,
    MossFormer,
    MossFormer2,
    MossFormer2Config,
)
from sixfold.speech.models.mossformer2.model import SYSTEM as MOSSFORMER2
from sixfold.speech.models.mossformer2.se_48k import SYSTEM as MOSSFORMER2_SE
from sixfold.speech.models.mossformer2.se_48k import MossFormer2SE, MossFormer2SEConfig
from sixfold.speech.models.tf_transformer import SYSTEM as TF_TRANSFORMER
from sixfold.speech.models.tf_transformer import TFTransformer, TFTransformerConfig

SYSTEMS = (SYSTEM, MOSSFORMER2, MOSSFORMER, MOSSFORMER2_SE, DEFTAN2, CONV_TASNET, TF_TRANSFORMER)

__all__ = [
    "FRCRN",
    "PAPER",
    "SYSTEMS",
    "ConvTasNet",
    "ConvTasNetConfig",
    "DeFTAN2",
    "DeFTAN2Config",
    "Estimate",
    "FRCRNConfig",
    "MossFormer",
    "MossFormer2",
    "MossFormer2Config",
    "MossFormer2SE",
    "MossFormer2SEConfig",
    "TFTransformer",
    "TFTransformerConfig",
]
