"""Recordings of one's own, in the layouts that people have, as pairs of input and targets.

Pairs for enhancement and arrays:

- VoiceBank+DEMAND: folders ``noisy*`` and ``clean*`` with the same file names (or, as in the DNS
  challenge, names that end in the same ``fileid_<n>``);
- folders ``clean`` and ``noise``, mixed on the fly;
- ``.scp``: lines of ``noisy.wav clean.wav``, or ``noisy.scp`` and ``clean.scp`` in a folder, of
  lines ``<id> <path>``;
- ``.csv`` with columns such as ``noisy`` and ``clean``.

Mixtures for separation:

- LibriMix, WSJ0-2mix: folders ``mix`` (or ``mix_clean``, ``mix_both``), ``s1``, ``s2`` ...;
- ``.csv`` with columns such as ``mixture_path``, ``source_1_path``, ``source_2_path``.

Any sample rate and format that `sixfold.speech.audio.read_audio` takes. Headers are read at once,
samples when they are needed.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.config import UserError
from sixfold.core.messages import shorten, some
from sixfold.core.progress import progress
from sixfold.speech.audio.files import open_recording

NOISY = r"noisy|mix(ture|_both|_single|_clean)?"
CLEAN = r"clean|target|source|s(ource_?)?1"
COLUMN = r"({})(_?(path|wav|file))?"  # of a .csv, e.g. mixture_path
SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".sph", ".m4a"}


@dataclass(frozen=True)
class Item:
    """One recording: the network's input, and what it should make of it.

    Args:
        input: Noisy recording or mixture; clean speech where ``targets`` is empty.
        targets: Clean recordings of one channel, or whose first channel counts, as long as the
            input; none where noise is added on the fly.
        sample_rate: Sample rate of all of them in Hz.
        channels: Number of channels of the input.
        samples: Length in samples.
    """

    input: Path
    targets: tuple[Path, ...]
    sample_rate: int
    channels: int
    samples: int


@dataclass(frozen=True)
class Layout:
    """Recordings found, and noise recordings to add to them, if they are clean."""

    items: list[Item]
    noises: list[Item]


def open_layout(place: Path, targets: int) -> Layout:
    """Find the recordings of a folder or list, and check their headers.

    Args:
        place: Folder, ``.csv`` or ``.scp``.
        targets: Number of targets of each recording: 1, or the number of speakers.

    Raises:
        UserError: nothing is found in a known layout, a file is missing, cannot be read, or is of
            another length or rate than its partner.
    """
    if not place.exists():
        raise UserError(f"there is no {place}; --data is a folder, a .csv or a .scp")
    if not place.is_dir():
        rows = {".csv": _csv_rows, ".scp": _scp_rows}.get(place.suffix.lower())
        if rows is None or not place.is_file():
            raise UserError(f"{place} is no .csv and no .scp; give one of these, or a folder")
        found = rows(place, targets)
    elif targets == 1 and (place / "clean").is_dir() and (place / "noise").is_dir():
        noises = _checked([(path,) for path in _sounds(place / "noise").values()])
        return Layout(_checked([(path,) for path in _sounds(place / "clean").values()]), noises)
    else:
        found = _folder_rows(place, targets)
    if not found:
        raise UserError(f"{place} lists no recording")
    return Layout(_checked(found), [])


Row = tuple[Path, ...]  # input and targets


def _folder_rows(place: Path, targets: int) -> list[Row]:
    if targets == 1 and (place / "noisy.scp").is_file() and (place / "clean.scp").is_file():
        noisy, clean = (_scp_ids(place / f"{name}.scp") for name in ("noisy", "clean"))
        return _matched(noisy, [clean], [place / "noisy.scp", place / "clean.scp"])
    folders = sorted(path for path in place.iterdir() if path.is_dir())
    inputs = [path for path in folders if re.match(NOISY, path.name)]
    training = [path for path in inputs if "test" not in path.name] or inputs
    rows: list[Row] = []
    for folder in training:
        partners = _partners(folder, targets)
        if partners:
            named = [_sounds(path) for path in (folder, *partners)]
            rows += _matched(named[0], named[1:], [folder, *partners])
    if rows:
        return rows
    wanted = "noisy*/ with clean*/, or clean/ with noise/" if targets == 1 else "mix*/"
    wanted += " with " + ", ".join(f"s{n}/" for n in range(1, targets + 1)) if targets > 1 else ""
    has = ", ".join(path.name + "/" for path in folders) or "no folders"
    raise UserError(f"{place} should hold {wanted} (or give a .csv or .scp); it holds {has}")


def _partners(folder: Path, targets: int) -> list[Path]:
    """Return the folders of the targets that belong to a folder of inputs, if all are there."""
    if targets == 1:
        names = [folder.name.replace("noisy", "clean"), "clean", "s1"]
        found = [folder.parent / name for name in names if name != folder.name]
        return [path for path in found if path.is_dir()][:1]
    found = [folder.parent / f"s{n}" for n in range(1, targets + 1)]
    return found if all(path.is_dir() for path in found) else []


def _sounds(folder: Path) -> dict[str, Path]:
    """Return the sound files of a folder by what tells them from one another."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SOUNDS:
            name = str(path.relative_to(folder).with_suffix(""))
            number = re.search(r"fileid_\d+$", name)  # DNS challenge: the rest differs
            found[number[0] if number else name] = path
    if not found:
        raise UserError(f"{folder} holds no sound files ({', '.join(sorted(SOUNDS))})")
    return found


def matched_files(reference: Path, estimate: Path) -> dict[str, tuple[Path, Path]]:
    """Pair two sound files, or the sound files of two folders by their names.

    Raises:
        UserError: a file or folder is missing, or a recording has no partner.
    """
    if reference.is_file() and estimate.is_file():
        return {estimate.name: (reference, estimate)}
    for place in (reference, estimate):
        if not place.is_dir():
            raise UserError(f"{place} is no folder; give two folders, or two files")
    found = [_sounds(place) for place in (reference, estimate)]
    rows = _matched(found[0], found[1:], [reference, estimate])
    return {key: (row[0], row[1]) for key, row in zip(found[0], rows, strict=True)}


def _matched(
    inputs: dict[str, Path], targets: Sequence[dict[str, Path]], places: Sequence[Path]
) -> list[Row]:
    for place, named in zip(places[1:], targets, strict=True):
        if lonely := sorted(inputs.keys() ^ named.keys()):
            where = places[0] if lonely[0] in inputs else place
            raise UserError(
                f"{len(lonely)} recordings of {places[0]} and {place} have no partner of the same "
                f"name in the other, the first is {lonely[0]!r} in {where}"
            )
    return [(path, *(named[key] for named in targets)) for key, path in inputs.items()]


def _csv_rows(place: Path, targets: int) -> list[Row]:
    table = csv.DictReader(io.StringIO(_text(place), newline=""))
    try:
        columns = _columns(place, [name for name in table.fieldnames or () if name], targets)
        return [
            tuple(_path(place, row[column], f"line {number}") for column in columns)
            for number, row in enumerate(table, 2)
        ]
    except csv.Error as error:
        raise UserError(f"{place} is no CSV table ({error}); save it as one") from None


def _columns(place: Path, names: Sequence[str], targets: int) -> list[str]:
    """Return the names of the columns of the input and of each target."""
    wanted = {"input": NOISY}
    if targets == 1:
        wanted["target"] = CLEAN
    else:
        wanted |= {f"source {n}": rf"s(ource_?)?{n}" for n in range(1, targets + 1)}
    columns = []
    for what, pattern in wanted.items():
        fits = re.compile(COLUMN.format(pattern), re.IGNORECASE)
        column = next((name for name in names if fits.fullmatch(name.strip())), None)
        if column is None:
            example = {"input": "noisy or mixture_path", "target": "clean"}.get(
                what, f"{what.replace(' ', '_')}_path"
            )
            raise UserError(
                f"{place} has no column of the {what} (e.g. {example}); it has: "
                f"{shorten(some(names), 60) or 'none'}"
            )
        columns.append(column)
    return columns


def _scp_rows(place: Path, targets: int) -> list[Row]:
    rows = []
    for number, words in _lines(place):
        paths = [word for word in words if not re.fullmatch(r"[\d.]+", word)]  # or durations
        if len(paths) != targets + 1:
            raise UserError(
                f"{place}, line {number}: {targets + 1} paths were expected (input and targets), "
                f"there are {len(paths)}"
            )
        rows.append(tuple(_path(place, path, f"line {number}") for path in paths))
    return rows


def _scp_ids(place: Path) -> dict[str, Path]:
    found = {}
    for number, words in _lines(place):
        if len(words) < 2:
            raise UserError(f"{place}, line {number}: write an id and a path")
        found[words[0]] = _path(place, " ".join(words[1:]), f"line {number}")
    return found


def _lines(place: Path) -> Iterable[tuple[int, list[str]]]:
    lines = enumerate(_text(place).splitlines(), 1)
    return [(number, line.split()) for number, line in lines if line.strip()]


def _text(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is no text in UTF-8 ({error}); save it as UTF-8") from None


def _path(place: Path, text: str | None, where: str) -> Path:
    """Return a path of a list: relative to the list's folder or, failing that, to this one."""
    if not text:
        raise UserError(f"{place}, {where}: a path is missing")
    for path in (place.parent / text, Path(text)):
        with suppress(OSError):  # the name is too long for one
            if path.is_file():
                return path
    raise UserError(
        f"{place}, {where}: there is no file {text[:100]} (looked in {place.parent} too)"
    )


def _checked(rows: Sequence[Row]) -> list[Item]:
    """Read the header of every file."""
    items = []
    with progress("reading headers", len(rows)) as advance:
        for paths in rows:
            heads = []
            for path in paths:
                with open_recording(path) as file:
                    heads.append((file.sample_rate, file.samples, file.channels))
            rate, samples, channels = heads[0]
            for path, head in zip(paths[1:], heads[1:], strict=True):
                if head[:2] != (rate, samples):
                    raise UserError(
                        f"{paths[0]} has {samples} samples at {rate} Hz, its target {path} "
                        f"{head[1]} at {head[0]} Hz; cut or resample one of them"
                    )
            items.append(Item(paths[0], paths[1:], rate, channels, samples))
            advance(1)
    return items
