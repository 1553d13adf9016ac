"""The command ``sixfold``: one verb a function, whose docstring is its help."""

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from sixfold.core.config import UserError
from sixfold.core.system import domains, find_system, load_function

if TYPE_CHECKING:
    from sixfold.core.pipeline.params import Pipeline

app = App(
    name="sixfold",
    help="Published deep-learning systems: train, score, run and export them.",
    version_flags=[],
)


@app.command(name="list")
def list_() -> None:
    """List the systems of the installed domains: name, published sizes, paper."""
    from rich.console import Console
    from rich.table import Table

    table = Table("system", "published size", "parameters", "paper", box=None)
    for name, module in domains().items():
        for system in module.SYSTEMS:
            sizes = system.published or {"": (None, None)}
            for size, (_, count) in sizes.items():
                count = f"{count:,}" if count else ""
                table.add_row(f"{name}/{system.name}", size, count, system.paper)
    Console().print(table)


@app.command
def show(name: str) -> None:
    """Show a system's settings with their defaults, its sizes, and what `run` takes.

    Args:
        name: domain/system, e.g. speech/frcrn.
    """
    system = find_system(name)
    print(f"{name}: {(inspect.getdoc(system.build) or '').splitlines()[0]}\npaper: {system.paper}")
    print("settings (defaults are the published size):")
    for key, field in system.config.model_fields.items():
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        print(f"  {key}: {kind} = {field.default}")
    for size, (_, count) in system.published.items():
        print(f"published: {size}, {count:,} parameters")
    if system.run:
        print(f"run: sixfold run {name} --help")


@app.command
def prepare(domain: str, *, source_only: bool = False) -> None:
    """Prepare a domain's data, as `data:` of pipelines/<domain>/params.yaml says.

    Args:
        domain: e.g. speech.
        source_only: Only decide and write down which source `auto` means on this machine.
    """
    from sixfold.core.pipeline import stages
    from sixfold.core.pipeline.params import Pipeline

    (stages.choose_source if source_only else stages.prepare)(Pipeline.find(domain))


@app.command
def train(*names: str) -> None:
    """Train every seed of entries of params.yaml; a run that was stopped goes on.

    Seeds train side by side where the entries' `threads` leave cores for it.
    On several processes: torchrun --nproc-per-node 2 -m sixfold.core.cli train <name>.

    Args:
        names: domain/entry, e.g. speech/frcrn; several of one domain.
    """
    from sixfold.core.pipeline import stages
    from sixfold.core.pipeline.parallel import max_workers
    from sixfold.core.training.distributed import launch

    with launch():
        found, entries = _entries(names, "train")
        threads = [found.settings(entry).threads for entry in entries]
        known = [number for number in threads if number]
        most = max(known) if len(known) == len(threads) else None
        stages.train(found, entries, max_workers(len(entries) * len(found.params.seeds), most))


@app.command
def evaluate(*names: str) -> None:
    """Score every trained seed of entries of params.yaml, or references such as the input as it is.

    Args:
        names: domain/entry, e.g. speech/frcrn; several of one domain.
    """
    from sixfold.core.pipeline import stages
    from sixfold.core.pipeline.parallel import max_workers

    found, entries = _entries(names, "score")
    stages.evaluate(found, entries, max_workers(len(entries) * len(found.params.seeds), 1))


def _entries(names: tuple[str, ...], purpose: str) -> tuple["Pipeline", list[str]]:
    from sixfold.core.pipeline.params import Pipeline

    domains = {name.partition("/")[0] for name in names}
    if len(domains) != 1:
        raise UserError(
            f"name what to {purpose}, as domain/entry of one domain, e.g. speech/frcrn; got "
            + (" ".join(names) or "nothing")
        )
    return Pipeline.find(domains.pop()), [name.partition("/")[2] for name in names]


@app.command
def report(domain: str) -> None:
    """Write reports/<domain>.md and the page reports/<domain>/index.html from the results.

    Args:
        domain: e.g. speech.
    """
    from sixfold.core.pipeline.params import Pipeline

    found = Pipeline.find(domain)
    found.recipe.report(found)


@app.command(help_flags=[])
def run(
    name: str = "--help", *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]
) -> None:
    """Run a system on a file: sixfold run speech/frcrn noisy.wav clean.wav.

    Args:
        name: domain/system, e.g. speech/frcrn.
        arguments: What the system takes: see sixfold run <name> --help.
    """
    if name in ("--help", "-h"):
        app.help_print(["run"])
        return
    system = find_system(name)
    if system.run is None:
        raise UserError(f"{name} has nothing to run on a file")
    command = App(name=f"sixfold run {name}", version_flags=[], result_action="return_value")
    command.default(load_function(system.run))
    command(arguments)


@app.command
def export(name: str, folder: Path, *, weights: Path) -> None:
    """Export a system with its weights to torch.export and ONNX, compared with PyTorch.

    Args:
        name: domain/system, e.g. speech/frcrn.
        folder: Where model.pt2, model.onnx and export.json go.
        weights: Official or sixfold checkpoint.
    """
    from sixfold.core.weights.convert import from_pretrained
    from sixfold.core.weights.export import export as write

    system = find_system(name)
    if system.export is None:
        raise UserError(f"{name} cannot be exported")
    module, inputs, dynamic = load_function(system.export)(from_pretrained(weights, system))
    errors = write(module, inputs, folder, dynamic=dynamic)
    print(f"exported: {folder} ({errors})")


def main() -> None:
    """Run the command line; what the user can mend is one line and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (UserError, OSError) as error:
        if debug:
            raise
        print(f"sixfold: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("sixfold: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
