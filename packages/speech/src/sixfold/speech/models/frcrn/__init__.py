"""FRCRN: a complex U-Net whose features recur along frequency, for single-channel enhancement.

S. Zhao, B. Ma, K. N. Watcharasupat, W.-S. Gan, "FRCRN: Boosting Feature Representation using
Frequency Recurrence for Monaural Speech Enhancement", ICASSP 2022. arXiv:2206.07293

Departs from the paper: the defaults are the *released* network (FRCRN_SE_16K), whose weights exist.
It has two U-Nets, the second learning a residual of the mask; squeeze-and-excitation on the skip
connections and in the decoders instead of complex CBAM on the skip connections; windows of 40 ms
instead of 20. `PAPER` has the paper's choices, as far as they are known; no weights of it exist.
The causal network and its streaming are ours.

From the paper to the files:

- the convolutional recurrent encoders and decoders, the complex mask -> model.py
- complex convolutions, complex FSMN, CCBAM -> layers.py
- the two losses -> loss.py
- the STFT -> stft.py, a file of its own because model, converter and export share it
- not in the paper: streaming.py (a causal network on audio that arrives in pieces), inference.py
  (recordings of any length), convert.py (official checkpoints), export.py
"""

from sixfold.core import System
from sixfold.core.data.fetch import File
from sixfold.speech.models.frcrn.convert import convert
from sixfold.speech.models.frcrn.inference import enhance
from sixfold.speech.models.frcrn.loss import complex_mask_loss, estimate_losses, frcrn_loss
from sixfold.speech.models.frcrn.model import FRCRN, PAPER, Estimate, FRCRNConfig
from sixfold.speech.models.frcrn.streaming import Streamer

__all__ = [
    "FRCRN",
    "PAPER",
    "SYSTEM",
    "Estimate",
    "FRCRNConfig",
    "Streamer",
    "complex_mask_loss",
    "convert",
    "enhance",
    "estimate_losses",
    "frcrn_loss",
]

SYSTEM = System(
    name="frcrn",
    paper="arXiv:2206.07293",
    config=FRCRNConfig,
    build=FRCRN,
    convert=convert,
    published={"FRCRN_SE_16K": (FRCRNConfig(), 13_141_844)},
    run="sixfold.speech.models.frcrn.inference:run",
    export="sixfold.speech.models.frcrn.export:exportable",
    weights={
        "FRCRN_SE_16K": File(
            "FRCRN_SE_16K/last_best_checkpoint.pt",
            url="https://huggingface.co/alibabasglab/FRCRN_SE_16K/resolve/main/last_best_checkpoint.pt",
            licence="Apache-2.0",
        )
    },
    train="sixfold.speech.own_data:train_frcrn",
)
