"""DTRN for export: a batch of any size, sequences of any length, the same for all behaviours."""

import torch

from sixfold.core.weights.export import Exportable
from sixfold.recsys.layers.exporting import argument_names, columns_exportable
from sixfold.recsys.models.dtrn.model import DTRN


def exportable(model: DTRN) -> Exportable:
    """Prepare the export: one input a column, probabilities out."""
    ready, config = columns_exportable(model), model.config
    length = torch.export.Dim("length", max=config.max_length)
    names = argument_names([field.name for field in config.fields])
    dynamic = dict(ready.dynamic)
    for name, field in zip(names, config.fields, strict=True):
        if field.name in model.behaviours.names:
            dynamic[name] = {**dynamic[name], 1: length}
    return ready._replace(dynamic=dynamic)
