"""FinalMLP and DualMLP for export: constant gates folded, a batch of any size."""

from sixfold.core.weights.export import Exportable
from sixfold.recsys.layers.exporting import columns_exportable
from sixfold.recsys.models.finalmlp.model import DualMLP, FinalMLP


def exportable(model: FinalMLP | DualMLP) -> Exportable:
    """Prepare the export: one input a column, probabilities out."""
    model = model.eval()
    return columns_exportable(model.fold_gates() if isinstance(model, FinalMLP) else model)
