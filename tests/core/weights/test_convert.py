"""Checkpoints: nothing foreign is run, no key is lost in silence, errors say the mend."""

import argparse
import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toy_system import OTHER, TOY, Toy, ToyConfig, official, same, settings

from sixfold.core.config import UserError
from sixfold.core.weights.convert import (
    from_pretrained,
    load_strict,
    read_pretrained,
    read_state_dict,
    rename,
    save_pretrained,
)


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt", "tar", "safetensors"])
def test_every_ending_reads_the_same_weights(tmp_path, ending):
    state, path = Toy(ToyConfig()).state_dict(), tmp_path / f"a.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    assert same(read_state_dict(path), state)


@pytest.mark.parametrize(
    "nest", ["state_dict", "model_state_dict", "model", "params_ema", "params", "separator"]
)
def test_what_training_scripts_wrap_around_weights_is_taken_off(tmp_path, nest):
    state = Toy(ToyConfig()).state_dict()
    wrapped = {f"module.model.{key}": value for key, value in state.items()}
    torch.save({nest: wrapped, "epoch": 3, "optimizer": {"lr": 1}}, tmp_path / "a.pt")
    assert same(read_state_dict(tmp_path / "a.pt"), state)


def test_two_state_dicts_under_unknown_names_are_named(tmp_path):
    state = Toy(ToyConfig()).state_dict()
    torch.save({"generator": state, "discriminator": state}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"holds generator \(\w+\), discriminator"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_every_precision_becomes_float32(tmp_path, dtype, ending):
    values = torch.tensor([0.1, -3.7, 4096.5], dtype=torch.float64)
    state, path = {"a": values.to(dtype), "count": torch.tensor(7)}, tmp_path / f"a.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    found = read_state_dict(path)
    assert (found["a"].dtype, found["count"].dtype) == (torch.float32, torch.int64)
    assert torch.equal(found["a"], values.to(dtype).float())


def test_a_trainers_module_is_loaded_without_its_loss(tmp_path, capsys):
    model = Toy(ToyConfig(width=7))
    nested = {f"net.module.{key}": value for key, value in official(model).items()}
    torch.save({"state_dict": nested | {"loss.window": torch.ones(4)}}, tmp_path / "a.ckpt")
    assert same(from_pretrained(tmp_path / "a.ckpt", TOY).state_dict(), model.state_dict())
    assert "loaded net.module.*, left out loss.window" in capsys.readouterr().out


def test_a_trainers_module_that_holds_the_network_twice_is_ambiguous(tmp_path):
    state = official(Toy(ToyConfig()))
    twice = {f"{name}.{key}": value for key, value in state.items() for name in ("ema", "model")}
    torch.save({"state_dict": twice}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"more than once: ema\.\* and model\.\*; save one"):
        from_pretrained(tmp_path / "a.ckpt", TOY)


def test_a_part_that_lacks_a_key_does_not_fit(tmp_path):
    state = official(Toy(ToyConfig()))
    del state["enc0.conv.bias"]
    torch.save({f"model.{k}": v for k, v in state.items()} | {"b.c": torch.ones(1)}, tmp_path / "a")
    with pytest.raises(UserError):
        from_pretrained(tmp_path / "a", TOY)


def test_a_prefix_that_only_some_keys_have_is_kept(tmp_path):
    state = {"model.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt").keys() == state.keys()


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"no checkpoint nowhere\.pt"):
        read_state_dict("nowhere.pt")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_called_damaged(tmp_path, ending, keep):
    state, path = {"a": torch.arange(5000.0)}, tmp_path / f"a.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match="damaged"):
        read_state_dict(path)


def test_a_text_file_is_no_checkpoint(tmp_path):
    (tmp_path / "a.pt").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="damaged or no checkpoint"):
        read_state_dict(tmp_path / "a.pt")


class RunsCode:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (self.target,))


def test_pickled_code_is_refused_and_not_run(tmp_path):
    torch.save({"a": RunsCode(str(tmp_path / "ran"))}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"refused: .* holds posix\.mkdir"):
        read_state_dict(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("foreign", [argparse.Namespace(lr=1), nn.Linear(1, 1)])
def test_pickled_objects_are_refused_by_name(tmp_path, foreign):
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": foreign}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"{type(foreign).__name__}, and unpickling that can run"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "content", [[1, 2], {}, torch.ones(2), {"state_dict": {}}, {"model": torch.ones(1)}], ids=repr
)
def test_what_is_no_state_dict_is_said_to_be_none(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="no state dict"):
        read_state_dict(tmp_path / "a.pt")


def test_values_other_than_tensors_are_listed(tmp_path):
    torch.save({"weight": torch.ones(1), "epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"epoch \(int\)"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_nan_is_refused_with_the_key(tmp_path, dtype):
    torch.save(
        {"a": torch.ones(3), "b": torch.tensor([1, float("nan")], dtype=dtype)},
        p := tmp_path / "a.pt",
    )
    with pytest.raises(UserError, match="NaN in b;"):
        read_state_dict(p)


def test_infinity_in_a_mask_buffer_is_allowed(tmp_path):
    torch.save({"mask": torch.full((2,), float("-inf"))}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt")["mask"].isinf().all()


def test_the_first_rule_that_fits_wins_and_a_field_holds_no_dot():
    state = {
        "enc10.norm.a.weight": torch.ones(1),
        "enc1.x": torch.zeros(1),
        "drop.me": torch.ones(2),
    }
    rules = {
        "enc{i}.{leaf}": "e.{i}.{leaf}",
        "enc{i}.{*leaf}": "deep.{i}.{leaf}",
        "drop.{*any}": None,
    }
    assert rename(state, rules).keys() == {"deep.10.norm.a.weight", "e.1.x"}


def test_dots_in_a_rule_are_literal():
    with pytest.raises(UserError, match="not used: axb"):
        rename({"axb": torch.ones(1)}, {"a.b": "c"})


def test_leftovers_of_both_sides_are_counted_and_ten_are_shown():
    state = {f"old.{i}": torch.ones(1) for i in range(13)} | {"a": torch.ones(1)}
    with pytest.raises(UserError) as error:
        rename(state, {"a": "b"}, ["b", "c", "d"], "toy.pt")
    text = str(error.value)
    assert "toy.pt does not fit: 13 of its keys are not used: old.0, " in text
    assert "old.9 (and 3 more); 2 keys of the model are not filled: c, d" in text
    assert "old.10" not in text


def test_a_rule_to_a_name_the_model_lacks_is_a_leftover():
    with pytest.raises(UserError, match=r"not used: a \(as typo\).* not filled: b"):
        rename({"a": torch.ones(1)}, {"a": "typo"}, ["b"])


def test_copies_must_agree():
    rules = {"encoder{i}": "e{i}", "encoders.{i}": "e{i}"}
    state = {"encoder0": torch.ones(2), "encoders.0": torch.ones(2)}
    assert rename(state, rules).keys() == {"e0"}
    with pytest.raises(UserError, match=r"encoder0 and encoders\.0 should be copies"):
        rename(state | {"encoders.0": torch.zeros(2)}, rules)


def test_a_size_that_differs_is_said_in_words():
    wide, narrow = Toy(ToyConfig(width=128)), Toy(ToyConfig(width=16))
    with pytest.raises(UserError) as error:
        load_strict(narrow, wide.state_dict(), "wide.pt")
    text = str(error.value)
    assert "first.weight is (128, 1, 5), the model wants (16, 1, 5)" in text
    assert "it has 128 channels, the config says 16 (and 2 more)" in text


def test_real_weights_do_not_fill_complex_ones():
    state = Toy(ToyConfig()).state_dict()
    with pytest.raises(
        UserError, match=r"phase is torch\.float32, the model wants torch\.complex64"
    ):
        load_strict(Toy(ToyConfig()), state | {"phase": torch.ones(2)}, "toy")


def test_leftovers_leave_the_model_untouched():
    model = Toy(ToyConfig())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: torch.zeros_like(value) for key, value in before.items()}
    with pytest.raises(UserError, match=r"not used: extra.*not filled: first\.bias"):
        load_strict(model, {"extra": state.pop("first.bias"), **state}, "toy")
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("kind", ["official.pt", "ours.safetensors"])
def test_official_and_own_checkpoints_give_the_same_model(tmp_path, kind):
    model, path = Toy(ToyConfig(width=7)), tmp_path / kind
    if kind == "official.pt":
        torch.save({"state_dict": official(model)}, path)
    else:
        save_pretrained(path, model, "toy", ToyConfig(width=7))
    loaded = from_pretrained(path, TOY)
    assert same(loaded.state_dict(), model.state_dict())
    assert not loaded.training


def test_weights_under_our_names_without_settings_are_told_how_to_be_saved(tmp_path):
    torch.save(Toy(ToyConfig(width=7)).state_dict(), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"of sixfold's toy without its settings.*save_pretrained"):
        from_pretrained(tmp_path / "a.pt", TOY)


def test_a_setting_that_an_official_checkpoint_does_not_hold_is_given_and_saved(tmp_path):
    model = Toy(ToyConfig(width=7))
    torch.save(official(model), tmp_path / "a.pt")
    unset = settings(from_pretrained(tmp_path / "a.pt", TOY, sample_rate=None))
    assert unset.model_fields_set == {"width"}
    given = from_pretrained(tmp_path / "a.pt", TOY, sample_rate=16_000)
    assert settings(given) == ToyConfig(width=7, sample_rate=16_000)
    save_pretrained(tmp_path / "b.safetensors", given, "toy", settings(given))
    again = settings(from_pretrained(tmp_path / "b.safetensors", TOY))
    assert again == settings(given)
    assert "sample_rate" in again.model_fields_set
    other = settings(from_pretrained(tmp_path / "b.safetensors", TOY, sample_rate=4000))
    assert other.sample_rate == 4000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"sample_rate": 0}, "greater than 0"), ({"simple_rate": 8}, "did you mean 'sample_rate'")],
)
def test_a_wrong_setting_is_refused(tmp_path, wrong, message):
    torch.save(official(Toy(ToyConfig())), tmp_path / "a.pt")
    with pytest.raises(UserError, match=message):
        from_pretrained(tmp_path / "a.pt", TOY, **wrong)


def test_our_checkpoint_says_what_it_is(tmp_path):
    save_pretrained(tmp_path / "a.safetensors", Toy(ToyConfig()), "toy", ToyConfig())
    assert read_pretrained(tmp_path / "a.safetensors") == (
        "toy",
        {"width": 3, "sample_rate": 8000},
    )
    save_file({"a": torch.ones(1)}, tmp_path / "b.safetensors")
    assert read_pretrained(tmp_path / "b.safetensors") is None


def test_a_checkpoint_of_another_system_names_both(tmp_path):
    save_pretrained(tmp_path / "a.safetensors", Toy(ToyConfig()), "toy", ToyConfig())
    with pytest.raises(UserError, match="checkpoint of toy, not of other"):
        from_pretrained(tmp_path / "a.safetensors", OTHER)


def test_a_key_that_begins_like_a_wrapper_survives_our_own_checkpoint(tmp_path):
    model = nn.ModuleDict({"model": nn.Linear(1, 1)})
    save_pretrained(tmp_path / "a.safetensors", model, "toy", ToyConfig())
    assert same(read_state_dict(tmp_path / "a.safetensors"), model.state_dict())


def test_tied_weights_are_saved_and_loaded(tmp_path):
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model[1].weight = model[0].weight
    save_pretrained(tmp_path / "a.safetensors", model, "toy", ToyConfig())
    load_strict(model, read_state_dict(tmp_path / "a.safetensors"), "tied")


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model, digests = Toy(ToyConfig()), set()
    for i in range(20):  # safetensors alone gives several orders of the metadata among twenty
        save_pretrained(path := tmp_path / f"{i}.safetensors", model, "toy", ToyConfig())
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_pretrained(path, Toy(ToyConfig()), "toy", ToyConfig())
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*a\.safetensors: no space"):
        save_pretrained(path, Toy(ToyConfig()), "toy", ToyConfig())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
