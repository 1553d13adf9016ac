"""Mowst: a mixture of a weak expert, an MLP on single nodes, and a strong expert, a GNN.

H. Zeng, H. Lyu, D. Hu, Y. Xia, J. Luo, "Mixture of Weak & Strong Experts on Graphs", ICLR 2024.
arXiv:2311.05185

A gate turns the dispersion of the weak expert's logits into the confidence C that it is right. In
Mowst a node is left to the weak expert with probability C, and the experts are trained in turns. In
Mowst* the logits are mixed, C z1 + (1 - C) z2, and everything is trained jointly. With more
experts, weakest first, the mixture weights are C1, (1 - C1) C2, and so on. A single expert is
itself: the paper's baselines.

Part of the paper -> file:

    the mixture, its inference, Mowst and Mowst*  -> model.py
    dispersion, confidence, mixture weights       -> gates.py
    weak and strong experts                       -> experts.py
    training in turns (Algorithm 2) and jointly   -> training.py

Three files are no part of every system: `gates` and `experts` are the two kinds of networks in the
mixture, and `early_exit` runs the strong expert only where the weak one is not confident. `config`
has the settings, `convert` the official keys.

Departs from the official code, which departs from the paper: `official_behaviour`, with the
setting of that name, restores it. Here, gates are restored together with their experts;
pretraining stops early by the loss of the validation nodes; turns are validated by the expected
accuracy of drawn experts; Mowst* predicts from logits. Algorithm 1 draws an expert for each node:
`Mowst.expected_accuracy` is that of the draws, `Mowst.score` that of the most probable class.
"""

from sixfold.graphs.models.mowst.config import MowstConfig
from sixfold.graphs.models.mowst.model import SYSTEM, Mowst

__all__ = ["SYSTEM", "Mowst", "MowstConfig"]
