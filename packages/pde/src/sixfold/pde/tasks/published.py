"""SineNet's published table: scores that take GPUs, and the sizes of its networks, counted here."""

from typing import Any

from sixfold.core import System
from sixfold.core.pipeline.claim import Measurement
from sixfold.core.pipeline.measure import count_parameters
from sixfold.core.pipeline.page import Section, Table
from sixfold.pde.models import dil_resnet, ffno, sinenet, unet_mod
from sixfold.pde.tasks.multiply_adds import products

WHERE = "main table of the paper, not checked"
# Next frame and rollout in percent, on each set. SineNet-8 on SWE stands with padding.
SCORES = {
    "SineNet-8": {"INS": (1.66, 19.25), "CNS": (0.93, 2.10)},
    "F-FNO": {"INS": (2.41, 22.58), "CNS": (1.46, 2.91), "SWE": (1.22, 2.46)},
    "Dil-ResNet": {"INS": (1.72, 19.29), "CNS": (1.17, 3.76), "SWE": (2.23, 4.12)},
    "U-Net-128": {"INS": (2.69, 24.94), "CNS": (1.62, 3.05), "SWE": (1.63, 3.58)},
    "U-Net-Mod": {"INS": (2.43, 23.65), "CNS": (1.32, 3.34), "SWE": (1.60, 3.02)},
}
ROWS: dict[str, tuple[System, dict[str, Any]]] = {
    "SineNet-8": (sinenet.SYSTEM, {}),
    "F-FNO": (ffno.SYSTEM, {}),
    "Dil-ResNet": (dil_resnet.SYSTEM, {}),
    "U-Net-128": (sinenet.SYSTEM, sinenet.NETWORKS["sinenet1_128"][0]),
    "U-Net-Mod": (unet_mod.SYSTEM, {}),
}
# Giga multiply-adds a frame of INS in the official code's convolutions.
CONVOLUTIONS: dict[str, tuple[System, str, float]] = {
    **{
        name: (sinenet.SYSTEM, f"{name} on INS", published)
        for name, published in (
            ("sinenet8", 42.0),
            ("sinenet6", 35.5),
            ("sinenet4", 28.4),
            ("sinenet2", 19.9),
            ("sinenet1_64", 14.4),
            ("sinenet1_128", 57.2),
            ("deeper_unet8", 29.4),
        )
    },
    "unet_mod": (unet_mod.SYSTEM, "INS", 57.2),
    "dil_resnet": (dil_resnet.SYSTEM, "INS", 312.0),
    "dil_resnet, as released": (dil_resnet.SYSTEM, "INS, as released", 78.1),
}


def frame_shape(config: Any) -> tuple[int, ...]:
    """Return the shape of what a network reads to predict the next frame of one flow."""
    return (1, config.time_history, config.input_channels, *config.grid)


def convolution_macs(system: System, config: Any) -> float:
    """Count the giga multiply-adds of the convolutions, which is what the official code counts.

    SineNet's 1x1 convolutions are matrix products here; so is its interpolation, which is left out.
    """
    return sum(
        macs
        for module, found in products(system, config, frame_shape(config)).items()
        for operator, macs in found.items()
        if (module == "Global" and "convolution" in operator)
        or (module.endswith(".shortcut") and "convolution" not in operator)
    )


def measurements() -> list[Measurement]:
    """Return those of the multiply-adds, and the published scores, which take GPUs and the sets."""
    counted = [
        Measurement(
            f"{name}, INS: GMAC a frame, of convolutions",
            published,
            lambda _, system=system, size=size: convolution_macs(system, system.published[size][0]),
            tolerance=0.5 if published > 100 else 0.05,  # of three digits
            where="counted in the official code",
        )
        for name, (system, size, published) in CONVOLUTIONS.items()
    ]
    scores = [
        Measurement(f"{name}, {data}, {what}", value, lambda _: None, unit="%", where=WHERE)
        for name, sets in SCORES.items()
        for data, values in sets.items()
        for what, value in zip(("next frame", "rollout"), values, strict=True)
    ]
    return counted + scores


def size_section(title: str) -> Section:
    """Show the parameters and multiply-adds of every row of the paper's table."""
    text = (
        "Counted here at the published sizes. Multiply-adds are those of one frame of INS, 128 x "
        "128 cells, and of all products, those of the interpolation too. Equal parameters are not "
        "equal cost."
    )
    rows = []
    for name, (system, settings) in ROWS.items():
        row: dict[str, Any] = {"network": name}
        for data, frames in sinenet.SETS.items():
            config = system.config.parse({**settings, **frames}, name)
            row[f"parameters, {data}"] = f"{count_parameters(system, config).count:,}"
        config = system.config.parse({**settings, **sinenet.SETS["INS"]}, name)
        macs = sum(products(system, config, frame_shape(config))["Global"].values())
        rows.append(row | {"GMAC, INS": f"{macs:.1f}"})
    table = Table("Sizes of the networks of the paper's table", list(rows[0]), rows)
    return Section(f"{title}: published sizes", text, tables=[table])
