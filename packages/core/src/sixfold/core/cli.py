"""The command ``sixfold``: one verb a function, whose docstring is its help."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pydantic

from sixfold.core.config import UserError, in_one_line
from sixfold.core.messages import LAST_RESORT, printable, shorten, shown
from sixfold.core.system import (
    System,
    domain,
    domains,
    find_system,
    installed_versions,
    is_system,
    load_function,
)

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection

    from sixfold.core.pipeline.params import TaskRun

HELP = ("--help", "-h")


def list_() -> None:
    """List the systems of the installed domains: sizes, paper, published weights."""
    from rich.console import Console
    from rich.table import Column, Table

    name, *others = (Column(name, no_wrap=True) for name in ("system", "parameters", "paper"))
    size = Column("published size", overflow="fold")
    table = Table(name, size, *others, "weights", box=None)
    for name, module in domains().items():
        for system in module.SYSTEMS:
            sizes = system.published or {"": (None, None)}
            for row, (size, (_, count)) in enumerate(sizes.items()):
                count = f"{count:,}" if count else ""
                weights = "" if row else _weights(system)
                table.add_row(f"{name}/{system.name}", size, count, system.paper, weights)
    Console().print(table)


def _weights(system: System) -> str:
    """Return whether cache or mirror hold the published weights; empty if there are none."""
    from sixfold.core.weights.published import list_weights

    found = list_weights(system).values()
    return "" if not found else "here" if all(found) else "not here"


def show(name: str) -> None:
    """Show a system: its settings with their defaults, published sizes and weights.

    Args:
        name: domain/system, e.g. speech/frcrn.
    """
    from sixfold.core.weights.published import list_weights

    system = find_system(name)
    print(f"{name}: {(inspect.getdoc(system.build) or '').splitlines()[0]}\npaper: {system.paper}")
    print("settings (defaults are the published size):")
    for key, field in system.config.model_fields.items():
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        print(f"  {key}: {kind} = {field.default}")
    for size, (_, count) in system.published.items():
        print(f"published: {size}, {count:,} parameters")
    for weights, here in list_weights(system).items():
        print(f"weights: {weights} ({'here' if here else 'fetched at first use'})")
    for verb in ("run", "train"):
        if getattr(system, verb):
            print(f"{verb}: sixfold {verb} {name} --help")


def doctor() -> None:
    """Report versions, devices, fused kernels, and the data, weights and extras found here."""
    from sixfold.core.doctor import diagnose

    for label, text in diagnose():
        print(f"{label:<16} {text}")


def inputs(pipeline: str) -> None:
    """Write which data `auto` means on this machine and hashes of the code; DVC depends on both.

    Args:
        pipeline: Folder under pipelines/, e.g. speech or speech-paper.
    """
    from sixfold.core.pipeline import stages
    from sixfold.core.pipeline.params import Pipeline

    stages.inputs(Pipeline.find(pipeline))


def prepare(name: str) -> None:
    """Prepare the data of a task or of all tasks, as `data:` of params.yaml says.

    Args:
        name: pipeline/task, e.g. speech/enhancement, or a pipeline for all of its tasks.
    """
    from sixfold.core.pipeline import stages

    for task in _tasks(name):
        stages.prepare(task)


def train(name: str = "--help", /, *arguments: str) -> None:
    """Train a system on your own data, or every seed of a pipeline's systems.

    sixfold train speech/frcrn --data my/recordings --out runs/mine: the result is a checkpoint that
    `sixfold run` takes. sixfold train speech/frcrn --help lists what a system takes.

    sixfold train speech/enhancement: trains what params.yaml says. A training that was stopped goes
    on; seeds train in parallel where the systems' `threads` leave cores for it.

    On several processes: torchrun --nproc-per-node 2 -m sixfold.core.cli train NAME ...

    Args:
        name: domain/system, e.g. speech/frcrn, with the system's arguments; or pipeline/task, e.g.
            speech/enhancement; pipeline/task/system for one of its systems; or a pipeline for all
            of its tasks.
        arguments: Arguments of the system.
    """
    if name in HELP:
        build_app().help_print(["train"])
        return
    from sixfold.core.training.distributed import launch

    with launch():
        if arguments or is_system(name):
            _call(name, "train", arguments)
            return
        from sixfold.core.pipeline import stages

        for task in _tasks(name):
            stages.train(task, _entries(name))


def evaluate(name: str) -> None:
    """Score every trained seed of a task's systems, its references, and its measurements.

    Args:
        name: pipeline/task, e.g. speech/enhancement; pipeline/task/system for one system; or a
            pipeline for all of its tasks.
    """
    from sixfold.core.pipeline import stages

    for task in _tasks(name):
        stages.evaluate(task, _entries(name))


def _tasks(name: str, changes: dict[str, Any] | None = None) -> list["TaskRun"]:
    from sixfold.core.pipeline.params import Pipeline

    pipeline, _, rest = name.partition("/")
    found, key = Pipeline.find(pipeline, changes), rest.partition("/")[0]
    return [found.task(key)] if key else list(found.tasks.values())


def _entries(name: str) -> list[str]:
    return name.split("/", 2)[2:]


def report(pipeline: str) -> None:
    """Write reports/<pipeline>.md and the page reports/<pipeline>/index.html from the results.

    Args:
        pipeline: Folder under pipelines/, e.g. speech or speech-paper.
    """
    from sixfold.core.pipeline.params import Pipeline
    from sixfold.core.pipeline.report import write_report

    write_report(Pipeline.find(pipeline))


def repro(
    pipeline: str,
    *,
    budget: float | None = None,
    seeds: list[int] | None = None,
    set: list[str] | None = None,
) -> None:
    """Run all stages of a pipeline in one process: data, training, scores, report. Without DVC.

    Args:
        pipeline: Folder under pipelines/, e.g. speech.
        budget: Factor on the steps of every training, instead of the file's.
        seeds: Seeds, instead of the file's.
        set: Other value of params.yaml, e.g. tasks.enhancement.data.test_clips=3; may be repeated.
    """
    from sixfold.core.pipeline import stages
    from sixfold.core.pipeline.params import Pipeline
    from sixfold.core.pipeline.report import write_report
    from sixfold.core.yaml_files import parse_settings

    changes = parse_settings(set or ())
    changes |= {k: v for k, v in {"budget": budget, "seeds": seeds}.items() if v is not None}
    found = Pipeline.find(pipeline, changes)
    stages.inputs(found)
    for task in found.tasks.values():
        stages.prepare(task)
        stages.train(task)
        stages.evaluate(task)
    write_report(found)


def claims(*, write: Path | None = None) -> None:
    """Print what holds of every claim, as a Markdown table, from the committed results.

    Args:
        write: File to put the table in, between the lines <!-- claims --> and <!-- /claims -->.
    """
    from sixfold.core.pipeline.page import markdown_table, replace_between_markers
    from sixfold.core.pipeline.params import Pipeline
    from sixfold.core.pipeline.report import claims_table

    names = [path.parent.name for path in sorted(Path("pipelines").glob("*/params.yaml"))]
    table = claims_table([Pipeline.find(name) for name in names])
    text = markdown_table(table.rows, table.columns)
    if write is None:
        print(text)
    else:
        replace_between_markers(write, "claims", text)


def run(name: str = "--help", /, *arguments: str) -> None:
    """Run a system on files: sixfold run speech/frcrn noisy.wav clean.wav, or on a whole folder.

    Args:
        name: domain/system, e.g. speech/frcrn; `sixfold list` shows all of them.
        arguments: Arguments of the system; sixfold run speech/frcrn --help lists them.
    """
    if name in HELP:
        build_app().help_print(["run"])
        return
    _call(name, "run", arguments)


def _call(name: str, verb: str, arguments: Sequence[str]) -> None:
    """Hand the arguments to the function that a system names for a verb."""
    target = getattr(find_system(name), verb)
    if target is None:
        raise UserError(f"{name} has no `sixfold {verb}`; sixfold show {name} says what it has")
    from sixfold.core.devices import explain_out_of_memory

    with explain_out_of_memory():
        _parse(f"sixfold {verb} {name}", target, arguments)


def _parse(command: str, target: str, arguments: Sequence[str]) -> None:
    from cyclopts import App

    app = App(name=command, version_flags=[], help_format="plaintext", result_action="return_value")
    app.default(_reflowed(load_function(target)))
    _answer(app, arguments)


def _answer(app: "App", arguments: Sequence[str]) -> None:
    """Call a command; what it cannot make of its arguments is one line, as all errors are.

    Raises:
        UserError: an argument is unknown, missing, empty or of a wrong type.
    """
    from cyclopts import CycloptsError

    _refuse_empty(arguments)
    app.config = (_check_whole_numbers,)
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        cause, text = error.__cause__, " ".join(str(error).split())
        if isinstance(cause, pydantic.ValidationError):
            text = f"{in_one_line(cause)}."
        raise UserError(shorten(f"{text} Add --help to see what there is.")) from None


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty texts: as a path they would mean all of this folder, as weights none.

    Raises:
        UserError: there is one, most often a variable of the shell that is not set.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if not argument or re.fullmatch(r"--[\w-]+=", argument):
            place = argument or (f"that after {before}" if before else "the first")
            raise UserError(
                f"an argument is empty ({place}): give it a value, or leave it out; is a variable "
                "of the shell not set?"
            )


def _check_whole_numbers(app: "App", commands: Any, arguments: "ArgumentCollection") -> None:
    """Refuse 1.5 where a whole number is meant, which cyclopts would round, and absurd ones.

    Raises:
        UserError: there is one.
    """
    for argument in arguments:
        kinds = set(_kinds(argument.hint))
        for token in argument.tokens if int in kinds and not kinds & {float, str} else ():
            if re.fullmatch(r"[+-]?\d*\.\d*[1-9]\d*", token.value):
                raise UserError(f"{argument.name} {shown(token.value)}: give a whole number")
            if re.fullmatch(r"[+-]?\d{19,}", token.value):  # no tensor holds so many
                raise UserError(f"{argument.name} {shown(token.value)}: give a smaller number")


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the types in a type, such as int in ``tuple[int, ...] | None``."""
    yield hint
    for inner in get_args(hint):
        yield from _kinds(inner)


def _reflowed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose docstring has one line a paragraph and argument.

    cyclopts would keep the line ends of the source. Its Markdown, which does not, swallows what
    looks like a tag, such as the name in ``pipelines/<name>/params.yaml``.
    """

    @functools.wraps(function)
    def same(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    paragraph = re.sub(r"(?<=[^\n:])\n(?=\S)", " ", inspect.getdoc(function) or "")
    same.__doc__ = re.sub(r"\n {6,}(?=\S)", " ", paragraph)
    return same


def score(domain_name: str = "--help", /, *arguments: str) -> None:
    """Score results against references: sixfold score speech clean/ enhanced/.

    Args:
        domain_name: Installed domain, e.g. speech.
        arguments: Arguments of the domain; sixfold score speech --help lists them.
    """
    if domain_name in HELP:
        build_app().help_print(["score"])
        return
    target = getattr(domain(domain_name), "SCORE", None)
    if target is None:
        raise UserError(f"{domain_name} scores no files")
    _parse(f"sixfold score {domain_name}", target, arguments)


def export(name: str, folder: Path, *, weights: str, sample_rate: int | None = None) -> None:
    """Export a system with its weights to torch.export and ONNX, compared with PyTorch.

    Args:
        name: domain/system, e.g. speech/frcrn.
        folder: Folder of the results model.pt2, model.onnx and export.json.
        weights: Path of an official or sixfold checkpoint, or name of published weights.
        sample_rate: Sample rate of a network for audio, in Hz, if its checkpoint does not hold it.
    """
    from sixfold.core.many_files import refuse_inputs
    from sixfold.core.weights.convert import from_pretrained
    from sixfold.core.weights.export import FILES, Exportable
    from sixfold.core.weights.export import export as write

    system = find_system(name)
    if system.export is None:
        raise UserError(f"{name} cannot be exported")
    refuse_inputs([Path(weights)], [folder / file for file in FILES.values()])
    model = from_pretrained(weights, system, sample_rate=sample_rate)
    found: Exportable = load_function(system.export)(model)
    module, inputs, dynamic, outputs, facts = found
    report = write(module, inputs, folder, dynamic=dynamic, outputs=outputs, facts=facts)
    for side in ("inputs", "outputs"):
        for key, value in report[side].items():
            print(f"{side[:-1]}: {key}, {value['dtype']} {tuple(value['shape'])}")
    errors = [e for name in FILES for e in report[name]["max_abs_error"].values()]
    print(f"exported: {folder}, at most {max(errors):.1g} from PyTorch; more in export.json")


VERBS = (
    show, doctor, inputs, prepare, evaluate, report, repro, claims, export,
)  # fmt: skip


def build_app() -> "App":
    """Make the command line of the verbs.

    Raises:
        UserError: cyclopts, which parses it, is not installed.
    """
    try:
        from cyclopts import App, Parameter
    except ModuleNotFoundError:
        raise UserError("the command needs: pip install 'sixfold-core[pipeline,train]'") from None

    app = App(
        name="sixfold",
        help="Published deep-learning systems: train, score, run and export them.",
        version=lambda: "\n".join(f"{name} {v}" for name, v in installed_versions().items()),
        help_format="plaintext",
        version_format="plaintext",
    )
    app.command(_reflowed(list_), name="list")
    for verb in VERBS:
        app.command(_reflowed(verb))
    # What follows the name of a system is the system's to parse.
    rest = Parameter(allow_leading_hyphen=True, show_default=False)
    for verb in (run, train, score):
        usage = f"Usage: sixfold {verb.__name__} NAME [ARGUMENTS...]"
        options = {"help_flags": [], "version_flags": [], "default_parameter": rest}
        app.command(_reflowed(verb), usage=usage, **options)
    return app


def main() -> None:
    """Run the command line; what the user can mend is one line and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _answer(build_app(), arguments)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        if debug:
            raise
        print(f"sixfold: {shorten(printable(str(error)), LAST_RESORT)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    from sixfold.core import command

    command.main()
