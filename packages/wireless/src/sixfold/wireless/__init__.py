"""Wireless models: CMuSeNet, AdaFortiTran and ICGNN."""

from sixfold.wireless.models import adafortitran

SYSTEMS = (adafortitran.SYSTEM, adafortitran.FORTITRAN, adafortitran.LINEAR)

__all__ = ["SYSTEMS"]
