"""Networks of several tasks as graphs: a batch of any size, behaviours of any length."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_models import batch_of, build

from sixfold.core.system import load_function
from sixfold.core.weights.export import export
from sixfold.recsys import DTRN, PLE, SYSTEMS, MMoE, SharedBottom
from sixfold.recsys.layers.fields import Field

FIELDS = (
    Field(name="item", vocab_size=11),
    Field(name="price", kind="numeric"),
    Field(name="clicked", kind="sequence", vocab_size=11, share="item"),
    Field(name="bought", kind="sequence", vocab_size=11, share="item"),
)
CASES = [
    pytest.param(DTRN, {}, id="dtrn"),
    # a backbone that the others share, and a pooling that is a part of DTRN's
    pytest.param(DTRN, {"backbone": "ple"}, id="dtrn-ple", marks=pytest.mark.slow),
    pytest.param(SharedBottom, {"pooling": "attention"}, id="bottom", marks=pytest.mark.slow),
    pytest.param(MMoE, {"pooling": "attention"}, id="mmoe", marks=pytest.mark.slow),
    pytest.param(PLE, {"pooling": "mean"}, id="ple", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_onnxruntime_scores_the_same(tmp_path, unchecked, kind, settings):
    (system,) = (system for system in SYSTEMS if system.build is kind)
    assert system.export is not None
    products = {"other": "label"}
    model = build(kind, FIELDS, labels=("label", "other"), products=products, **settings)
    ready = load_function(system.export)(model)
    export(
        ready.module, ready.inputs, tmp_path, dynamic=ready.dynamic, outputs=ready.outputs,
        facts=ready.facts, tolerance=1e-5,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for rows, length in ((1, 1), (5, 3), (7, 8)):
        batch = {field.name: batch_of(rows, FIELDS)[field.name] for field in FIELDS}
        for name in ("clicked", "bought"):
            batch[name] = torch.randint(11, (rows, length))
            batch[name][0] = 0
        expected = torch.sigmoid(model(batch)).detach()
        found: Any = session.run(None, {name: value.numpy() for name, value in batch.items()})
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
