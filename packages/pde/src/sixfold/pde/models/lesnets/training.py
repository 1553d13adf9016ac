"""Train LESnets: without labels by the residual of the equations, with labels, or with both.

    total = w_r residual(prediction) + w_d relative_l2(prediction, labels)
          + w_c residual(one true sequence), if Cs2 is learned

The last term makes learning the coefficient a regression of Cs2 on data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.training.first_weights import first_weights
from sixfold.core.training.fit import FitConfig, fit
from sixfold.core.training.run import Run
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.pde.fields.checks import check_divergence
from sixfold.pde.fields.stepping import as_box
from sixfold.pde.models.lesnets.inference import as_fields, as_sequence
from sixfold.pde.models.lesnets.loss import Flow, Official, official_loss, physics_loss, relative_l2

if TYPE_CHECKING:
    from sixfold.pde.models.lesnets.model import LESnets

# The paper's training on homogeneous turbulence: tenfold lower rates after these fractions.
STEPS = 30_001
SCHEDULE = ScheduleConfig(name="multistep", milestones=(4000 / STEPS, 1 / 3, 2 / 3))
PAPER = {"steps": STEPS, "batch": 1, "learning_rate": 1e-3, "schedule": SCHEDULE}


@dataclass(frozen=True)
class Objective:
    """What is minimised: ``objective(model, batch)`` returns the terms by name.

    Args:
        flow: Equations; their Cs2 is not used where the network learns it.
        physics_weight: Weight of the residual of the prediction.
        data_weight: Weight of the relative L2 error; batches need ``labels`` if it is not 0.
        sequence: True frames that a learned coefficient is also fitted to.
        sequence_weight: Weight of their residual.
        official_quirks: Published function whose mistakes to repeat.
    """

    flow: Flow
    physics_weight: float = 1.0
    data_weight: float = 0.0
    sequence: Tensor | None = None
    sequence_weight: float = 50.0
    official_quirks: Official | None = None

    def __call__(self, model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the terms of the loss, weighted."""
        u0 = batch["u0"]
        prediction = model(u0)
        value = model.smagorinsky
        value = self.flow.smagorinsky if value is None else value
        terms = {}
        if self.physics_weight:
            frames = torch.cat((u0[..., None], prediction), -1)
            terms["residual"] = self.physics_weight * self._physics(frames, value, second=False)
        if self.data_weight:
            terms["data"] = self.data_weight * relative_l2(prediction, batch["labels"])
        if self.sequence is not None:
            true = self.sequence.to(u0)
            terms["sequence"] = self.sequence_weight * self._physics(true, value, second=True)
        return terms

    def _physics(self, frames: Tensor, value: float | Tensor, *, second: bool) -> Tensor:
        if self.official_quirks is None:
            return physics_loss(frames, self.flow, value)
        return official_loss(frames, self.flow, value, self.official_quirks, second=second)


class Fields:
    """Initial fields, and the frames after them where there are labels; a data set for `fit`."""

    def __init__(self, u0: Tensor, labels: Tensor | None = None) -> None:
        self.tensors = {"u0": u0} | ({} if labels is None else {"labels": labels})

    def __len__(self) -> int:
        return len(self.tensors["u0"])

    def batch(self, indices: list[int]) -> dict[str, Tensor]:
        """Return the samples of a batch."""
        return {name: values[indices] for name, values in self.tensors.items()}


def train(
    model: "LESnets",
    u0: Any,
    *,
    viscosity: float,
    box: Sequence[float],
    time_step: float,
    smagorinsky: float = 0.01,
    filter_width: float | None = None,
    labels: Any = None,
    physics_weight: float = 1.0,
    data_weight: float = 1.0,
    sequence: Any = None,
    sequence_weight: float = 50.0,
    coefficient_rate: float = 1e-5,
    seed: int = 0,
    out: Path | None = None,
    **settings: Any,
) -> dict[str, float]:
    """Train a network in place, from one initial field or many; labels are optional.

    Args:
        model: Network; afterwards it knows its flow.
        u0: Initial fields (x, y, z, 3) or (batch, x, y, z, 3), as a tensor or an array.
        viscosity: Kinematic viscosity.
        box: Lengths of the box along x, y and z.
        time_step: Time between two frames.
        smagorinsky: Squared Smagorinsky constant, where the network does not learn it.
        filter_width: Filter width; by default the longest side of a cell.
        labels: True frames (batch, x, y, z, 3, time) after each field.
        physics_weight: Weight of the residual; 0 trains on labels alone.
        data_weight: Weight of the labels' relative error.
        sequence: True frames to learn the coefficient from.
        sequence_weight: Weight of their residual.
        coefficient_rate: First learning rate of the coefficient.
        seed: Seed of the order of the fields.
        out: Run folder, from which a stopped training goes on; by default nothing is kept.
        settings: Fields of `FitConfig`, e.g. ``steps``; those not given are the paper's.

    Returns:
        The last values of the terms of the loss.

    Raises:
        UserError: the fields, the flow or the labels are not what they should be.
    """
    fields = as_fields(u0, "u0").float().detach()  # a solver's gradients end here
    flow = make_flow(fields, viscosity, box, time_step, smagorinsky, filter_width)
    check_divergence(fields, flow.box, "u0")
    targets = None if labels is None else as_sequence(labels, "labels", 1).float().detach()
    frames = None if sequence is None else as_sequence(sequence, "sequence").float().detach()
    if frames is not None:
        check_divergence(frames[..., 0], flow.box, "sequence")
    _check_terms(model, fields, targets, frames, physics_weight)
    weight = 0.0 if targets is None else data_weight
    objective = Objective(flow, physics_weight, weight, frames, sequence_weight)
    config = FitConfig.parse(PAPER | settings, "the settings of fit")
    return _train(model, Fields(fields, targets), objective, config, coefficient_rate, seed, out)


def _train(
    model: "LESnets",
    fields: Fields,
    objective: Objective,
    config: FitConfig,
    coefficient_rate: float,
    seed: int,
    out: Path | None,
) -> dict[str, float]:
    flow = objective.flow
    values = {"fit": config.model_dump(mode="json"), "flow": flow.model_dump(mode="json")}
    values |= {"model": model.config.model_dump(mode="json", exclude={"flow"})}
    if out is not None:
        values |= {"from": first_weights(model, Path(out))}
    data = (fields.tensors["u0"], fields.tensors.get("labels"), objective.sequence)
    run = Run.open(out, values, _fingerprint(*data), seed)
    found = fit(
        run,
        model,
        fields,
        objective,
        config,
        seed=seed,
        optimizer=lambda network, fitted: make_optimizer(network, fitted, coefficient_rate),
    )
    model.config = model.config.model_copy(update={"flow": flow})
    return found


def make_flow(
    fields: Tensor,
    viscosity: float,
    box: Sequence[float],
    time_step: float,
    smagorinsky: float,
    filter_width: float | None,
) -> Flow:
    """Check what a user says of a flow; the filter is as wide as the longest side of a cell."""
    box = as_box(box, 3)
    if filter_width is None:
        filter_width = max(length / n for length, n in zip(box, fields.shape[1:4], strict=True))
    values = {
        "viscosity": viscosity,
        "box": box,
        "time_step": time_step,
        "smagorinsky": smagorinsky,
        "filter_width": filter_width,
    }
    return Flow.parse(values, "flow")


def make_optimizer(
    model: nn.Module, config: FitConfig, coefficient_rate: float
) -> torch.optim.Optimizer:
    """Make Adam as published: a learned coefficient has a learning rate of its own."""
    named = dict(model.named_parameters())
    own = [value for name, value in named.items() if name.endswith("smagorinsky")]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named.items() if not name.endswith("smagorinsky")]}
    ]
    groups += [{"params": own, "lr": coefficient_rate}] if own else []
    return torch.optim.Adam(groups, config.learning_rate, config.betas)


def _check_terms(
    model: "LESnets",
    fields: Tensor,
    labels: Tensor | None,
    sequence: Tensor | None,
    physics_weight: float,
) -> None:
    if labels is None and not physics_weight:
        raise UserError("physics_weight=0 leaves labels to learn from, but none were given")
    wanted = (*fields.shape, model.config.frames)
    if labels is not None and tuple(labels.shape) != wanted:
        raise UserError(
            f"labels are {tuple(labels.shape)}, but the network predicts {wanted} from u0; "
            f"give the {wanted[-1]} frames after each field"
        )
    if labels is not None and bool((labels.flatten(1) == 0).all(1).any()):
        raise UserError(
            "labels of a sample are zero everywhere, and their error is relative to their size; "
            "leave the sample out"
        )
    if sequence is not None and model.smagorinsky is None:
        raise UserError(
            "sequence= teaches a coefficient that this network does not have; build it with "
            "LESnetsConfig(learned_coefficient=True)"
        )


def _fingerprint(*tensors: Tensor | None) -> str:
    """Hash the data of a training."""
    import hashlib

    parts = [b"-" if t is None else t.contiguous().cpu().numpy().tobytes() for t in tensors]
    return hashlib.sha256(b"|".join(parts)).hexdigest()
