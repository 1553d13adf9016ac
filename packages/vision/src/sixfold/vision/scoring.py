"""Scores of two folders of pictures: ``sixfold score vision hr/ sr/ --border 4``."""

import csv
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core import UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.many_files import check_table
from sixfold.core.progress import progress
from sixfold.vision.images.files import READS, read_picture, to_pil
from sixfold.vision.metrics import psnr_y, ssim_y


def score(
    reference: Path, estimate: Path, *, border: int = 0, out: Path | None = None
) -> dict[str, float]:
    """Score pictures against true ones of the same names: PSNR (dB) and SSIM of luma.

    Names agree without their endings, so that a.jpg is scored against a.png. Pictures that have no
    score (another size, transparency) are named and left out, and the exit status is 1.

    Args:
        reference: True picture, or folder of them.
        estimate: Picture to score, or folder with the same names.
        border: Pixels to leave out at each border; papers leave out as many as the scale.
        out: File for the scores of each picture, as CSV; by default they are printed.

    Returns:
        The averages.

    Raises:
        UserError: the border is negative, the names do not match, ``out`` cannot be written, or no
            picture has a score.
        SystemExit: with status 1 at the end, if pictures were left out.
    """
    if border < 0:
        raise UserError(f"--border is 0 pixels or more, got {border}")
    pairs = _matched(Path(reference), Path(estimate))
    check_table(out, [file for pair in pairs.values() for file in pair])
    rows, left_out = [], 0
    with progress("scoring", len(pairs)) as advance:
        for name, files in pairs.items():
            try:
                made, true = (_bytes(file) for file in reversed(files))
                scores = {
                    "psnr_y": psnr_y(made, true, border),
                    "ssim_y": ssim_y(made, true, border),
                }
                rows.append({"file": name, **scores})
            except UserError as error:
                left_out += 1
                print(f"left out: {name}: {error}", file=sys.stderr)
            advance(1)
    if not rows:
        raise UserError("no picture has a score")
    text = _to_csv(rows)
    print(text, end="") if out is None else write_atomic(out, text)
    averages = {key: statistics.fmean(row[key] for row in rows) for key in ("psnr_y", "ssim_y")}
    print(f"mean over {len(rows)} pictures:")
    for key, value in averages.items():
        print(f"  {key} {value:.6g}")
    if left_out:
        print(f"{left_out} of {len(pairs)} were left out, see above", file=sys.stderr)
        raise SystemExit(1)
    return averages


def _bytes(file: Path) -> np.ndarray:
    return np.asarray(to_pil(read_picture(file)))


def _matched(reference: Path, estimate: Path) -> dict[str, tuple[Path, Path]]:
    """Pair two pictures, or those of two folders by their names without endings."""
    if reference.is_file() and estimate.is_file():
        return {estimate.name: (reference, estimate)}
    true, made = (_pictures(folder) for folder in (reference, estimate))
    alone = [f"{reference / n}" for n in sorted(true.keys() - made.keys())]
    alone += [f"{estimate / n}" for n in sorted(made.keys() - true.keys())]
    if alone:
        more = f" (and {len(alone) - 5} more)" if len(alone) > 5 else ""
        raise UserError(f"no partner of that name for {', '.join(alone[:5])}{more}")
    return {name: (file, made[name]) for name, file in true.items()}


def _pictures(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by their places in it, without endings."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give two folders, or two files")
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix.lower() in READS:
            name = file.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise UserError(f"{found[name]} and {file} differ in their ending only; remove one")
            found[name] = file
    if not found:
        raise UserError(f"{folder} holds no pictures of these kinds: {', '.join(sorted(READS))}")
    return found


def _to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str) else f"{v:.6g}" for k, v in row.items()})
    return text.getvalue()
