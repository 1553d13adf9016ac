"""Fetch published files: from the cache, from a mirror folder, or from their official home.

The packages hold no data, only records: official home, licence, size and SHA-256 of every file.
`fetch` looks in this order:

1. the cache: ``SIXFOLD_CACHE``, else the user's cache folder;
2. ``SIXFOLD_MIRROR``: folders separated as in PATH that hold ``<set>/<file>``, used in place;
3. the official URL, going on where an earlier download stopped.

Every file has the recorded checksum. Where none is recorded, the checksum of the first download is
kept beside the file as ``<file>.sha256`` and holds from then on (trust on first use).
"""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_file, explain_write_errors, write_atomic
from sixfold.core.data.digests import fault, sha256
from sixfold.core.data.locks import held

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30


@dataclass(frozen=True)
class File:
    """One published file.

    Args:
        path: Place in the set's folder, with forward slashes.
        sha256: Checksum in hexadecimal; empty if nobody has recorded one.
        size: Length in bytes; 0 if it is not known.
        url: Official address; None if the file exists in mirrors only.
        licence: Licence, where it is not the set's.
    """

    path: str
    sha256: str = ""
    size: int = 0
    url: str | None = None
    licence: str = ""


@dataclass(frozen=True)
class Dataset:
    """A published set of files: its name in caches and mirrors, home page, licence and citation."""

    name: str
    home: str
    licence: str
    citation: str
    files: tuple[File, ...]


def available(dataset: Dataset) -> bool:
    """Return whether cache or mirrors hold all files, by their names alone, without the network.

    Raises:
        UserError: SIXFOLD_MIRROR names a folder that does not exist.
    """
    cached = cache_folder() / dataset.name
    return all((cached / file.path).exists() or _in_mirror(dataset, file) for file in dataset.files)


def fetch(dataset: Dataset) -> Path:
    """Return the folder that holds every file of the set, downloading what is missing.

    A set that one mirror holds completely is used in place. Otherwise the set is completed in the
    cache.

    Raises:
        UserError: a file cannot be had (no network, no mirror), has the wrong content or is a web
            page, or the cache cannot be written. Nothing half-written stays under a final name.
    """
    cached = cache_folder() / dataset.name
    places = {cached / file.path: file for file in dataset.files}
    if not any(_fault(*item) for item in places.items()):
        return cached
    for folder in (mirror / dataset.name for mirror in mirror_folders()):
        if all((folder / file.path).is_file() for file in dataset.files):
            for file in dataset.files:
                _verify(folder / file.path, file)
            return folder
    with held(cached, f"{dataset.name} is downloaded"):
        for place, file in places.items():
            if _fault(place, file):  # another process may have been faster
                _complete(dataset, file, place)
    return cached


def cache_folder() -> Path:
    """Return the folder of downloads: SIXFOLD_CACHE, else the user's cache folder.

    Raises:
        UserError: the user has no home.
    """
    import pooch

    chosen = os.environ.get("SIXFOLD_CACHE")
    try:
        folder = os.path.expanduser(chosen) if chosen else str(pooch.os_cache("sixfold"))
    except RuntimeError:  # platformdirs finds no home
        folder = "~"
    if folder.startswith("~"):
        raise UserError("there is no home folder for downloads; set SIXFOLD_CACHE to a folder")
    return Path(folder).absolute()


def mirror_folders() -> list[Path]:
    """Return the folders named by SIXFOLD_MIRROR, in order.

    A relative name is looked for from the working folder upwards, because DVC runs each stage in
    the folder of its pipeline and the variable is set in the repository's.

    Raises:
        UserError: a named folder does not exist.
    """
    folders = []
    here = Path.cwd()
    for name in filter(None, os.environ.get("SIXFOLD_MIRROR", "").split(os.pathsep)):
        places = [start / Path(name).expanduser() for start in (here, *here.parents)]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise UserError(
                f"SIXFOLD_MIRROR names {name!r}, which is no folder (looked from {here} upwards); "
                "correct it, or unset it to do without a mirror"
            )
        folders.append(found.resolve())
    return folders


def _fault(path: Path, file: File) -> str:
    """Return what is wrong with a file; empty if nothing is, or nothing is known of it."""
    return fault(path, file.size, _expected(path, file))


def _expected(path: Path, file: File) -> str:
    record = _record(path)
    if file.sha256 or not record.is_file():
        return file.sha256
    digest = record.read_text(errors="replace").partition(" ")[0]
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise UserError(f"{record} is damaged; delete it and {path.name}, and run this again")
    return digest


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _verify(path: Path, file: File) -> None:
    if fault := _fault(path, file):
        raise UserError(f"{path} {fault}: not the published file; replace or remove it")


def _in_mirror(dataset: Dataset, file: File) -> Path | None:
    places = (mirror / dataset.name / file.path for mirror in mirror_folders())
    return next((place for place in places if place.is_file()), None)


def _complete(dataset: Dataset, file: File, target: Path) -> None:
    source, name = _in_mirror(dataset, file), f"{dataset.name}/{file.path}"
    if source is not None:
        _verify(source, file)
        with atomic_file(target) as copy:
            shutil.copyfile(source, copy)
        return
    mend = f"put it at {target}, or set SIXFOLD_MIRROR to a folder that holds {name}"
    if file.url is None:
        raise UserError(f"{name} cannot be downloaded: the set comes from {dataset.home}; {mend}")
    with explain_write_errors(target):
        target.unlink(missing_ok=True)  # what is there is not the published file
        _download(file, file.url, target, mend)
    if not _expected(target, file):
        digest = sha256(target)
        write_atomic(_record(target), f"{digest}  {target.name}\n")
        print(f"{name}: no checksum is recorded; trusted on first use, SHA-256 {digest}")


def _download(file: File, url: str, target: Path, mend: str) -> None:
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _resume(url, part, file.size)
        if wrong := fault(part, file.size, _expected(target, file)):
            part.unlink()
            raise ValueError(f"what came {wrong}, and is deleted")
        part.replace(target)
    except (RequestException, HTTPError, ValueError) as error:
        held_bytes = part.stat().st_size if part.is_file() else 0
        stopped = f"{url} stopped after {held_bytes} of {file.size} bytes"
        reason = stopped if held_bytes else f"cannot download {url}: {error}"
        raise UserError(f"{reason}; run this again (it goes on there), or {mend}") from None


def _resume(url: str, part: Path, size: int) -> None:
    """Download what ``part`` lacks of a file of so many bytes, 0 if that is not known."""
    import requests
    from rich.progress import wrap_file

    if part.is_symlink():
        part.unlink()  # its name is known, so that anyone could have put it there
    begun = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "sixfold", "Accept-Encoding": "identity", "Range": f"bytes={begun}-"}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        range_sent = response.headers.get("Content-Range", f"bytes {begun}-")
        if response.status_code == 416 or not range_sent.startswith(f"bytes {begun}-"):
            part.unlink(missing_ok=True)  # it is no part of this file
        response.raise_for_status()
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise ValueError("a web page came instead of the file; a login or an error page?")
        if begun and not part.exists():
            raise ValueError("the server sent another part of the file than was asked for")
        mode = "ab" if response.status_code == 206 else "wb"  # 200 is the whole file again
        left = size - begun * (mode == "ab")
        total = int(response.headers.get("Content-Length", 0))
        body: Any = response.raw
        hidden = not sys.stdout.isatty()
        with (
            part.open(mode) as stream,
            wrap_file(body, total, description=part.stem, disable=hidden) as source,
        ):
            while chunk := source.read(_CHUNK_BYTES):
                stream.write(chunk)
                left -= len(chunk)
                if size and left < 0:
                    break  # a server that never ends
