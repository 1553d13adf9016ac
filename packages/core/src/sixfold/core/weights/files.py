"""Open the file of a checkpoint, of which nothing is believed: neither its suffix nor its sizes.

What a file is, its first bytes say. A torch archive is verified by the CRC-32 of each of its
records, sixfold's own file by a SHA-256 of all of it. Nothing that a file may have pickled is run.
"""

import hashlib
import io
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch._weights_only_unpickler import Unpickler

from sixfold.core.config import UserError
from sixfold.core.messages import printable, shorten, shown

OWN = "sixfold"  # the metadata of sixfold's own checkpoints: system, settings and checksum
SETTINGS, CHECKSUM = "config", "sha256"
LARGEST_INDEX = 2**21  # bytes that name and describe tensors: of 10,000 and more
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before version 1.6

# What else people hand over, by its first bytes.
OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; run git lfs pull",
    b"\x93NUMPY": "a NumPy array; save a state dict with torch.save",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"\x89HDF": "an HDF5 file; save the weights as a state dict with torch.save",
    b"GGUF": "a GGUF file; give the PyTorch weights",
    b"%PDF": "a PDF document, no checkpoint; fetch it again",
}
MARKUP = re.compile(rb"\s*(<!doctype|<html|<\?xml)", re.IGNORECASE)
ONNX = re.compile(rb"\x08[\x01-\x20](\x12|:|B)")  # ir_version, then the producer, graph or opset
# Kinds of tensors that no system has, by the functions that would rebuild them.
REBUILT = re.compile(rb"c([\w.]+)\n(_rebuild_\w+|NestedTensor|bytearray)\n")
ODD_TENSORS = {
    b"_rebuild_sparse_tensor": "sparse",
    b"_rebuild_qtensor": "quantised",
    b"_rebuild_nested_tensor": "nested",
    b"_rebuild_njt": "nested",
    b"NestedTensor": "nested",
    b"_rebuild_meta_tensor_no_storage": "meta (they have shapes but no numbers)",
}


def read_file(path: Path) -> tuple[Any, dict[str, str]]:
    """Read what a checkpoint holds, on the CPU, and the metadata of a .safetensors file.

    Raises:
        UserError: the file is missing, damaged, refused, or something else.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the path of one of its checkpoints")
        if not path.is_file():
            raise UserError(f"there is no checkpoint {path}; give the path of a file")
        with path.open("rb") as file:
            head = file.read(2**10)
        size = path.stat().st_size
        if head.startswith(b"PK"):
            return _read_archive(path, size), {}
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
            return _read_safetensors(path)
        _check_kind(path, head)
        return _read_legacy(path), {}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a .safetensors file; of any other there are none."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return {}


def with_checksum(content: bytes) -> bytes:
    """Return a .safetensors file with its SHA-256 in the metadata, and these in order.

    safetensors writes them in an order that differs by the run.
    """
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    digest = _digest(header)
    digest.update(data)
    header["__metadata__"][CHECKSUM] = digest.hexdigest()
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)  # data begin on a multiple of eight
    return len(text).to_bytes(8, "little") + text + data


def _digest(header: dict[str, Any]) -> Any:
    """Begin a SHA-256 with a header: names, types, places and metadata, but for the checksum."""
    metadata = {k: v for k, v in header.get("__metadata__", {}).items() if k != CHECKSUM}
    plain = header | {"__metadata__": metadata}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode())


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_INDEX:
            raise UserError(f"{path} is refused: a header of {size} bytes describes no model")
        text = file.read(size)
        try:
            with safe_open(path, framework="pt") as tensors:
                metadata = tensors.metadata() or {}
                found = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
        except Exception as error:  # a damaged file fails in many ways
            reason = shorten(printable(str(error).partition("\n")[0]), 80)
            raise UserError(f"{path} is damaged or cut short ({reason}); fetch it again") from None
        if CHECKSUM in metadata:
            digest = _digest(json.loads(text))
            while piece := file.read(2**20):
                digest.update(piece)
            if digest.hexdigest() != metadata[CHECKSUM]:
                raise UserError(f"{path} is damaged: it differs from its checksum; fetch it again")
    odd = metadata.keys() - {OWN, SETTINGS, CHECKSUM}
    if odd and (OWN in metadata or CHECKSUM in metadata):
        raise UserError(f"{path} is damaged: it has the metadata {shown(min(odd))}; fetch it again")
    return found, metadata


def _read_archive(path: Path, size: int) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_records(archive, path, size)
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        reason = "no index at its end" if "not a zip" in str(error) else str(error)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        _refuse_code(path, str(error))
        reason = str(error).partition("\n")[0] or type(error).__name__
    reason = shorten(printable(reason), 120)
    raise UserError(f"{path} is damaged or no checkpoint ({reason}); fetch it again") from None


def _read_records(archive: zipfile.ZipFile, path: Path, size: int) -> Any:
    """Unpickle a torch archive; of its storages those are read that a tensor asks for."""
    records = archive.infolist()
    names = {record.filename.partition("/")[2]: record for record in records}
    _check_archive(names, path)
    if sum(record.file_size for record in records) > 16 * size:  # torch itself compresses nothing
        raise UserError(f"{path} is refused: it declares more bytes than it has; fetch it again")
    if not any(record.CRC for record in records):  # torch.serialization.set_crc32_options(False)
        for record in records:
            record.CRC = None  # type: ignore[assignment]  # so that zipfile does not compare it
    if names["data.pkl"].file_size > LARGEST_INDEX:
        raise UserError(f"{path} is refused: it holds more than the weights of a model")
    if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
        raise UserError(f"{path} was saved on a big-endian machine; save it on a common one")
    pickled = archive.read(names["data.pkl"])
    _refuse_odd_tensors(path, pickled)
    storages: dict[str, Any] = {}

    def load_storage(saved: Any) -> Any:
        _, kind, key, _, count = saved
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        if key not in storages:
            data = bytearray(archive.read(names[f"data/{key}"]))
            if len(data) != count * dtype.itemsize:
                raise UserError(
                    f"{path} is damaged: it declares {count} numbers where it holds {len(data)} "
                    "bytes; fetch it again"
                )
            storage = torch.frombuffer(data, dtype=torch.uint8).untyped_storage() if data else None
            storages[key] = storage or torch.UntypedStorage(0)
        return torch.storage.TypedStorage(wrap_storage=storages[key], dtype=dtype, _internal=True)

    unpickler = Unpickler(io.BytesIO(pickled), encoding="utf-8")
    unpickler.persistent_load = load_storage  # type: ignore[method-assign, assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of protocols: what cannot be read is an error
        return unpickler.load()


def _check_archive(names: dict[str, Any], path: Path) -> None:
    """Refuse a zip archive that is not one of torch.save, by what it is."""
    if "constants.pkl" in names:
        raise UserError(
            f"{path} is refused: it is TorchScript, which is code; if you trust it, save "
            "torch.jit.load(path).state_dict() with torch.save"
        )
    if "archive_format" in names or "models/model.json" in names:
        raise UserError(
            f"{path} is a graph of torch.export; save torch.export.load(path).state_dict with "
            "torch.save"
        )
    if "data.pkl" not in names:
        what = "a zip archive without a checkpoint of torch.save; unpack it first"
        if any(record.filename.endswith(".npy") for record in names.values()):
            what = "an archive of NumPy arrays; save a state dict with torch.save"
        raise UserError(f"{path} is {what}")


def _read_legacy(path: Path) -> Any:
    """Read a checkpoint of torch.save before PyTorch 1.6, which has no checksums."""
    with path.open("rb") as file:
        _refuse_odd_tensors(path, file.read(LARGEST_INDEX))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        _refuse_code(path, str(error))
        reason = str(error).partition("\n")[0] or type(error).__name__
    reason = shorten(printable(reason), 80)
    raise UserError(f"{path} is damaged or no checkpoint ({reason}); fetch it again")


def _check_kind(path: Path, head: bytes) -> None:
    """Refuse what is not a checkpoint of torch.save at all, by what it is."""
    if not head:
        raise UserError(f"{path} is empty, so damaged; fetch it again")
    kind = next((text for start, text in OTHERS.items() if head.startswith(start)), None)
    if MARKUP.match(head):
        kind = "a web page, no checkpoint (damaged or no checkpoint); fetch it again"
    elif ONNX.match(head):
        kind = "an ONNX graph, whose weights have other names; give the PyTorch weights"
    if head.startswith(b"\x80") and not head.startswith(LEGACY):
        kind = "a plain pickle (damaged or no checkpoint); save its state dict with torch.save"
    if kind is not None:
        raise UserError(f"{path} is {kind}")
    if not head.startswith(LEGACY):
        raise UserError(
            f"{path} is damaged or no checkpoint: it begins with {shown(head[:16])}; fetch it again"
        )


def _refuse_odd_tensors(path: Path, pickled: bytes) -> None:
    names = {match[2] for match in REBUILT.finditer(pickled)}
    if b"bytearray" in names:  # which takes any amount of memory at once
        raise UserError(f"{path} is refused: it holds a bytearray; save the state dict alone")
    found = names & ODD_TENSORS.keys()
    for name in found:
        raise UserError(
            f"{path} is refused: it holds tensors that are {ODD_TENSORS[name]}; save plain ones, "
            "e.g. by to_dense() or dequantize()"
        )


def _refuse_code(path: Path, reason: str) -> None:
    foreign = re.search(r"GLOBAL (\S+)|whose module (\S+) is blocked", reason)
    if foreign is not None:
        name = shorten(printable(foreign[1] or foreign[2]), 60)
        raise UserError(
            f"{path} is refused: besides weights it holds {name}, and unpickling that can run "
            "code; if you trust it, read it with torch.load(path, weights_only=False) and save its "
            "state_dict alone"
        )
