"""Write a model as a graph that runs without its Python code, and prove that it computes the same.

Each file is run again and compared with the module in eager mode: on the example, at twice its
dynamic sizes and at the smallest ones. A graph that was frozen at the example's length fails here
and not at its user's.
"""

import inspect
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sixfold.core.config import UserError, unknown_name_error
from sixfold.core.data.atomic import explain_write_errors, scratch_folder

FILES = {"torch_export": "model.pt2", "onnx": "model.onnx"}
Run = Callable[..., list[Tensor]]


class Exportable(NamedTuple):
    """What a system gives to `export`, in the order of its arguments.

    Args:
        module: Module in eval mode.
        inputs: Example inputs.
        dynamic: Dynamic axes by the name of the input.
        outputs: Names of the outputs.
        facts: What a user of the files must know besides, e.g. ``sample_rate``.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    dynamic: Mapping[str, Mapping[int, Any]]
    outputs: Sequence[str]
    facts: Mapping[str, Any]


def export(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    folder: str | Path,
    formats: Sequence[str] = ("torch_export", "onnx"),
    dynamic: Mapping[str, Mapping[int, Any]] | None = None,
    tolerance: float = 1e-4,
    outputs: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export a module in eval mode to ``model.pt2`` and ``model.onnx``, checked.

    Complex inputs and outputs are pairs of reals on a last axis in ONNX.

    Args:
        module: Module, whose weights and mode are left as they are.
        example_inputs: Arguments of ``forward``, in order, on the module's device.
        folder: Folder of the files; those of an earlier export are replaced.
        formats: Formats to write.
        dynamic: For each input name, axis to ``torch.export.Dim``, e.g.
            ``{"audio": {1: Dim("time", min=640)}}``; the example's size there must be 2 or more
            (torch freezes 0 and 1), and its double must be allowed.
        tolerance: Largest accepted absolute difference from eager mode.
        outputs: Names of the outputs; ``output_0`` and so on if unset.
        facts: Entries to add to ``export.json``.

    Returns:
        The content of ``export.json``: ``inputs`` and ``outputs`` by name (shape with the names of
        dynamic axes, dtype), the smallest size of each axis, per format its file and its largest
        errors.

    Raises:
        UserError: a name is unknown, a package is missing, torch cannot keep an axis dynamic, or
            an error is above the tolerance. The folder is then as it was.
    """
    names = list(inspect.signature(module.forward).parameters)[: len(example_inputs)]
    dynamic = dynamic or {}
    _check_request(type(module).__name__, formats, dynamic, names)
    folder, modes = Path(folder), [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad(), _lend_scratch(folder) as partial:
            shapes = {name: dict(dynamic.get(name, {})) for name in names}
            with _without_noise():
                report = _write(
                    module.eval(), tuple(example_inputs), partial, formats, shapes, tolerance,
                    outputs,
                )  # fmt: skip
            report = {**report, **(facts or {})}
            text = json.dumps(report, indent=2, sort_keys=True) + "\n"
            (partial / "export.json").write_text(text)
            folder.mkdir(exist_ok=True)
            for old in ("export.json", *FILES.values()):
                (folder / old).unlink(missing_ok=True)
            for name in (*(FILES[name] for name in formats), "export.json"):  # the proof comes last
                (partial / name).replace(folder / name)
    finally:
        for part, training in modes:
            part.training = training
    return report


@contextmanager
def _lend_scratch(folder: Path) -> Iterator[Path]:
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is no folder; name another for the files")
    with explain_write_errors(folder), scratch_folder(folder.parent) as partial:
        yield partial


def _check_request(
    name: str, formats: Sequence[str], dynamic: Mapping[str, Any], inputs: Sequence[str]
) -> None:
    for kind, given, known in (("format", formats, FILES), ("input", dynamic, inputs)):
        for word in given:
            if word not in known:
                raise UserError(unknown_name_error(f"export of {name}", kind, word, known))
    missing = [word for word in ("onnx", "onnxruntime", "onnxscript") if find_spec(word) is None]
    if "onnx" in formats and missing:
        raise UserError(
            f"export to ONNX needs {', '.join(missing)}; try: pip install 'sixfold-core[onnx]'"
        )


def _write(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    folder: Path,
    formats: Sequence[str],
    shapes: dict[str, dict[int, Any]],
    tolerance: float,
    outputs: Sequence[str],
) -> dict[str, Any]:
    cases = {"example": inputs}
    if any(shapes.values()):
        pairs = list(zip(inputs, shapes.values(), strict=True))
        cases["twice the example"] = tuple(_double(value, axes) for value, axes in pairs)
        cases["smallest"] = tuple(_smallest(value, axes) for value, axes in pairs)
    from torch._dynamo.exc import UserError as Unexportable  # slow to import

    try:
        program = torch.export.export(
            module,
            inputs,
            dynamic_shapes=shapes,
            # What a size must satisfy becomes an assertion of the graph, not a reason to refuse it.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    except Unexportable as error:  # its text names the axis and the mend
        reason = str(error).partition("\n\nThe error above")[0]
        raise UserError(f"export of {type(module).__name__}: {reason}") from None
    _drop_assertions(program)
    expected = {case: _flat(module(*values)) for case, values in cases.items()}
    outputs = outputs or [f"output_{i}" for i in range(len(expected["example"]))]
    report: dict[str, Any] = {"torch": version("torch"), "tolerance": tolerance}
    report |= _describe(cases, expected, shapes, outputs)
    for name in formats:
        run, facts = _WRITERS[name](program, folder / FILES[name], shapes, outputs)
        errors = {case: _max_error(run, cases[case], expected[case]) for case in cases}
        for case, error in errors.items():
            if not error <= tolerance:  # also for nan
                sizes = ", ".join(str(tuple(value.shape)) for value in cases[case])
                raise UserError(
                    f"{name} differs from eager mode by {error:.3g} on inputs {sizes} "
                    f"({case}), tolerance {tolerance:g}; nothing was written"
                )
        report[name] = {"file": FILES[name], "max_abs_error": errors, **facts}
    return report


def _drop_assertions(program: Any) -> None:
    """Drop what torch noted of sizes while it decomposed operators.

    Most of it is about strides and refuses sizes that the graph computes rightly, such as a batch
    of one. What the graph computes is compared with eager mode instead; the ranges of the inputs
    stay.
    """
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _describe(
    cases: Mapping[str, tuple[Tensor, ...]],
    expected: Mapping[str, list[Tensor]],
    shapes: Mapping[str, Mapping[int, Any]],
    outputs: Sequence[str],
) -> dict[str, Any]:
    """Describe inputs and outputs: an axis whose sizes are those of a dynamic one has its name."""
    axes, smallest = {}, {}
    for i, dims in enumerate(shapes.values()):
        for axis, dim in dims.items():
            axes[tuple(values[i].shape[axis] for values in cases.values())] = dim.__name__
            smallest[dim.__name__] = max(1, dim.min)

    def describe(of_cases: list[Tensor]) -> dict[str, Any]:
        sizes = list(zip(*(value.shape for value in of_cases), strict=True))
        shape = [n[0] if len(set(n)) == 1 else axes.get(n, "varies") for n in sizes]
        return {"shape": shape, "dtype": str(of_cases[0].dtype).removeprefix("torch.")}

    given, found = (list(zip(*of.values(), strict=True)) for of in (cases, expected))
    report = {
        "inputs": {n: describe(list(v)) for n, v in zip(shapes, given, strict=True)},
        "outputs": {n: describe(list(v)) for n, v in zip(outputs, found, strict=True)},
    }
    return report | ({"smallest_sizes": smallest} if smallest else {})


@contextmanager
def _without_noise() -> Iterator[None]:
    """Silence what torch and onnxscript say of themselves; what goes wrong is an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_torch_export(
    program: Any, file: Path, shapes: Mapping[str, Any], outputs: Sequence[str]
) -> tuple[Run, dict[str, Any]]:
    content = io.BytesIO()  # on a full disk torch ends the process
    torch.export.save(program, content)
    file.write_bytes(content.getbuffer())
    module = torch.export.load(file).module()
    return (lambda *inputs: _flat(module(*inputs))), {}


def _write_onnx(
    program: Any, file: Path, shapes: Mapping[str, Any], outputs: Sequence[str]
) -> tuple[Run, dict[str, Any]]:
    import onnxruntime

    graph: Any = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        dynamic_shapes=dict(shapes),  # for the names of the axes
        output_names=list(outputs),
    )
    graph.save(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = [value.detach().numpy() for value in _flat(inputs)]
        outputs: Any = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(value) for value in outputs]

    return run, {"opset": graph.model.opset_imports[""], "onnxruntime": version("onnxruntime")}


_WRITERS = {"torch_export": _write_torch_export, "onnx": _write_onnx}


def _flat(values: Any) -> list[Tensor]:
    """List the tensors of any nest on the CPU, complex ones as pairs of reals."""
    tensors = [value.cpu() for value in pytree.tree_leaves(values)]
    return [torch.view_as_real(value) if value.is_complex() else value for value in tensors]


def _double(value: Tensor, axes: Mapping[int, Any]) -> Tensor:
    for axis in axes:
        value = torch.cat([value, value.flip(axis)], axis)
    return value


def _smallest(value: Tensor, axes: Mapping[int, Any]) -> Tensor:
    for axis, dim in axes.items():
        value = value.narrow(axis, 0, max(1, dim.min))
    return value


def _max_error(run: Run, inputs: tuple[Tensor, ...], expected: list[Tensor]) -> float:
    """Return the largest absolute difference; infinity where the graph fails or shapes differ."""
    try:
        found = run(*inputs)
    except Exception:  # each runtime has its own classes for "this graph takes no such size"
        return float("inf")
    if [value.shape for value in found] != [value.shape for value in expected]:
        return float("inf")
    pairs = zip(found, expected, strict=True)
    errors = [(a.double() - b.double()).abs().max() for a, b in pairs if a.numel()]
    return float(torch.stack(errors).max()) if errors else 0.0
