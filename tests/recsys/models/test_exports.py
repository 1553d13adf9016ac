"""Every system as a graph: a batch of any size, no sequence operators, the same probabilities."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import batch_of, build

from sixfold.core.system import load_function
from sixfold.core.weights.export import export
from sixfold.recsys import LR, SYSTEMS, FinalMLP
from sixfold.recsys.layers.exporting import argument_names, write_embeddings
from sixfold.recsys.layers.fields import Field


def exported(system, folder, model):
    ready = load_function(system.export)(model)
    return export(
        ready.module, ready.inputs, folder, dynamic=ready.dynamic, outputs=ready.outputs,
        facts=ready.facts, tolerance=1e-5,
    )  # fmt: skip


# the others have no operators that these have not
QUICK = ("finalmlp", "fcn")
CASES = [
    pytest.param(system, id=system.name, marks=() if system.name in QUICK else pytest.mark.slow)
    for system in SYSTEMS
]


@pytest.mark.parametrize("system", CASES)
def test_a_graph_scores_any_batch(tmp_path, unchecked, system):
    model = build(system.build, labels=("label", "other"))
    report = exported(system, tmp_path / "out", model)
    assert report["tasks"] == ["label", "other"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    names = [field.name for field in model.config.fields]
    for rows in (1, 5):
        batch = {name: batch_of(rows)[name] for name in names}
        expected = torch.sigmoid(model(batch)).detach()
        assert expected.shape == (rows, 2)
        torch.testing.assert_close(program(*batch.values()), expected, rtol=0, atol=1e-5)
        found: Any = session.run(None, {name: value.numpy() for name, value in batch.items()})
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert not {node.op_type for node in graph.node if "Sequence" in node.op_type}


def test_constant_gates_are_no_part_of_the_graph():
    (system,) = (system for system in SYSTEMS if system.name == "finalmlp")
    assert system.export is not None
    ready = load_function(system.export)(build(FinalMLP, context1=(), context2=()))
    assert not [name for name in ready.module.state_dict() if "gate" in name]


def test_inputs_are_named_as_columns_or_nearly_so(tmp_path, unchecked):
    names = ["user", "C1", "c1", "is new", "_2nd", "class", "Größe", "__", "self", "probabilities"]
    expected = ["user", "c1", "c1_2", "is_new", "column_2nd", "column_class", "gr_e", "column"]
    expected += ["column_self", "column_probabilities"]
    assert argument_names(names) == expected
    fields = tuple(Field(name=name, vocab_size=3) for name in names)
    (system,) = (system for system in SYSTEMS if system.name == "lr")
    report = exported(system, tmp_path / "out", build(LR, fields))
    assert report["columns"] == dict(zip(expected, names, strict=True))
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert [value.name for value in session.get_inputs()] == expected


def test_embeddings_are_written_by_column(tmp_path):
    model = build(FinalMLP, context2=("price",))
    write_embeddings(model, tmp_path / "tables.safetensors")
    tables = load_file(tmp_path / "tables.safetensors")
    assert {name for name in tables if name.startswith("gate")} == {
        "gate1.embedding.user", "gate1.embedding.item", "gate2.embedding.price",
    }  # fmt: skip
    assert torch.equal(tables["embedding.item"], model.embedding.rows("item"))
    assert torch.equal(tables["embedding.price"], model.embedding.numeric)
