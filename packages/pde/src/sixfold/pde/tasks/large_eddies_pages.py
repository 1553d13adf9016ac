"""Sections of the report on large eddies: errors, statistics, vorticity, vortices, coefficient."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from sixfold.core.pipeline.figures import curve_figure, picture_row
from sixfold.core.pipeline.page import Figure, Row, Section, Table
from sixfold.core.pipeline.report import Outcome
from sixfold.pde.data.decaying_turbulence import read_turbulence
from sixfold.pde.models.lesnets import SYSTEM
from sixfold.pde.tasks.coefficients import coefficient_section, swapped_section
from sixfold.pde.tasks.large_eddies_statistics import EDGES, statistics_of
from sixfold.pde.tasks.multiply_adds import products

FOUND = "found.safetensors"
GOAL = 1.5
SIMULATION = "smagorinsky"
FILMED = (SIMULATION, "label_free", "data_driven")
SHELLS = 5  # beyond the filter the true spectrum is empty

Found = Mapping[str, Mapping[str, Tensor]]  # statistics by label, the true ones first


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show the error over the frames, statistics, films of vorticity, planes of Q."""
    title, prepared = outcome.claim.title, outcome.run.prepared
    found = found_by_label(outcome)
    beside = [outcome.claim.label(key) for key in (SIMULATION, *outcome.run.entries)]
    networks = {label: one for label, one in found.items() if label in ("true", *beside)}
    yield error_section(outcome, found)
    yield Section(
        f"{title}: spectra",
        "Energy of each shell of wavenumbers; first after the first predicted frame, then after "
        "the last.",
        figures=spectrum_figures(outcome, found),
    )
    yield Section(
        f"{title}: structure functions and densities",
        "Of the last frame. First the second-order longitudinal structure function, the mean "
        "square difference of a velocity component between two points along its own axis. Then "
        "the probability densities of the components of vorticity, over the true root mean "
        "square, and of the differences between neighbouring points, over that of the true "
        "velocity.",
        figures=[structure_figure(outcome, networks), *density_figures(outcome, networks)],
    )
    row = film_row(outcome, found)
    yield Section(f"{title}: vorticity", "Along z, in the middle plane.", pictures=[row])
    text = (
        "Q = (Omega:Omega - S:S) / 2 in the middle plane of the last frame: positive (red) where "
        "rotation exceeds strain, in vortices."
    )
    yield Section(f"{title}: vortices", text, pictures=[q_row(outcome, found)])
    yield coefficient_section(title, prepared)
    yield swapped_section(title, prepared)
    yield published_section(title)


def found_by_label(outcome: Outcome) -> Found:
    """Return the statistics of the true frames and of every system that left some."""
    true = read_turbulence(outcome.run.prepared, "test")[..., 1:]
    found: dict[str, Mapping[str, Tensor]] = {"true": statistics_of(true, true)}
    for key in outcome.results:
        if (file := outcome.samples(key) / FOUND).is_file():
            found[outcome.claim.label(key)] = load_file(file)
    return found


def error_section(outcome: Outcome, found: Found) -> Section:
    """Show the error over the frames, and whether it is as small as hoped."""
    curves = {}
    for label, one in list(found.items())[1:]:
        errors = one["errors"].tolist()
        curves[label] = [(list(range(1, len(errors) + 1)), errors)]
    figure = curve_figure(f"{outcome.run.key}-errors", "relative L2", curves, over="frame")
    text = (
        "Without labels and at this size the aim is to be below persistence over 10 and over 30 "
        f"frames, and within {GOAL:g} times the error of Smagorinsky's model."
    )
    title = f"{outcome.claim.title}: over the frames"
    return Section(title, text, tables=[goal_table(outcome)], figures=[figure])


def goal_table(outcome: Outcome) -> Table:
    """Show the errors of the networks over those of persistence and of large-eddy simulation."""
    results, rows = outcome.results, []
    for key in outcome.run.entries:
        row: dict[str, Any] = {"system": outcome.claim.label(key)}
        reached = True
        for metric, frames in (("error_10", 10), ("error_30", 30)):
            error, still, simulated = (
                results[one]["mean"][metric] for one in (key, "persistence", "smagorinsky")
            )
            row[f"of persistence's, {frames} frames"] = f"{error / still:.2f}"
            row[f"of LES's, {frames} frames"] = f"{error / simulated:.2f}"
            reached &= error < still and error <= GOAL * simulated
        rows.append(row | {"aim": "reached" if reached else "not reached"})
    return Table("Relative L2, mean over seeds, over that of others", list(rows[0]), rows)


def line_figure(
    outcome: Outcome, found: Found, name: str, points: list[float], quantity: str, over: str
) -> Figure:
    """Draw the logarithm of one statistic over as many points; that of nothing is a gap."""
    curves = {}
    for label, one in found.items():
        values = one[name].log10()
        values = values.masked_fill(values.isinf(), math.nan).tolist()
        curves[label] = [(points, values)]
    file = f"{outcome.run.key}-{name}"
    return curve_figure(file, f"log10 of the {quantity}", curves, over=over)


def spectrum_figures(outcome: Outcome, found: Found) -> list[Figure]:
    """Draw the spectra of the first and of the last frame."""
    shells = [float(shell) for shell in range(1, SHELLS + 1)]
    kept = {
        label: {f"spectrum-{name}": one[name][1 : SHELLS + 1] for name in ("first", "last")}
        for label, one in found.items()
    }
    return [
        line_figure(outcome, kept, f"spectrum-{name}", shells, "energy", "wavenumber")
        for name in ("first", "last")
    ]


def structure_figure(outcome: Outcome, found: Found) -> Figure:
    """Draw the structure functions over the distance, to half the box."""
    half = len(found["true"]["structure"])
    distances = [math.pi * cells / half for cells in range(1, half + 1)]
    return line_figure(outcome, found, "structure", distances, "structure function", "distance")


def density_figures(outcome: Outcome, found: Found) -> list[Figure]:
    """Draw the densities of vorticity and of increments."""
    middles = ((EDGES[1:] + EDGES[:-1]) / 2).tolist()
    scales = {"vorticity": "vorticity over its true rms", "increments": "increment over u_rms"}
    return [
        line_figure(outcome, found, name, middles, "density", over) for name, over in scales.items()
    ]


def film_row(outcome: Outcome, found: Found) -> Row:
    """Show films of vorticity beside their errors."""
    true = found["true"]["slice"].numpy()
    films = {"true": true}
    for label in filmed(outcome, found):
        films[label] = found[label]["slice"].numpy()
        films[f"{label}: error"] = films[label] - true
    largest = abs(true).max()
    name = f"{outcome.run.key}-film"
    return picture_row(name, "Vorticity", films, (-largest, largest), "coolwarm")


def q_row(outcome: Outcome, found: Found) -> Row:
    """Show planes of Q at the end, on the scale of the true one."""
    planes = {label: found[label]["q"] for label in ("true", *filmed(outcome, found))}
    largest = float(planes["true"].abs().max())
    pictures = {label: plane.numpy() for label, plane in planes.items()}
    name = f"{outcome.run.key}-q"
    return picture_row(name, "Q at the end", pictures, (-largest, largest), "coolwarm")


def filmed(outcome: Outcome, found: Found) -> list[str]:
    """Return the labels of the systems whose pictures are shown."""
    return [label for key in FILMED if (label := outcome.claim.label(key)) in found]


def published_section(title: str) -> Section:
    """Show the sizes of the published networks, which take a GPU."""
    rows = []
    for name, (config, count) in SYSTEM.published.items():
        shape = (1, *config.grid, 3)  # type: ignore[attr-defined]
        macs = sum(products(SYSTEM, config, shape)["Global"].values())
        row = {"network": name, "parameters": f"{count:,}", "GMAC, 10 frames": f"{macs:.1f}"}
        rows.append(row | {"relative L2": None})
    text = (
        "On 32^3 points; both were trained for 30,001 iterations on 5,000 fields, which takes a "
        "GPU. The parameters are real numbers; the authors count a complex weight once. "
        "Multiply-adds are those of all products, the truncated Fourier transforms too."
    )
    return Section(
        f"{title}: published sizes", text, tables=[Table("As published", list(rows[0]), rows)]
    )
