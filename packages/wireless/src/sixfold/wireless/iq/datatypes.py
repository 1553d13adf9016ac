"""Datatypes of SigMF, and the values that their numbers stand for."""

import re

import numpy as np
from jaxtyping import Float, Shaped

from sixfold.core import UserError

DATATYPE = re.compile(r"([rc])([fiu])(8|16|32|64)(?:_(le|be))?")


def parse_datatype(name: str, where: str) -> np.dtype:
    """Return the type of a component of a SigMF datatype such as ``ci16_le``.

    Raises:
        UserError: there is no such datatype, or it is real.
    """
    match = DATATYPE.fullmatch(name)
    if match is None or (match[2] == "f" and match[3] in ("8", "16")):
        raise UserError(f"{where}: {name!r} is no datatype of SigMF; one is e.g. cf32_le, ci16_le")
    if match[4] is None and match[3] != "8":
        raise UserError(f"{where}: {name!r} lacks its byte order; write {name}_le or {name}_be")
    if match[1] == "r":
        raise UserError(
            f"{where}: {name!r} holds real samples, whose spectrum has only one half; make them "
            "complex first, e.g. by scipy.signal.hilbert"
        )
    return np.dtype(f"{'>' if match[4] == 'be' else '<'}{match[2]}{int(match[3]) // 8}")


def scaled(values: Shaped[np.ndarray, "time 2"]) -> Shaped[np.ndarray, "time 2"]:
    """Return components as float32, with the largest integer of their type as 1."""
    kind, bits = values.dtype.kind, 8 * values.dtype.itemsize
    if kind == "f":
        return np.ascontiguousarray(values, np.float32)
    half = 2.0 ** (bits - 1)
    zero = half - 0.5 if kind == "u" else 0.0  # unsigned zero lies between two numbers
    return np.ascontiguousarray((values - zero) / half, np.float32)


def quantised(
    values: Float[np.ndarray, "*time 2"], dtype: np.dtype
) -> Shaped[np.ndarray, "*time 2"]:
    """Return components in a type; the inverse of `scaled` within [-1, 1], clipped beyond."""
    if dtype.kind == "f":
        return values.astype(dtype)
    half = 2.0 ** (8 * dtype.itemsize - 1)
    zero = half - 0.5 if dtype.kind == "u" else 0.0
    limits = np.iinfo(dtype)
    rounded = np.rint(values.astype(np.float64) * half + zero)
    return rounded.clip(limits.min, limits.max).astype(dtype)
