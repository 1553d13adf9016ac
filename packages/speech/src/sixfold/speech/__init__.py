"""Speech enhancement and separation.

Data, metrics and inference are imported from modules of their own: ``sixfold.speech.data``,
``sixfold.speech.metrics``, ``sixfold.speech.models.<system>``.
"""

from sixfold.speech.models.conv_tasnet import SYSTEM as CONV_TASNET
from sixfold.speech.models.conv_tasnet import ConvTasNet, ConvTasNetConfig
from sixfold.speech.models.deftan2 import SYSTEM as DEFTAN2
from sixfold.speech.models.deftan2 import DeFTAN2, DeFTAN2Config
from sixfold.speech.models.frcrn import FRCRN, PAPER, Estimate, FRCRNConfig
from sixfold.speech.models.frcrn import SYSTEM as FRCRN_SYSTEM
from sixfold.speech.models.mossformer2 import (
    MOSSFORMER,
    SE_48K,
    MossFormer,
    MossFormer2,
    MossFormer2Config,
    MossFormer2SE,
    MossFormer2SEConfig,
)
from sixfold.speech.models.mossformer2 import SYSTEM as MOSSFORMER2
from sixfold.speech.models.tf_transformer import SYSTEM as TF_TRANSFORMER
from sixfold.speech.models.tf_transformer import TFTransformer, TFTransformerConfig

SYSTEMS = (FRCRN_SYSTEM, MOSSFORMER2, MOSSFORMER, SE_48K, DEFTAN2, CONV_TASNET, TF_TRANSFORMER)
SCORE = "sixfold.speech.scoring:score"  # behind `sixfold score speech`

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
