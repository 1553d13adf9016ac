"""Wireless models: CMuSeNet, AdaFortiTran and ICGNN."""

SYSTEMS = ()

__all__ = ["SYSTEMS"]
