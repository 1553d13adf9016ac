"""ForwardGNN: graph neural networks trained without backpropagation through their layers.

N. Park, X. Wang, A. Simoulin, S. Yang, G. Yang, R. Rossi, P. Trivedi, N. Ahmed, "Forward Learning
of Graph Neural Networks", ICLR 2024. arXiv:2403.11004

Section of the paper -> file:

    3.1  forward-forward on graphs, Algorithm 1, Eq. 3 to 5 -> forward_forward.py
    3.1  a virtual node for each class                      -> virtual_nodes.py
    3.2  single forward, Algorithm 2                        -> single_forward.py
    3.3  top-down signals, Algorithm 3, Eq. 7 and 8         -> top_down.py
    3.4  link prediction, Algorithm 4, Eq. 9                -> link_prediction.py
    4    the baseline, backpropagation                      -> backprop.py

`estimator` is what users call; `config` has its settings, `inputs` the checks of what it is given,
and `convert` the official keys. `modes`
is the table of the procedures above, one for each mode of each task. What they share has files of
its own, because no single section describes it: `objective` (what a layer is trained for),
`layerwise` (layers trained one after the other), `top_down_training` (all layers in time steps)
and `frozen_input` (buffers of the input that a layer is trained on).

Departs from the paper and the official code: frozen layers are computed once instead of at every
validation. The numbers are those of the official code, whose own departures are kept: links in
top_to_input are trained without weight decay, and the states passed upward before the first time
step of top_to_loss are not normalised.
"""

from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.estimator import SYSTEM, ForwardGNN
from sixfold.graphs.models.forwardgnn.modes import MODES

__all__ = ["MODES", "SYSTEM", "ForwardGNN", "ForwardGNNConfig"]
