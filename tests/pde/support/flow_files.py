"""Small files of random flows in the published layouts."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

NUMBERS = np.random.default_rng(0)


def h5(path: Path, mode: str = "r") -> Any:
    return h5py.File(path, mode)


def noise(*shape: int) -> np.ndarray:
    return NUMBERS.standard_normal(shape).astype(np.float32)


def smoke(path: Path, splits: dict[str, int], frames: int = 6, sides=(8, 8)) -> Path:
    """Write PDEArena's layout: a group a split, with coordinates a trajectory."""
    with h5(path, "w") as file:
        for split, count in splits.items():
            group = file.create_group(split)
            for name in ("u", "vx", "vy"):
                group[name] = noise(count, frames, *sides)
            group["t"] = np.tile(6.0 * np.arange(frames), (count, 1))
            for axis, name in enumerate("xy"):
                group[name] = np.tile(np.arange(sides[axis], dtype=float), (count, 1))
            group["dt"] = np.full(count, 1.5)
            group["buo_y"] = 0.1 * np.arange(count)
    return path


def compressible(path: Path, count: int = 3, frames: int = 6, sides=(8, 10)) -> Path:
    """Write PDEBench's layout of 2-D CFD; its times are the edges of the steps."""
    with h5(path, "w") as file:
        for name in ("density", "pressure", "Vx", "Vy"):
            file[name] = noise(count, frames, *sides)
        file["x-coordinate"] = np.linspace(0, 1, sides[0])
        file["y-coordinate"] = np.linspace(0, 1, sides[1])
        file["t-coordinate"] = 0.05 * np.arange(frames + 1)
        file.attrs["eta"] = 1e-8
    return path


def incompressible(path: Path, count: int = 2, frames: int = 50, side: int = 16) -> Path:
    """Write PDEBench's layout of forced incompressible flow, scaled down."""
    with h5(path, "w") as file:
        file["velocity"] = noise(count, frames, side, side, 2)
        file["particles"] = noise(count, frames, side, side, 1)
        file["force"] = noise(count, side, side, 2)
        file["t"] = np.tile(0.005 * np.arange(frames), (count, 1))
    return path


def reaction(path: Path, count: int = 3, frames: int = 101) -> Path:
    """Write PDEBench's layout of a group a trajectory."""
    with h5(path, "w") as file:
        for number in range(count):
            group = file.create_group(f"{number:04d}")
            group["data"] = noise(frames, 6, 8, 2)
            group["grid/t"] = np.linspace(0, 5, frames)
            group["grid/x"], group["grid/y"] = np.arange(6.0), np.arange(8.0)
    return path


def well(path: Path, count: int = 2, frames: int = 5, sides=(8, 6)) -> Path:
    """Write The Well's layout: fields that vary in time, in space alone, along x alone."""
    text = h5py.string_dtype()
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5(path, "w") as file:
        file.attrs["dataset_name"] = "shear"
        file.attrs["n_trajectories"] = count
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = np.array(["x", "y"], dtype=text)
        dimensions["time"] = 0.5 * np.arange(frames)
        for name, side in zip("xy", sides, strict=True):
            dimensions[name] = np.linspace(0, 1, side)
        group = file.create_group("t0_fields")
        group.attrs["field_names"] = np.array(["pressure", "mask", "height"], dtype=text)
        _field(group, "pressure", noise(count, frames, *sides))
        _field(group, "mask", noise(count, *sides), time=False)
        _field(group, "height", noise(count, sides[0]), time=False, along=(True, False))
        _field(file.create_group("t1_fields"), "velocity", noise(count, frames, *sides, 2))
        file["scalars/reynolds"] = 100.0 * np.arange(count)
        for name in VARYING:
            file["scalars/reynolds"].attrs[name] = name == "sample_varying"
        for dimension, kind in (("x", "WALL"), ("y", "PERIODIC")):
            condition = file.create_group(f"boundary_conditions/{dimension}")
            condition.attrs["bc_type"] = kind
            condition.attrs["associated_dims"] = np.array([dimension], dtype=text)
    return path


VARYING = ("sample_varying", "time_varying")


def _field(group: Any, name: str, values: np.ndarray, *, time=True, along=(True, True)) -> None:
    group[name] = values
    group[name].attrs["dim_varying"] = list(along)
    group[name].attrs["time_varying"] = time
    group[name].attrs["sample_varying"] = True
