"""Fetch benchmark data: from the cache, from a mirror folder, or from its official home.

The packages hold no data, only records: official home, licence, size and SHA-256 of every file.
`fetch` looks in this order:

1. the cache: ``SIXFOLD_CACHE``, else the user's cache folder;
2. ``SIXFOLD_MIRROR``: folders separated as in PATH that hold ``<set>/<file>``, used in place;
3. the official URL, resumed where an earlier download stopped.

Every file that is used has the recorded checksum; a file under its final name is whole.
"""

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.config import UserError
from sixfold.core.data.archive import unpack

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Args:
        path: Where it lies in the dataset's folder, with forward slashes.
        sha256: Checksum in hexadecimal.
        size: Length in bytes.
        url: Where it is downloaded from; ``None`` if it exists in a mirror only.
        unpack: For a zip or tar archive: the folder, in the dataset's, that its members go to.
    """

    path: str
    sha256: str
    size: int
    url: str | None = None
    unpack: str = ""


@dataclass(frozen=True)
class Dataset:
    """A published set of files: its name in caches and mirrors, home page, licence and citation."""

    name: str
    home: str
    licence: str
    citation: str
    files: tuple[File, ...]


def available(dataset: Dataset) -> bool:
    """Tell, from file names alone and without the network, if cache or mirror hold all its files.

    Raises:
        UserError: SIXFOLD_MIRROR names a folder that does not exist.
    """
    cached = cache_folder() / dataset.name
    return all(
        (cached / (file.unpack or file.path)).exists() or _in_mirror(dataset, file)
        for file in dataset.files
    )


def fetch(dataset: Dataset) -> Path:
    """Return the folder that holds every file of the set, downloading what is missing.

    A set that one mirror holds whole is used in place. Otherwise the set is completed in the cache.

    Raises:
        UserError: a file cannot be had (no network, no mirror), has the wrong content, is a web
            page or an unsafe archive, or the cache cannot be written. Nothing half-written stays
            under a final name.
    """
    cached = cache_folder() / dataset.name
    missing = [file for file in dataset.files if not _is_cached(cached, file)]
    if not missing:
        return cached
    for folder in (mirror / dataset.name for mirror in mirror_folders()):
        if all((folder / file.path).is_file() and not file.unpack for file in dataset.files):
            for file in dataset.files:
                _verify(folder / file.path, file)
            return folder
    try:
        for file in missing:
            _complete(dataset, file, cached)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or cached}: {error.strerror}; "
            "set SIXFOLD_CACHE to a folder with space that you may write"
        ) from None
    return cached


def cache_folder() -> Path:
    """Return the folder of downloads: SIXFOLD_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("SIXFOLD_CACHE"):
        return Path(chosen).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("sixfold"))


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


def _is_cached(cached: Path, file: File) -> bool:
    if file.unpack:
        return (cached / file.unpack).is_dir()  # renamed into place only after it was verified
    return (cached / file.path).is_file() and not _fault(cached / file.path, file)


def _fault(path: Path, file: File) -> str:
    if (size := path.stat().st_size) != file.size:
        return f"has {size} bytes instead of {file.size}"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if digest == file.sha256 else f"has SHA-256 {digest} instead of {file.sha256}"


def _verify(path: Path, file: File) -> None:
    if fault := _fault(path, file):
        raise UserError(f"{path} {fault}: not the published file; replace or remove it")


def _in_mirror(dataset: Dataset, file: File) -> Path | None:
    places = (mirror / dataset.name / file.path for mirror in mirror_folders())
    return next((place for place in places if place.is_file()), None)


def _complete(dataset: Dataset, file: File, cached: Path) -> None:
    target = cached / file.path
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    source = _in_mirror(dataset, file)
    if source is not None:
        _verify(source, file)
    elif file.url is not None:
        source = _download(file, file.url, part)
    else:
        raise UserError(
            f"{dataset.name}/{file.path} cannot be downloaded: the set comes from {dataset.home}; "
            f"get it there, and set SIXFOLD_MIRROR to the folder that holds {dataset.name}/"
        )
    if file.unpack:
        try:
            unpack(source, cached / file.unpack)
        finally:
            part.unlink(missing_ok=True)
        return
    if source != part:
        shutil.copyfile(source, part)
    os.replace(part, target)


def _download(file: File, url: str, part: Path) -> Path:
    """Download to `part`, going on where it ends, and return it once its checksum is right."""
    mirror_helps = "or set SIXFOLD_MIRROR to a folder that holds the set"
    try:
        _receive(file, url, part)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # it holds less than we have: what we have is no part of it
            part.unlink(missing_ok=True)
        raise UserError(
            f"{url} answered {error.code} {error.reason}; try again later, {mirror_helps}"
        ) from None
    except _NETWORK_ERRORS as error:
        raise UserError(
            f"cannot download {url}: {getattr(error, 'reason', error)}; check the network and run "
            f"this again (it goes on where it stopped), {mirror_helps}"
        ) from None
    if (held := part.stat().st_size) < file.size:
        raise UserError(
            f"{url} stopped after {held} of {file.size} bytes; run this again: it goes on there"
        )
    if fault := _fault(part, file):
        part.unlink()
        raise UserError(
            f"the download of {url} {fault}: it was thrown away; run this again, and if that does "
            f"not help, the file has changed at its home: get the old one, {mirror_helps}"
        )
    return part


def _receive(file: File, url: str, part: Path) -> None:
    held = part.stat().st_size if part.exists() else 0
    if held >= file.size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "sixfold"})
    if held:
        request.add_header("Range", f"bytes={held}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        if response.headers.get_content_type() == "text/html":
            raise UserError(
                f"{url} sent a web page instead of {file.path} (a login or an error page?); open "
                "it in a browser, or set SIXFOLD_MIRROR to a folder that holds the set"
            )
        if response.status != 206:  # not the rest but the whole file again
            held = 0
        with part.open("ab" if held else "wb") as stream:
            for chunk in _shown(response, file, held):
                held += stream.write(chunk)
                if held > file.size:  # not our file: its checksum will say so
                    return


def _shown(response: http.client.HTTPResponse, file: File, held: int) -> Iterable[bytes]:
    """Yield the body in chunks, with a progress bar where a person is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(file.path, total=file.size, completed=held)
        while chunk := response.read(_CHUNK_BYTES):
            progress.advance(task, len(chunk))
            yield chunk
