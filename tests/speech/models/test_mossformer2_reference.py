"""MossFormer2 against the reference implementation: numbers, gradients, memory; and exports."""

import json
import os
from pathlib import Path

import pytest
import torch
from reference_mossformer2 import ReferenceMossFormer2
from safetensors.torch import load_file

from sixfold.core.pipeline.measure import peak_memory
from sixfold.core.weights.convert import load_strict, rename
from sixfold.speech import MossFormer2, MossFormer2Config
from sixfold.speech.models.mossformer2.convert import OFFICIAL, convert

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[3] / "shared" / "golden"))
CASES = [p.parent for p in sorted((ROOT / "mossformer2").rglob("state_dict.safetensors"))]
CASES = [p for p in CASES if "system" in json.loads((p / "config.json").read_text())]
TINY = {"channels": 8, "kernel_size": 4, "blocks": 2, "group": 5, "memory": 3}
GRAPH = MossFormer2Config.model_validate(
    TINY | {"blocks": 1, "key_channels": 6, "memory_channels": 4}
)


def both(inner: int | None, speakers: int):
    """Build the reference network with perturbed weights, and ours with the same weights."""
    torch.manual_seed(0)
    reference = ReferenceMossFormer2(**TINY, speakers=speakers, key=6, inner=inner).eval()
    for parameter in reference.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    config, state = convert(reference.state_dict())
    model = MossFormer2(config.model_copy(update={"group": 5})).eval()
    load_strict(model, state, "the reference network")
    return reference, model


@pytest.mark.parametrize(("inner", "speakers"), [(4, 2), (None, 2), (4, 3)])
@pytest.mark.parametrize("samples", [9, 86, 88, 91])
def test_it_equals_the_reference_implementation(inner, speakers, samples):
    reference, model = both(inner, speakers)
    mixture = torch.randn(2, samples)
    separated, expected = model(mixture), torch.stack(reference(mixture), 1)
    torch.testing.assert_close(separated, expected, rtol=0, atol=1e-6)
    weight = torch.randn(separated.shape)
    (separated * weight).sum().backward()
    (expected * weight).sum().backward()
    own = {key: parameter.grad for key, parameter in model.named_parameters()}
    for key, parameter in reference.named_parameters():
        (name,) = rename({key: torch.zeros(1)}, OFFICIAL)
        grad = own[name]
        assert grad is not None
        assert parameter.grad is not None
        scale = float(parameter.grad.abs().max())
        difference = grad - parameter.grad.view_as(grad)
        assert float(difference.abs().max()) < 1e-5 + 1e-4 * scale, key


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_the_reference_implementation_equals_the_official_code(case):
    settings = json.loads((case / "config.json").read_text())
    if settings["causal"]:
        pytest.skip("the reference network has no causal attention")
    official = load_file(case / "state_dict.safetensors")
    inner = next((v.shape[0] for k, v in official.items() if k.endswith("fsmn.0.norm1.bias")), None)
    reference = ReferenceMossFormer2(
        settings["encoder_embedding_dim"],
        settings["num_blocks"],
        settings["num_spks"],
        settings["encoder_kernel_size"],
        settings["group_size"],
        settings["query_key_dim"],
        inner,
    ).eval()
    reference.load_state_dict(official)
    tensors = load_file(case / "io.safetensors")
    with torch.no_grad():
        for k, speaker in enumerate(reference(tensors["input"])):
            expected = tensors[f"output/spk{k}"]
            error = float((speaker - expected).abs().max())
            assert error <= 2e-4 * float(expected.abs().max())


def test_inference_takes_less_memory_than_the_reference():
    sizes = {"channels": 64, "blocks": 1, "group": 64}
    config = MossFormer2Config.model_validate(sizes | {"key_channels": 16, "memory_channels": 32})
    model, mixture = MossFormer2(config).eval(), torch.randn(1, 8000)
    reference = ReferenceMossFormer2(**sizes, key=16, inner=32).eval()
    with torch.no_grad():
        assert peak_memory(lambda: model(mixture)) < 0.8 * peak_memory(lambda: reference(mixture))
