"""DTRN: each task has its own view of what a user did and of every field, before any experts.

Q. Liu, Z. Zhou, G. Jiang, T. Ge, D. Lian, "Deep Task-specific Bottom Representation Network for
Multi-Task Recommendation", CIKM 2023. arXiv:2308.05996

No official code was found, and the paper's text was not to be had: the ideas are the abstract's,
the details are decisions of this repository. Sequences use the target's table, with positions that
all behaviours share; scales start at 1; one transformer block; attention to the target pools an
encoded sequence; a weight for each field, 1 at the start. ``conditional=False`` (without TIM) keeps
the transformer and its pooling, with norms that all tasks and behaviours share; ``refine=False``
(without TRM) leaves every field as it is.

From the paper to the files:

- the whole network -> model.py
- task-specific interest module (TIM), refinement module (TRM) -> layers.py
- backbones: Shared-Bottom, MMoE, PLE -> sixfold.recsys.layers.multitask
- not in the paper: convert.py (checkpoints in the layout of the specification), export.py
"""

from sixfold.core import System
from sixfold.recsys.layers.multitask import multitask_loss as loss
from sixfold.recsys.models.dtrn.convert import convert, from_official, to_official
from sixfold.recsys.models.dtrn.model import DTRN, DTRNConfig

__all__ = ["DTRN", "SYSTEM", "DTRNConfig", "convert", "from_official", "loss", "to_official"]

SYSTEM = System(
    name="dtrn",
    paper="arXiv:2308.05996",
    config=DTRNConfig,
    build=DTRN,
    convert=convert,
    # not published: counted here, of the settings of this repository's experiment
    published={"MovieLens-100k": (DTRNConfig(), 191_742)},
    export="sixfold.recsys.models.dtrn.export:exportable",
    run="sixfold.recsys.own_data:run_dtrn",
    train="sixfold.recsys.own_data:train_dtrn",
)
