"""SineNet for export: any number of fields, on the grid of the training."""

from sixfold.core.weights.export import Exportable
from sixfold.pde.fields.export import exportable as frames_exportable
from sixfold.pde.models.sinenet.model import SineNet


def exportable(model: SineNet) -> Exportable:
    """Prepare the export; a conditional network has the inputs ``time`` and ``parameter`` too."""
    config = model.config
    takes = {"time": config.conditioning != "none", "parameter": config.condition_on_parameter}
    return frames_exportable(model, [name for name, wanted in takes.items() if wanted])
