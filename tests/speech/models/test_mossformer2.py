"""MossFormer2 and MossFormer against the official code's numbers, and their properties."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.weights.convert import load_strict, rename, save_pretrained
from sixfold.speech import MossFormer, MossFormer2, MossFormer2Config
from sixfold.speech.losses import pit
from sixfold.speech.models.mossformer2.convert import CONV_LINEAR, OFFICIAL, STACKS, convert
from sixfold.speech.models.mossformer2.layers import (
    Attention,
    DenseMemory,
    Memory,
    rotary_table,
    rotate,
)
from sixfold.speech.models.mossformer2.model import position_encoding

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[3] / "shared" / "golden"))
GOLDEN = ROOT / "mossformer2"
NETWORKS = sorted(p.parent for p in GOLDEN.glob("*/state_dict.safetensors"))
NETWORKS = [p for p in NETWORKS if "system" in json.loads((p / "config.json").read_text())]
TINY = MossFormer2Config(
    channels=8, kernel_size=4, blocks=2, group=5, key_channels=6, memory_channels=4, memory=3
)
KINDS = {
    "two speakers": {},
    "three": {"speakers": 3},
    "MossFormer": {"memory_channels": None},
    "mapping": {"masking": False},
    "causal attention": {"causal_attention": True},
    "odd keys and many rotary features": {"key_channels": 41, "expansion": 2.0},
}


def tiny(**changes) -> MossFormer2:
    torch.manual_seed(0)
    return MossFormer2(TINY.model_copy(update=changes)).eval()


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert float((found.detach() - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("case", NETWORKS, ids=lambda p: p.name)
def test_golden_network(case):
    """Compare outputs, loss and every gradient norm with the official code."""
    settings = json.loads((case / "config.json").read_text())
    tensors = load_file(case / "io.safetensors")
    config, state = convert(load_file(case / "state_dict.safetensors"))
    known = {
        "encoder_embedding_dim": config.channels,
        "num_blocks": config.blocks,
        "num_spks": config.speakers,
        "encoder_kernel_size": config.kernel_size,
        "query_key_dim": config.key_channels,
        "expansion_factor": config.expansion,
    }
    assert known == {name: settings[name] for name in known}
    update = {"group": settings["group_size"], "causal_attention": settings["causal"]}
    model = MossFormer2(config.model_copy(update=update)).eval()
    load_strict(model, state, case.name)
    separated = model(tensors["input"])
    for k in range(config.speakers):
        close(separated[:, k], tensors[f"output/spk{k}"], 2e-4)
    losses, _ = pit(separated, tensors["targets"].transpose(1, 2))
    torch.testing.assert_close(losses, tensors["loss_per_item"], rtol=0, atol=1e-3)
    losses.mean().backward()
    official = {key: key for key in load_file(case / "state_dict.safetensors")}
    own = {key: parameter.grad for key, parameter in model.named_parameters()}
    for key in official:
        expected = tensors.get(f"grad_norm/{key}")
        if expected is not None and expected >= 0:
            (name,) = ours(key)
            grad = own[name]
            assert grad is not None, name
            torch.testing.assert_close(grad.norm(), expected, rtol=1e-3, atol=1e-6, msg=key)


def ours(key: str) -> list[str]:
    return list(rename({key: torch.zeros(1)}, OFFICIAL))


@pytest.mark.skipif(not (GOLDEN / "parts").is_dir(), reason="no golden cases")
def test_golden_parts():
    """Compare single layers: attention (causal or not), both memories, rotary embedding, loss."""
    tensors = load_file(GOLDEN / "parts" / "io.safetensors")
    official = load_file(GOLDEN / "parts" / "state_dict.safetensors")
    settings = json.loads((GOLDEN / "parts" / "config.json").read_text())["flash"]
    rules: dict[str, str | None] = {
        "flash.rotary_pos_emb.freqs": None,
        "flash.qk_offset_scale.{leaf}": "flash.{leaf}",
    }
    for theirs, own in {"hidden": "hidden", "qk": "key", "out": "out"}.items():
        rules[f"flash.to_{theirs}.mdl.0.g"] = f"flash.{own}_scale"
        rules |= {
            f"flash.to_{theirs}.{old}": f"flash.{own}.{new}" for old, new in CONV_LINEAR.items()
        }
    for name in ("ddsmn", "unifsmn"):
        rules[f"{name}.linear.{{leaf}}"] = f"{name}.linear.{{leaf}}"
        rules[f"{name}.project.weight"] = f"{name}.project.weight"
    rules["unifsmn.conv1.weight"] = "unifsmn.taps"
    for k in (1, 2):
        rules[f"ddsmn.conv.conv{k}.weight"] = f"ddsmn.taps.{k - 1}"
        rules[f"ddsmn.conv.norm{k}.{{leaf}}"] = f"ddsmn.norm_{{leaf}}.{k - 1}"
        rules[f"ddsmn.conv.prelu{k}.weight"] = f"ddsmn.prelu.{k - 1}"
    state = {
        key: value.squeeze(-1) if value.ndim == 4 else value
        for key, value in rename(official, rules).items()
    }
    x, key = tensors["input"], settings["query_key_dim"]
    for name, layer in {"ddsmn": DenseMemory(24, 20), "unifsmn": Memory(24, 20)}.items():
        load_strict(layer, part(state, name), name)
        close(layer(x), tensors[f"output/{name}"], 1e-4)
    table = rotary_table(x.shape[1], key, x)
    for name, causal in {"noncausal": False, "causal": True}.items():
        layer = Attention(24, settings["group_size"], key, 4.0, 0.0, causal)
        load_strict(layer, part(state, "flash"), name)
        close(layer(x, table), tensors[f"output/{name}"], 1e-4)
    rows = tensors["rotary_in"]
    close(rotate(rows, rotary_table(rows.shape[1], key, rows)), tensors["rotary_out"], 1e-4)
    estimates, targets = (tensors[f"loss/{n}"].transpose(1, 2) for n in ("estimates", "targets"))
    torch.testing.assert_close(
        pit(estimates, targets)[0], tensors["loss/pit"], rtol=1e-4, atol=1e-4
    )


def part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("samples", [4, 5, 23, 64])
def test_each_speaker_is_as_long_as_the_mixture(changes, samples):
    model = tiny(**changes)
    separated = model(torch.randn(2, samples))
    assert separated.shape == (2, model.config.speakers, samples)
    assert separated.isfinite().all()


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_items_of_a_batch_do_not_mix_and_every_parameter_learns(changes):
    model, mixture = tiny(**changes), torch.randn(3, 60)
    separated = model(mixture)
    torch.testing.assert_close(separated[1:2], model(mixture[1:2]), rtol=1e-4, atol=1e-6)
    separated.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without


def test_causal_attention_sees_no_later_group():
    """In the released code only the convolutions look ahead, eight frames each."""
    torch.manual_seed(0)
    layer, x = Attention(8, 5, 6, 4.0, 0.0, True).eval(), torch.randn(1, 60, 8)
    table, changed = rotary_table(60, 6, x), x.clone()
    changed[:, 40:] = 0
    before, after = layer(x, table), layer(changed, table)
    ahead = 2 * 8  # a convolution before the attention and one after
    assert torch.equal(before[:, : 40 - ahead], after[:, : 40 - ahead])
    assert not torch.equal(before, after)


def test_dropout_is_active_in_training_only():
    model, mixture = tiny(), torch.randn(1, 60)
    assert torch.equal(model(mixture), model(mixture))
    model.train()
    assert not torch.equal(model(mixture), model(mixture))


def test_the_first_half_of_the_second_filter_ignores_the_projection():
    """The published code's grouped convolution pairs consecutive channels of [y, p]."""
    torch.manual_seed(0)
    memory, x = DenseMemory(6, 3), torch.randn(1, 9, 6, requires_grad=True)
    with torch.no_grad():
        memory.taps[0].zero_()  # so that y carries nothing of the input
    filtered = memory(x) - x
    (grad,) = torch.autograd.grad(filtered[..., :3].square().sum(), x, retain_graph=True)
    assert float(grad.abs().max()) == 0
    (grad,) = torch.autograd.grad(filtered[..., 3:].square().sum(), x)
    assert float(grad.abs().max()) > 0


def test_the_position_encoding_begins_with_sines():
    code = position_encoding(3, torch.zeros(1, 3, 6))
    assert torch.equal(code[0], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(code[2, 0], torch.tensor(2.0).sin())


def test_both_spellings_of_official_keys_load_strictly():
    case = next((p for p in NETWORKS if "2spk_small" in p.name), None)
    if case is None:
        pytest.skip("no golden cases")
    training = load_file(case / "state_dict.safetensors")
    parts = dict(zip(STACKS["mask_net."], STACKS["masknet."], strict=True))
    first = {"enc": "encoder", "dec": "decoder", "mask_net": "masknet"}
    renamed = {}
    for key, value in training.items():
        module, _, rest = key.partition(".")
        for old, new in parts.items():
            rest = rest.replace(old, new, 1) if rest.startswith(old) else rest
        renamed[f"{first[module]}.{rest}"] = value
    assert renamed.keys().isdisjoint(training)
    (config, state), (other, others) = convert(training), convert(renamed)
    assert config == other
    assert state.keys() == others.keys()
    with pytest.raises(UserError, match=r"mask_net\.more"):
        convert({**training, "mask_net.more": torch.zeros(1)})
    del training["mask_net.prelu.weight"]
    with pytest.raises(UserError, match=r"not filled: mask\.prelu\.weight"):
        load_strict(MossFormer2(config), convert(training)[1], "this checkpoint")


def test_a_checkpoint_without_memories_is_mossformer(tmp_path):
    model = tiny(memory_channels=None)
    save_pretrained(tmp_path / "m.safetensors", model, "mossformer", model.config)
    loaded = MossFormer.from_pretrained(tmp_path / "m.safetensors")
    mixture = torch.randn(1, 40)
    assert torch.equal(loaded(mixture), model(mixture))
    with pytest.raises(UserError, match="a checkpoint of mossformer, not of mossformer2"):
        MossFormer2.from_pretrained(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiny()(torch.zeros(1, 1, 50)), r"\(batch, time\), got .*\(1, 1, 50\)"),
        (lambda: tiny()(torch.zeros(1, 50, dtype=torch.int16)), "torch.int16"),
        (lambda: tiny()(torch.zeros(1, 3)), "3 samples, less than a frame of 4"),
        (lambda: MossFormer2Config.parse({"kernel_size": 15}, "x"), "kernel_size 15"),
    ],
)
def test_bad_input_is_named(call, message, unchecked):
    with pytest.raises(UserError, match=message):
        call()


def test_it_traces_as_one_graph(unchecked):
    model, mixture = tiny(), torch.randn(2, 60)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(mixture), model(mixture))
