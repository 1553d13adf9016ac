"""The pictures of the super-resolution report: crops side by side, errors, kernels."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sixfold.core.pipeline.figures import picture_row
from sixfold.core.pipeline.page import Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.vision.data.super_resolution import read_benchmark

# set, number, top and left of the crop in pixels of low resolution: wings, a comic, stripes
CROPS = (("Set5", 2, 20, 16), ("Set14", 4, 40, 24), ("Set14", 13, 40, 70))
SIDE = 30  # of a crop, in pixels of low resolution
SCALE = 4
SHOWN = ("bicubic", "pan", "published")


def write_crops(
    prepared: Path,
    samples: Path | None,
    enlarge: Callable[[np.ndarray], np.ndarray],
    *,
    with_truth: bool = False,
) -> None:
    """Write the x4 crops of an enlargement and, if asked for, of low and high resolution."""
    for name, number, top, left in CROPS if samples else ():
        pairs = read_benchmark(prepared, name, SCALE)
        if number < len(pairs):
            low, high = pairs[number]
            shown = {"made": enlarge(low)}
            if with_truth:
                shown |= {"low": low.repeat(SCALE, 0).repeat(SCALE, 1), "high": high}
            for kind, picture in shown.items():
                rows, columns = (slice(SCALE * s, SCALE * (s + SIDE)) for s in (top, left))
                crop = np.ascontiguousarray(picture[rows, columns])
                Image.fromarray(crop).save(Path(str(samples)) / f"{name}-{number}-{kind}.png")


def write_kernels(samples: Path | None, model: Any) -> None:
    """Write the mean absolute large kernel of each layer, over blocks and channels."""
    if samples is not None:
        kernels = [
            np.mean(
                [
                    block.attn.a[2].lkb_reparam.weight.detach().abs().numpy()
                    for block in layer.blocks
                ],
                (0, 1, 2),
            )
            for layer in model.layers
        ]
        np.save(samples / "kernels.npy", np.stack(kernels))


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show the released networks' scores, crops and errors, and the support of the kernels."""
    title = outcome.claim.title
    yield Section(f"{title}: released networks, x4", tables=[released_table(outcome)])
    rows = list(picture_rows(outcome))
    if rows:
        text = (
            "Crops enlarged four times, and the absolute error of each value, black at 0, white at "
            "a quarter of the range."
        )
        yield Section(f"{title}: pictures", text, pictures=rows)
    yield support_section(outcome, f"{title}: support of the kernels")


def released_table(outcome: Outcome) -> Table:
    """Set scores beside parameters and products."""
    figures = {row["name"]: row["measured"] for row in outcome.run.measurements()}
    rows = []
    for key, name in (("bicubic", ""), ("published", "cfsr"), ("pan", "pan"), ("imdn", "imdn")):
        scores = outcome.results[key]["mean"]
        size = "x4, merged" if name == "cfsr" else "x4"
        row: dict[str, Any] = {"network": outcome.claim.label(key)}
        row["parameters"] = figures[f"{name}, {size}: parameters"] if name else "-"
        macs = f"{name.upper()}: GMAC for 1280 x 720 pixels, x4"
        row["GMAC, 1280 x 720"] = figures[macs] if name else "-"
        for test in ("Set5", "Set14"):
            for metric, digits in (("PSNR", 3), ("SSIM", 4)):
                value = scores.get(f"{test}_x4_{metric}".lower())
                row[f"{test} {metric}"] = None if value is None else f"{value:.{digits}f}"
        rows.append(row)
    return Table("Released networks, scored here", list(rows[0]), rows)


def picture_rows(outcome: Outcome) -> Iterator[Any]:
    """Yield for each crop a row of pictures and one of errors."""
    for name, number, *_ in CROPS:
        pictures = dict(_crops(outcome, f"{name}-{number}"))
        if pictures:
            caption = f"{name}, picture {number + 1}, x4"
            file = f"{outcome.run.key}-{name}-{number}"
            yield picture_row(file, caption, pictures, (0, 1))
            yield picture_row(f"{file}-errors", f"{caption}: errors", _errors(pictures), (0, 0.25))


def _crops(outcome: Outcome, stem: str) -> Iterator[tuple[str, np.ndarray]]:
    folder = outcome.samples("bicubic")
    files = {"low resolution": folder / f"{stem}-low.png"}
    files |= {outcome.claim.label(k): outcome.samples(k) / f"{stem}-made.png" for k in SHOWN}
    files["high resolution"] = folder / f"{stem}-high.png"
    for label, file in files.items():
        if file.is_file():
            yield label, np.asarray(Image.open(file)) / 255


def _errors(pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    truth = pictures["high resolution"]
    made = {k: v for k, v in pictures.items() if not k.endswith("resolution")}
    return {label: np.abs(picture - truth).mean(2) for label, picture in made.items()}


def support_section(outcome: Outcome, title: str) -> Section:
    """Set kernels that are cut off beside kernels that were fine-tuned after the cut."""
    results, rows = outcome.results, []
    for side in (9, 7, 5, 3):
        zeroed = results["published" if side == 9 else f"zeroed_{side}"]["mean"]
        tuned = results.get(f"cropped_{side}", {"seeds": {}})["seeds"].values()
        value = zeroed.get("set5_x4_psnr")
        rows.append(
            {
                "support": f"{side}x{side}",
                "zero beyond it, x4, Set5 dB": None if value is None else f"{value:.3f}",
                "fine-tuned, x2, Set5 dB": mean_std([s["set5_x2_psnr"] for s in tuned], 3),
            }
        )
    table = Table("PSNR-Y by the support of the large kernels", list(rows[0]), rows)
    file = outcome.samples("published") / "kernels.npy"
    kernels = np.load(file) if file.is_file() else ()
    arrays = {f"layer {i}": np.log10(kernel) for i, kernel in enumerate(kernels, 1)}
    text = "Pictures: mean absolute weights of the released x4 network, on a logarithmic scale."
    caption = "Large kernels"
    shown = [picture_row(f"{outcome.run.key}-kernels", caption, arrays)] if arrays else []
    return Section(title, text if arrays else "", tables=[table], pictures=shown)
