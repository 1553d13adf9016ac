"""DeFTAN-II: dense frequency-time attention with subgroup processing, for multichannel enhancement.

D. Lee and J.-W. Choi, "DeFTAN-II: Efficient Multichannel Speech Enhancement with Subgroup
Processing", IEEE/ACM TASLP 2024. arXiv:2308.15777

Removes noise and reverberation from the recording of a microphone array: complex spectral mapping
to the direct sound at microphone 0.

Departs from the paper: the loss compares real and imaginary parts, as the released code does, not
the magnitudes that it is named for; `pcm_loss` has both. Silence is no error here; the released
code divides by its level.

From the paper to the files:

- the network, from array to direct sound -> model.py
- split dense blocks, efficient attention (CEA), feed-forward network (DPFN) -> layers.py
- the loss -> loss.py
- not in the paper: inference.py (recordings of any length), convert.py (official checkpoints),
  export.py
"""

from sixfold.core import System
from sixfold.speech.models.deftan2.convert import convert
from sixfold.speech.models.deftan2.inference import enhance
from sixfold.speech.models.deftan2.loss import pcm_loss
from sixfold.speech.models.deftan2.model import LARGE, DeFTAN2, DeFTAN2Config

__all__ = ["LARGE", "SYSTEM", "DeFTAN2", "DeFTAN2Config", "convert", "enhance", "pcm_loss"]

SYSTEM = System(
    name="deftan2",
    paper="arXiv:2308.15777",
    config=DeFTAN2Config,
    build=DeFTAN2,
    convert=convert,
    published={"base": (DeFTAN2Config(), 3_997_988), "large": (LARGE, 7_712_804)},
    run="sixfold.speech.models.deftan2.inference:run",
    export="sixfold.speech.models.deftan2.export:exportable",
    train="sixfold.speech.own_data:train_deftan2",
)
