"""Write a model as a graph that runs without its Python code, and prove that it computes the same.

Each file is run again and compared with the module in eager mode, on the example and at twice its
dynamic sizes: a graph that was frozen at the example's length fails here and not at its user's.
"""

import inspect
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sixfold.core.config import UserError, unknown_name_error

FILES = {"torch_export": "model.pt2", "onnx": "model.onnx"}
Run = Callable[..., list[Tensor]]


def export(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    folder: str | Path,
    formats: Sequence[str] = ("torch_export", "onnx"),
    dynamic: Mapping[str, Mapping[int, Any]] | None = None,
    tolerance: float = 1e-4,
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

    Returns:
        The content of ``export.json``: per format its file and its largest errors.

    Raises:
        UserError: a name is unknown, a package is missing, torch cannot keep an axis dynamic, or
            an error is above the tolerance. The folder is then as it was.
    """
    names = list(inspect.signature(module.forward).parameters)[: len(example_inputs)]
    dynamic = dynamic or {}
    for kind, given, known in (("format", formats, FILES), ("input", dynamic, names)):
        for name in given:
            if name not in known:
                raise UserError(
                    unknown_name_error(f"export of {type(module).__name__}", kind, name, known)
                )
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if "onnx" in formats and missing:
        raise UserError(
            f"export to ONNX needs {', '.join(missing)}; try: pip install 'sixfold-core[onnx]'"
        )
    folder, training = Path(folder), module.training
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            shapes = {name: dict(dynamic.get(name, {})) for name in names}
            report = _write(
                module.eval(), tuple(example_inputs), Path(partial), formats, shapes, tolerance
            )
            folder.mkdir(exist_ok=True)
            for old in ("export.json", *FILES.values()):
                (folder / old).unlink(missing_ok=True)
            for name in (*(FILES[name] for name in formats), "export.json"):  # the proof comes last
                (Path(partial) / name).replace(folder / name)
    finally:
        module.train(training)
    return report


def _write(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    folder: Path,
    formats: Sequence[str],
    shapes: dict[str, dict[int, Any]],
    tolerance: float,
) -> dict[str, Any]:
    cases = {"example": inputs}
    if any(shapes.values()):
        doubled = zip(inputs, shapes.values(), strict=True)
        cases["twice the example"] = tuple(_double(value, axes) for value, axes in doubled)
    expected = {case: _flat(module(*values)) for case, values in cases.items()}
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
    report: dict[str, Any] = {"torch": version("torch"), "tolerance": tolerance}
    report["inputs"] = {n: list(v.shape) for n, v in zip(shapes, inputs, strict=True)}
    for name in formats:
        run, facts = _WRITERS[name](program, folder / FILES[name])
        errors = {case: _max_error(run, cases[case], expected[case]) for case in cases}
        for case, error in errors.items():
            if not error <= tolerance:  # also for nan
                sizes = ", ".join(str(tuple(value.shape)) for value in cases[case])
                raise UserError(
                    f"{name} differs from eager mode by {error:.3g} on inputs {sizes} "
                    f"({case}), tolerance {tolerance:g}; nothing was written"
                )
        report[name] = {"file": FILES[name], "max_abs_error": errors, **facts}
    (folder / "export.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    return report


def _write_torch_export(program: Any, file: Path) -> tuple[Run, dict[str, Any]]:
    torch.export.save(program, file)
    module = torch.export.load(file).module()
    return (lambda *inputs: _flat(module(*inputs))), {}


def _write_onnx(program: Any, file: Path) -> tuple[Run, dict[str, Any]]:
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch about itself
        graph: Any = torch.onnx.export(program, dynamo=True, verbose=False)
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
