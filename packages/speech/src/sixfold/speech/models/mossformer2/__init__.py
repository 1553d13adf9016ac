"""MossFormer2: gated attention and memory blocks that separate speakers in the time domain.

S. Zhao, Y. Ma, C. Ni, C. Zhang, H. Wang, T. H. Nguyen, K. Zhou, J. Q. Yip, D. Ng, B. Ma,
"MossFormer2: Combining Transformer and RNN-Free Recurrent Network for Enhanced Time-Domain Monaural
Speech Separation", ICASSP 2024. arXiv:2312.11825

MossFormer (S. Zhao and B. Ma, "MossFormer: Pushing the Performance Limit of Monaural Speech
Separation Using Gated Single-Head Transformer with Convolution-Augmented Joint Self-Attentions",
ICASSP 2023, arXiv:2302.11824) is the same network without the memory blocks. Sizes and names of
both are those of the released code (ClearerVoice-Studio), which also has the third system here:
MossFormer2_SE_48K, the same mask network on the spectrum of full-band noisy speech.

Departs from the release: `sixfold.speech.audio.stitching` joins the windows of a long recording
without speakers that swap, and the features of MossFormer2_SE_48K carry no dither by default.

From the papers to the files:

- encoder, mask network, decoder -> model.py
- gated attention with convolutions, the recurrent memory block -> layers.py
- MossFormer2_SE_48K -> se_48k.py, a file of its own because it is another system, which shares
  MaskNet; its training loss -> loss.py (the separators': `sixfold.speech.losses.pit_si_snr`)
- not in the papers: inference.py and se_48k_inference.py (recordings of any length), convert.py
  (official checkpoints), export.py
"""

from sixfold.core import System
from sixfold.core.data.fetch import File
from sixfold.speech.models.mossformer2.convert import convert, convert_se_48k
from sixfold.speech.models.mossformer2.inference import separate
from sixfold.speech.models.mossformer2.loss import psm_loss
from sixfold.speech.models.mossformer2.model import (
    MossFormer,
    MossFormer2,
    MossFormer2Config,
    MossFormerConfig,
)
from sixfold.speech.models.mossformer2.se_48k import MossFormer2SE, MossFormer2SEConfig

__all__ = [
    "MOSSFORMER",
    "SE_48K",
    "SYSTEM",
    "MossFormer",
    "MossFormer2",
    "MossFormer2Config",
    "MossFormer2SE",
    "MossFormer2SEConfig",
    "MossFormerConfig",
    "convert",
    "convert_se_48k",
    "psm_loss",
    "separate",
]

# The published counts hold 16 numbers more: the constants of the rotary embedding.
SYSTEM = System(
    name="mossformer2",
    paper="arXiv:2312.11825",
    config=MossFormer2Config,
    build=MossFormer2,
    convert=convert,
    published={"MossFormer2": (MossFormer2Config(), 55_735_410 - 16)},
    run="sixfold.speech.models.mossformer2.inference:run",
    export="sixfold.speech.models.mossformer2.export:exportable",
    weights={
        "MossFormer2_SS_16K": File(
            "MossFormer2_SS_16K/last_best_checkpoint.pt",
            url="https://huggingface.co/alibabasglab/MossFormer2_SS_16K/resolve/main/last_best_checkpoint.pt",
            licence="Apache-2.0",
        )
    },
    weights_settings={"MossFormer2_SS_16K": {"sample_rate": 16_000}},
    train="sixfold.speech.own_data:train_mossformer2",
)
MOSSFORMER = System(
    name="mossformer",
    paper="arXiv:2302.11824",
    config=MossFormerConfig,
    build=MossFormer,
    convert=convert,
    published={"MossFormer(L)": (MossFormerConfig(), 42_101_850 - 16)},
    run="sixfold.speech.models.mossformer2.inference:run",
    export="sixfold.speech.models.mossformer2.export:exportable",
    train="sixfold.speech.own_data:train_mossformer",
)
SE_48K = System(
    name="mossformer2_se",
    paper="arXiv:2312.11825",
    config=MossFormer2SEConfig,
    build=MossFormer2SE,
    convert=convert_se_48k,
    published={"MossFormer2_SE_48K": (MossFormer2SEConfig(), 55_262_170 - 16)},
    run="sixfold.speech.models.mossformer2.se_48k_inference:run",
    export="sixfold.speech.models.mossformer2.export:exportable_se_48k",
    weights={
        "MossFormer2_SE_48K": File(
            "MossFormer2_SE_48K/last_best_checkpoint.pt",
            url="https://huggingface.co/alibabasglab/MossFormer2_SE_48K/resolve/main/last_best_checkpoint.pt",
            licence="Apache-2.0",
        )
    },
    train="sixfold.speech.own_data:train_se_48k",
)
