"""FCN, ECN and LCN for export: a batch of any size."""

from sixfold.core.weights.export import Exportable
from sixfold.recsys.layers.exporting import columns_exportable
from sixfold.recsys.models.fcn.model import ECN, FCN, LCN


def exportable(model: FCN | ECN | LCN) -> Exportable:
    """Prepare the export: one input a column, probabilities out."""
    return columns_exportable(model)
