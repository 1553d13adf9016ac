"""DTRN for export: a batch of any size, sequences of any length up to the largest."""

from sixfold.core.weights.export import Exportable
from sixfold.recsys.layers.behaviours import behaviours_exportable
from sixfold.recsys.models.dtrn.model import DTRN


def exportable(model: DTRN) -> Exportable:
    """Prepare the export: one input a column, probabilities out."""
    return behaviours_exportable(model, model.config.max_length)
