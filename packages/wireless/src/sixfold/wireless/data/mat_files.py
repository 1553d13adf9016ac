"""Arrays of numbers in MATLAB files of version 5 to 7, read with every length checked.

scipy's reader believes a damaged file, and takes the process with it. The format is "MAT-File Level
5" of MathWorks: elements of a tag (kind, bytes) and data, padded to 8 bytes, some compressed.
"""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sixfold.core.memory import check_memory

_HEAD = 128  # bytes of text, version and byte order before the first element
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_NUMERIC = range(6, 16)  # classes of arrays: double, single and integers
_COMPLEX = 0x0800  # flag of an array


class _Element(NamedTuple):
    kind: int
    data: memoryview
    end: int  # place behind it and its padding


def read_mat5(file: Path, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of some names, in the types in which they are stored.

    Raises:
        ValueError: the file is damaged, or holds no numbers under one of the names.
        zlib.error: likewise.
        UserError: an array is larger than the memory.
    """
    content = memoryview(file.read_bytes())
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:_HEAD]))
    if order is None:
        raise ValueError("its header names no byte order")
    found, place = {}, _HEAD
    while place < len(content):
        element = _element(content, place, order)
        place = element.end
        if element.kind == _COMPRESSED:
            element = _element(_unpacked(element.data, order, file), 0, order)
        if element.kind == _MATRIX:
            found |= _array(element.data, order, known)
    return found


def _element(content: memoryview, place: int, order: str) -> _Element:
    if place + 8 > len(content):
        raise ValueError("it is cut off within a tag")
    first, size = np.frombuffer(content[place : place + 8], f"{order}u4").tolist()
    if first >> 16:  # a small element: both numbers in one word, the data behind it
        kind, size, start, end = first & 0xFFFF, first >> 16, place + 4, place + 8
        if size > 4:
            raise ValueError(f"a small element says that it has {size} bytes")
    else:
        kind, start = first, place + 8
        end = start + size + (0 if kind == _COMPRESSED else -size % 8)
    if start + size > len(content):
        raise ValueError(f"it is cut off: {start + size - len(content)} bytes are missing")
    return _Element(kind, content[start : start + size], end)


def _unpacked(data: memoryview, order: str, file: Path) -> memoryview:
    """Unpack a compressed element, as much of it as its tag says."""
    unpacking = zlib.decompressobj()
    tag = unpacking.decompress(data, 8)
    size = int(np.frombuffer(tag[4:8].ljust(4, b"\0"), f"{order}u4")[0])
    check_memory(f"{file}, unpacked,", size)
    return memoryview(tag + unpacking.decompress(unpacking.unconsumed_tail, max(1, size)))


def _array(matrix: memoryview, order: str, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a matrix by its name; nothing if its name is none of the known."""
    flags = _element(matrix, 0, order)
    sides = _element(matrix, flags.end, order)
    title = _element(matrix, sides.end, order)
    name = bytes(title.data).rstrip(b"\0").decode("latin-1")
    if name not in known:
        return {}
    word = int(np.frombuffer(flags.data[:4], f"{order}u4")[0])
    if word & 0xFF not in _NUMERIC:
        raise ValueError(f"{name} is no array of numbers")
    shape = np.frombuffer(sides.data, f"{order}i4").tolist()
    if min(shape, default=-1) < 0:
        raise ValueError(f"{name} has the shape {tuple(shape)}")
    real = _element(matrix, title.end, order)
    values = _numbers(real, shape, order, name)
    if word & _COMPLEX:
        values = values + 1j * _numbers(_element(matrix, real.end, order), shape, order, name)
    return {name: values}


def _numbers(element: _Element, shape: list[int], order: str, name: str) -> np.ndarray:
    if element.kind not in _TYPES:
        raise ValueError(f"{name} is stored as type {element.kind}, which is none")
    values = np.frombuffer(element.data, order + _TYPES[element.kind])
    if len(values) != math.prod(shape):
        raise ValueError(f"{name} has {len(values)} numbers for the shape {tuple(shape)}")
    return values.reshape(shape, order="F").astype(values.dtype.newbyteorder("="))
