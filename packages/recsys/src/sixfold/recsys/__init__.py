"""Recommendation models: FinalMLP, FCN and DTRN."""

SYSTEMS = ()

__all__ = ["SYSTEMS"]
