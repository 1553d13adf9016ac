"""Every system of the installed domains on a CUDA GPU: time, memory, equality with the CPU.

    python benchmarks/systems_gpu.py [--only SYSTEM] [--rehearse] [--out FOLDER]

One training step and one inference, in float32 and bfloat16, at the published sizes; an estimator's
training is a `fit` of a few epochs. Dropout is off, because devices draw different numbers.
``--rehearse`` runs everything at small sizes on the CPU and measures neither time nor memory. A
system needs one entry in `CASES`; the table also names the systems that have none.
"""

import argparse
import copy
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pde_cases import FORECAST, TURBULENCE
from timing import error_line, write_benchmark
from torch import Tensor, nn
from wireless_cases import ALLOCATION, ESTIMATION, PRECODING, SENSING

from sixfold.core import System
from sixfold.core.pipeline.measure import peak_memory
from sixfold.core.system import domains

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
COMMAND = "python benchmarks/systems_gpu.py"
REPEATS, WARMUP = 7, 2
ITEMS, SECONDS = 4, 2.0  # of a batch
EPOCHS = 2  # of an estimator's fit
PRECISIONS = ("float32", "bfloat16")
TRAINING, INFERENCE = "training step", "inference"
# Largest relative error in the 2-norm, against the CPU in float32; a GPU sums in another order. In
# bfloat16, one and a half times the CPU's own error in bfloat16 passes too.
TOLERANCE = {
    (INFERENCE, "float32"): 1e-3,
    (TRAINING, "float32"): 1e-2,
    (INFERENCE, "bfloat16"): 0.03,
    (TRAINING, "bfloat16"): 0.03,
}
NO_CASE = "no case in benchmarks/systems_gpu.py"
CUT = "not reached in the time limit"
NO_GPU = "time and memory: no CUDA GPU"
NOTE = (
    "Published sizes, weights and inputs drawn at random, no dropout. Speech: "
    f"{ITEMS} items of {SECONDS:g} s; vision: {ITEMS} pictures of 224 x 224, or "
    "of 64 x 64 that are enlarged; graphs: block models as large as Cora_ML, Flickr and "
    "Squirrel; recsys: 4,096 rows, and Adam that regularises tables; wireless: "
    "one spectrum, 16 slots, 64 channels or 16 layouts an item; pde: histories at 128 x 128, and "
    "fields at 32^3 for LESnets of 2 layers and width 20. bfloat16 is by autocast, for "
    "graphs of weights and features. Time: median by CUDA events; a training step includes Adam, a "
    "fit its set-up and a copy of the model. Memory: the most that the call held above model and "
    "data. Errors are relative 2-norms against the CPU in float32, of the output, of all gradients "
    "of one item or 16 rows, or of the losses of a fit; bfloat16 may have one and a half times the "
    "error that it has on the CPU."
)

Batch = dict[str, Tensor]


def fused_adam(model: nn.Module) -> torch.optim.Optimizer:
    """Make Adam in one kernel."""
    return torch.optim.Adam(model.parameters(), fused=True)


@dataclass(frozen=True)
class Case:
    """Inputs, output and loss of a system.

    Args:
        draw: Function from the model's config, a number of items and their seconds to a batch.
        infer: Function from model and batch to the output.
        loss: Function from model and batch to the training loss.
        optimizer: Function that makes the optimiser of a model.
        compared: Number of items that devices are compared by; batch norm needs several.
        settings: Fields of the config that differ from the published size.
        small: Further fields for the rehearsal.
    """

    draw: Callable[[Any, int, float], Batch]
    infer: Callable[[Any, Batch], Tensor]
    loss: Callable[[Any, Batch], Tensor]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = fused_adam
    compared: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)

    def data(self, config: Any, *, rehearse: bool) -> Batch:
        """Draw a batch on the CPU."""
        return self.draw(config, 2, 0.25) if rehearse else self.draw(config, ITEMS, SECONDS)

    def result(self, what: str, model: nn.Module, batch: Batch) -> Tensor:
        """Compute what devices are compared by, on a few items: all gradients, or the output."""
        few = {name: value[: self.compared] for name, value in batch.items()}
        if what == INFERENCE:
            with torch.inference_mode():
                return self.infer(model.eval(), few)
        self.loss(model.train(), few).backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return torch.cat(gradients)

    def work(self, what: str, model: nn.Module, batch: Batch) -> Callable[[], Any]:
        """Return the call that is timed."""
        if what == INFERENCE:
            model.eval()
            return torch.inference_mode()(lambda: self.infer(model, batch))
        optimizer = self.optimizer(model.train())

        def step() -> None:
            optimizer.zero_grad()
            self.loss(model, batch).backward()
            optimizer.step()

        return step


@dataclass(frozen=True)
class Estimator:
    """Random graph for an estimator, a system with `fit` and `predict_proba`.

    Args:
        nodes: Number of nodes.
        degree: Mean degree.
        settings: Fields of the config that differ from the published size, and the numbers of
            features and classes, which an estimator otherwise takes from the graph.
        small: Further fields for the rehearsal.
        fit: Function that trains the model on the graph.
    """

    nodes: int
    degree: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    fit: Callable[[Any, Any], Any] = lambda model, graph: model.fit(graph)

    def data(self, config: Any, *, rehearse: bool) -> Any:
        """Draw a graph on the CPU, with as many features and classes as the config says."""
        from sixfold.graphs.data.synthetic import block_model

        nodes, sizes = 200 if rehearse else self.nodes, (config.features, config.classes)
        return block_model(nodes=nodes, degree=self.degree, features=sizes[0], classes=sizes[1])

    def result(self, what: str, model: Any, graph: Any) -> Tensor:
        """Compute what devices are compared by: losses of the steps, or the probabilities."""
        if what == INFERENCE:
            return model.predict_proba(graph)
        self.fit(model, graph)
        return torch.tensor([row["loss"] for row in model.history])

    def work(self, what: str, model: Any, graph: Any) -> Callable[[], Any]:
        """Return the call that is timed; every fit starts from a copy of the model."""
        if what == INFERENCE:
            return lambda: model.predict_proba(graph)
        return lambda: self.fit(copy.deepcopy(model), graph)


def noise(*shape: int) -> Tensor:
    """Draw noise at the level of speech."""
    return 0.1 * torch.randn(shape)


def enhancement(config: Any, items: int, seconds: float) -> Batch:
    """Draw clean audio and noise added to it."""
    clean = noise(items, round(seconds * config.sample_rate))
    return {"noisy": clean + noise(*clean.shape), "clean": clean}


def separation(config: Any, items: int, seconds: float) -> Batch:
    """Draw two sources and their sum."""
    sources = noise(items, config.speakers, round(seconds * config.sample_rate))
    return {"mixture": sources.sum(1), "sources": sources}


def multichannel(config: Any, items: int, seconds: float) -> Batch:
    """Draw the recording of an array and a clean source."""
    noisy = noise(items, config.microphones, round(seconds * config.sample_rate))
    return {"noisy": noisy, "clean": noise(items, noisy.shape[2])}


def pictures(config: Any, items: int, seconds: float) -> Batch:
    """Draw pictures of the network's size, else of 224 pixels, and a class for each."""
    default = 224 if seconds == SECONDS else 64
    side = getattr(config, "img_size", default)
    shape = (items, getattr(config, "in_chans", 3), side, side)
    return {"picture": torch.rand(shape), "label": torch.arange(items)}


def enlarging(config: Any, items: int, seconds: float) -> Batch:
    """Draw small pictures and those that they should become."""
    side = 64 if seconds == SECONDS else 24
    large = torch.rand(items, 3, side * config.upscale, side * config.upscale)
    small = torch.nn.functional.interpolate(large, (side, side), mode="area")
    return {"picture": small, "large": large}


def masks(config: Any, items: int, seconds: float) -> Batch:
    """Draw pictures and a class for each of their pixels."""
    picture = pictures(config, items, seconds)["picture"]
    mask = torch.randint(config.classes, (items, *picture.shape[2:]))
    return {"picture": picture, "mask": mask}


def table_rows(config: Any, items: int, seconds: float) -> Batch:
    """Draw the encoded rows of a table, and a label for each task."""
    from ctr_cases import ROWS, zipf_batch

    rows = ROWS if seconds == SECONDS else 16
    batch = zipf_batch(config.fields, rows=rows)
    return batch | {label: torch.randint(2, (rows,)).float() for label in config.labels}


def frcrn_loss(model: Any, batch: Batch) -> Tensor:
    """Add up the two published losses of FRCRN."""
    from sixfold.speech.models.frcrn import Estimate, estimate_losses

    estimate = Estimate(*(part.float() for part in model(batch["noisy"])))
    losses = estimate_losses(estimate, batch["noisy"], batch["clean"], model.config)
    return torch.stack(list(losses.values())).sum()


def separation_loss(model: Any, batch: Batch) -> Tensor:
    """Compute the permutation-invariant SI-SNR."""
    from sixfold.speech.losses import pit_si_snr

    return pit_si_snr(model(batch["mixture"]).float(), batch["sources"])


def mask_loss(model: Any, batch: Batch) -> Tensor:
    """Compute the loss of MossFormer2_SE_48K."""
    from sixfold.speech.models.mossformer2 import psm_loss

    return psm_loss(model, batch["noisy"], batch["clean"])


def spectral_loss(model: Any, batch: Batch) -> Tensor:
    """Compute the loss of DeFTAN-II."""
    from sixfold.speech.models.deftan2.loss import pcm_loss

    estimate = model(batch["noisy"])[:, 0].float()
    return pcm_loss(estimate, batch["clean"], batch["noisy"][:, 0])


def absolute_error(model: Any, batch: Batch) -> Tensor:
    """Compute the L1 loss of super-resolution."""
    return torch.nn.functional.l1_loss(model(batch["picture"]).float(), batch["large"])


def class_loss(model: Any, batch: Batch) -> Tensor:
    """Compute the cross-entropy of pictures, or of pixels."""
    labels = batch["mask"] if "mask" in batch else batch["label"]
    return torch.nn.functional.cross_entropy(model(batch["picture"]).float(), labels)


def ranking_adam(model: nn.Module) -> torch.optim.Optimizer:
    """Make Adam as ranking models are trained, with the tables regularised as published."""
    from ctr_cases import ranking_optimizer

    return ranking_optimizer(model, l2=0.05)


def random_chunks(model: Any, graph: Any) -> None:
    """Fit GNNPipe on chunks of equal size, because METIS may be missing and greedy is slow."""
    order = torch.randperm(len(graph.x), generator=torch.Generator().manual_seed(0))
    model.fit(graph, part=order % model.config.chunks)


SEPARATION = {"draw": separation, "loss": separation_loss, "infer": lambda m, b: m(b["mixture"])}
ARRAY = {"draw": multichannel, "loss": spectral_loss, "infer": lambda m, b: m(b["noisy"])}
ENLARGING = {"draw": enlarging, "loss": absolute_error, "infer": lambda m, b: m(b["picture"])}
CLASSES = {"draw": pictures, "loss": class_loss, "infer": lambda m, b: m(b["picture"])}
RANKING = {
    "draw": table_rows,
    "infer": lambda m, b: m(b),
    "loss": lambda m, b: m.batch_loss(m, b).float(),
    "optimizer": ranking_adam,
    "compared": 16,
}
NO_DROPOUT = {"dropout": 0.0}
PERCEPTRON = {"mlp": {"hidden": [400, 400, 400]}}  # without the dropout of the default
TASKS = {**NO_DROPOUT, "labels": ["like", "love", "dislike"]}
SMALL_GRID = {"grid": [32, 32]}
CASES: dict[str, Case | Estimator] = {
    "speech/frcrn": Case(
        enhancement, lambda m, b: m(b["noisy"]).waveform, frcrn_loss, small={"channels": 8}
    ),
    "speech/mossformer2": Case(
        **SEPARATION, settings=NO_DROPOUT, small={"channels": 32, "blocks": 2}
    ),
    "speech/mossformer": Case(
        **SEPARATION, settings=NO_DROPOUT, small={"channels": 32, "blocks": 2}
    ),
    "speech/mossformer2_se": Case(
        enhancement,
        lambda m, b: m(b["noisy"]),
        mask_loss,
        settings=NO_DROPOUT,
        small={"channels": 32, "blocks": 2},
    ),
    "speech/deftan2": Case(
        **ARRAY, settings=NO_DROPOUT, small={"channels": 16, "blocks": 1, "hidden": 16}
    ),
    "speech/conv_tasnet": Case(**SEPARATION, small={"features": 32, "stacks": 1}),
    "speech/tf_transformer": Case(
        **ARRAY, settings=NO_DROPOUT, small={"channels": 16, "blocks": 1, "hidden": 16}
    ),
    "vision/repavit": Case(
        **CLASSES,
        settings={"drop_path_rate": 0.0},
        small={"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2},
    ),
    "vision/cfsr": Case(**ENLARGING, small={"embed_dim": 16, "depths": [2, 2]}),
    "vision/fdconv": Case(
        **CLASSES, settings={"num_classes": 1000}, small={"backbone": "resnet18"}
    ),
    "vision/fdconv_seg": Case(
        masks, lambda m, b: m(b["picture"]), class_loss, small={"channels": [8, 16]}
    ),
    "vision/pan": Case(**ENLARGING, small={"features": 8, "blocks": 2}),
    "vision/imdn": Case(**ENLARGING, small={"features": 16, "blocks": 2}),
    "vision/edsr": Case(**ENLARGING, small={"features": 8, "blocks": 2}),
    "graphs/forwardgnn": Estimator(  # Cora_ML
        2_995, 5.5, {"features": 2879, "classes": 7, "epochs": EPOCHS}
    ),
    "graphs/mowst": Estimator(  # Flickr; jointly, because turns end when the scores say so
        89_250,
        10.1,
        {"features": 500, "classes": 7, "method": "mowst_star", "epochs": EPOCHS}
        | {"dropout": 0.0, "dropout_gate": 0.0},
    ),
    "graphs/gnnpipe": Estimator(  # Squirrel
        5_201,
        83.5,
        {"features": 2089, "classes": 5, "epochs": EPOCHS, "evaluate_every": EPOCHS} | NO_DROPOUT,
        small={"hidden": 16, "layers": 4, "chunks": 4},
        fit=random_chunks,
    ),
    "recsys/finalmlp": Case(
        **RANKING, settings={"mlp1": {"hidden": [400]}, "mlp2": {"hidden": [800]}}
    ),
    "recsys/dualmlp": Case(
        **RANKING, settings={"mlp1": {"hidden": [400, 400, 400]}, "mlp2": {"hidden": [400]}}
    ),
    "recsys/fcn": Case(**RANKING, settings={"deep_dropout": 0.0, "shallow_dropout": 0.0}),
    "recsys/ecn": Case(**RANKING, settings=NO_DROPOUT),
    "recsys/lcn": Case(**RANKING, settings=NO_DROPOUT),
    "recsys/lr": Case(**RANKING),
    "recsys/fm": Case(**RANKING),
    "recsys/dnn": Case(**RANKING, settings=PERCEPTRON),
    "recsys/crossnet_v2": Case(**RANKING),
    "recsys/dcnv2": Case(**RANKING, settings=PERCEPTRON),
    "recsys/dtrn": Case(**RANKING, settings=TASKS),
    "recsys/shared_bottom": Case(**RANKING, settings=TASKS),
    "recsys/mmoe": Case(**RANKING, settings=TASKS),
    "recsys/ple": Case(**RANKING, settings=TASKS),
    "wireless/cmusenet": Case(**SENSING, small={"bins": 1024, "width": 4, "layers": [1, 1]}),
    "wireless/rvnn": Case(**SENSING, small={"bins": 1024, "width": 4, "layers": [1, 1]}),
    "wireless/adafortitran": Case(**ESTIMATION, settings=NO_DROPOUT, small={"layers": 1}),
    "wireless/fortitran": Case(**ESTIMATION, settings=NO_DROPOUT, small={"layers": 1}),
    "wireless/linear": Case(**ESTIMATION),
    "wireless/icgnn": Case(**PRECODING),
    "wireless/icgnn_cell_free": Case(**ALLOCATION),
    "pde/sinenet": Case(**FORECAST, small={"hidden_channels": 4} | SMALL_GRID),
    "pde/sinenet_ode": Case(**FORECAST, small={"hidden_channels": 4} | SMALL_GRID),
    "pde/unet_mod": Case(**FORECAST, small={"hidden_channels": 8} | SMALL_GRID),
    "pde/dil_resnet": Case(**FORECAST, small={"hidden_channels": 8} | SMALL_GRID),
    "pde/ffno": Case(
        **FORECAST,
        settings={"noise_sd": 0.0},
        small={"num_layers": 2, "width": 8, "modes": 8} | SMALL_GRID,
    ),
    "pde/fno": Case(**FORECAST, small={"width": 8, "modes": 8} | SMALL_GRID),
    "pde/lesnets": Case(
        **TURBULENCE,
        settings={"num_layers": 2, "width": 20},  # the published has 2 billion parameters
        small={"width": 2, "modes": [4, 4, 4, 2], "grid": [12, 12, 12]},
    ),
}


def relative(found: Tensor, expected: Tensor) -> float:
    """Divide the 2-norm of the difference by that of what is expected."""
    found, expected = (value.detach().cpu().double() for value in (found, expected))
    return float((found - expected).norm() / expected.norm())


def median_ms(call: Callable[[], Any], device: str) -> float | None:
    """Return the median time by CUDA events; on a CPU, call once and measure nothing."""
    if device != "cuda":
        call()
        return None
    times = []
    for turn in range(WARMUP + REPEATS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        if turn >= WARMUP:
            times.append(start.elapsed_time(stop))
    return statistics.median(times)


class Subject:
    """A system built with its data, on the CPU; what its results should be is computed once."""

    def __init__(self, path: str, system: System, *, rehearse: bool) -> None:
        self.path, self.case = path, CASES[path]
        settings = {**self.case.settings, **(self.case.small if rehearse else {})}
        config = system.config.parse(settings, path)
        torch.manual_seed(0)
        self.model = system.build(config)
        self.data: Any = self.case.data(config, rehearse=rehearse)
        self.expected: dict[str, Tensor] = {}

    def measure(self, what: str, precision: str, device: str) -> dict[str, Any]:
        """Compare with the CPU, then time; the cells of a row."""
        if what not in self.expected:
            self.expected[what] = self.result(what, "float32", "cpu")
        error = relative(self.result(what, precision, device), self.expected[what])
        tolerance = TOLERANCE[what, precision]
        if precision == "bfloat16":
            on_cpu = relative(self.result(what, precision, "cpu"), self.expected[what])
            tolerance = min(max(tolerance, 1.5 * on_cpu), 0.9)  # zeros have an error of 1
        model, data, context = self.place(precision, device)
        call = context(self.case.work(what, model, data))
        ms, cuda = median_ms(call, device), device == "cuda"
        return {
            "time, ms": ms,
            "peak memory, MiB": peak_memory(call, device) / 2**20 if cuda else None,
            "error against the CPU": error,
            "tolerance": tolerance,
            "equal": "yes" if error <= tolerance else "NO",
            "note": "" if cuda else NO_GPU,
        }

    def result(self, what: str, precision: str, device: str) -> Tensor:
        """Compute on a device what devices are compared by."""
        model, data, context = self.place(precision, device)
        return context(self.case.result)(what, model, data)

    def place(self, precision: str, device: str) -> tuple[nn.Module, Any, torch.autocast]:
        """Copy model and data to a device, for a precision.

        In bfloat16 an estimator has weights and features of that type; other models keep float32
        weights and compute under autocast.
        """
        low, model = precision == "bfloat16", copy.deepcopy(self.model).to(device)
        if isinstance(self.case, Estimator):
            graph = copy.copy(self.data).to(device)  # without the copy, `to` would move this one
            if low:
                model, graph.x = model.bfloat16(), graph.x.bfloat16()
            return model, graph, torch.autocast(device, enabled=False)
        batch = {name: value.to(device) for name, value in self.data.items()}
        return model, batch, torch.autocast(device, torch.bfloat16, enabled=low)


def plan(systems: Mapping[str, System]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Make the rows of the table, with nothing measured yet."""
    return {
        (path, what, precision): {
            "system": path,
            "what": f"fit, {EPOCHS} epochs" if isinstance(case, Estimator) and fits else what,
            "precision": precision,
            "time, ms": None,
            "peak memory, MiB": None,
            "error against the CPU": None,
            "tolerance": TOLERANCE[what, precision],
            "equal": None,
            "note": CUT if case else NO_CASE,
        }
        for path in systems
        for case in [CASES.get(path)]
        for what, fits in ((TRAINING, True), (INFERENCE, False))
        for precision in PRECISIONS
    }


def measure_all(
    rows: dict[tuple[str, str, str], dict[str, Any]],
    systems: Mapping[str, System],
    device: str,
    write: Callable[[], None],
    *,
    rehearse: bool,
) -> int:
    """Fill in the rows one by one; return how many failed."""
    failed, subject = 0, None
    for (path, what, precision), row in rows.items():
        if path not in CASES:
            continue
        try:
            if subject is None or subject.path != path:
                subject = None  # frees the last one's memory
                subject = Subject(path, systems[path], rehearse=rehearse)
            row |= subject.measure(what, precision, device)
        except Exception as error:  # one system's failure must not hide the others' numbers
            row["note"] = error_line(error)
        failed += row["equal"] != "yes"
        print(*row.values(), sep=" | ", flush=True)
        write()
    return failed


def main() -> None:
    """Measure every system and write the table after each row."""
    parser = argparse.ArgumentParser(description="Measure every system on a CUDA GPU.")
    parser.add_argument("--only", metavar="SYSTEM", help="one system, such as speech/frcrn")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    given = parser.parse_args()
    if not given.rehearse and not torch.cuda.is_available():
        print("systems_gpu: no CUDA GPU here, nothing measured; --rehearse runs on a CPU")
        return
    device = "cpu" if given.rehearse else "cuda"
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as in matrix products
    systems = {f"{name}/{s.name}": s for name, module in domains().items() for s in module.SYSTEMS}
    systems = {path: s for path, s in systems.items() if given.only in (None, path)}
    rows = plan(systems)
    if not rows:
        raise SystemExit(f"systems_gpu: no installed domain has the system {given.only!r}")
    command = f"{COMMAND} --rehearse" if given.rehearse else COMMAND
    title = "Every system" + (", rehearsed at small sizes on a CPU" if given.rehearse else "")

    def write() -> None:
        write_benchmark(given.out / "systems.md", title, command, list(rows.values()), NOTE)

    write()
    failed = measure_all(rows, systems, device, write, rehearse=given.rehearse)
    print(f"wrote {given.out / 'systems.md'}")
    if failed:
        raise SystemExit(f"systems_gpu: {failed} of {len(rows)} rows failed")


if __name__ == "__main__":
    main()
