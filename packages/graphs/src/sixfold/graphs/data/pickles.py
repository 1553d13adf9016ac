"""Pickles in published graphs, which torch_geometric loads: arrays and plain values, never code."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_SPARSE = ("scipy.sparse.csr", "scipy.sparse._csr")
HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((module, name) for module in _ARRAYS for name in ("_reconstruct", "scalar")),
    *((module, "csr_matrix") for module in _SPARSE),
    ("collections", "defaultdict"),
    ("builtins", "list"),
    ("__builtin__", "list"),  # as Python 2 wrote it, like the next two
    ("__builtin__", "object"),
    ("copy_reg", "_reconstructor"),
    ("_codecs", "encode"),
}


class _Harmless(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which could run code")
        return super().find_class(module, name)


@contextmanager
def harmless_pickles() -> Iterator[None]:
    """Let `pickle.load`, as torch_geometric and NumPy call it, make nothing but arrays."""

    def load(file: Any, **options: Any) -> Any:
        return _Harmless(file, **options).load()

    original, pickle.load = pickle.load, load
    try:
        yield
    finally:
        pickle.load = original
