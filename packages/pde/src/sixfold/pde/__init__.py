"""Neural solvers of partial differential equations: SineNet and LESnets."""

SYSTEMS = ()

__all__ = ["SYSTEMS"]
