"""Unpack archives from strangers: all or nothing, and never outside the folder asked for."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from sixfold.core.config import UserError


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive to `folder`, which must not exist yet; all or nothing.

    Raises:
        UserError: it is no such archive, is damaged, or a member is a link or device or would be
            written outside `folder`.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as members:
                for info in members.infolist():
                    link = stat.S_ISLNK(info.external_attr >> 16)
                    _refuse_unsafe(archive, info.filename, special=link)
                members.extractall(unfinished)
        else:
            with tarfile.open(archive) as members:
                for info in members:
                    _refuse_unsafe(archive, info.name, special=not (info.isfile() or info.isdir()))
                members.extractall(unfinished, filter="data")
        os.replace(unfinished, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is no zip or tar archive that can be read: {error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _refuse_unsafe(archive: Path, name: str, *, special: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if special or path.is_absolute() or ".." in path.parts:
        what = "a link or device" if special else "a path outside its folder"
        raise UserError(f"{archive.name} is unsafe, nothing was unpacked: {name!r} is {what}")
