"""Files that are no checkpoints, hostile ones, and every way in which people save weights.

Each is loaded, or is one printable line of at most 300 characters, within a second or so.
"""

import gzip
import io
import pickle
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn
from toy_system import TOY, Toy, ToyConfig, official, same

from sixfold.core.config import UserError
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.core.weights.read import read_state_dict

SLOWEST_S = 3.0  # on a busy machine


def refused(call, message=""):
    began = time.monotonic()
    with pytest.raises(UserError, match=message) as error:
        call()
    text = str(error.value)
    assert text.isprintable()
    assert len(text) <= 300
    assert time.monotonic() - began < SLOWEST_S
    return text


def archived(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zipped(**files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def npz() -> bytes:
    np.savez(buffer := io.BytesIO(), a=np.ones(3))
    return buffer.getvalue()


def npy() -> bytes:
    np.save(buffer := io.BytesIO(), np.ones(3))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a", "a.pt", "a.safetensors", "a.bin"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"<?xml version='1.0'?><Error/>", "web page"),
        (npy(), "NumPy array"),
        (npz(), "archive of NumPy arrays"),
        (gzip.compress(b"x"), "gzip"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", "ONNX"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"GGUF\x03", "GGUF"),
        (zipped(m__constants="x", **{"m__constants.pkl": b"", "m__data.pkl": b""}), "TorchScript"),
        (zipped(m__archive_format=b"pt2"), r"torch\.export"),
        (zipped(readme="x"), "zip archive"),
        (b"hello\x1b[2J", "begins with"),
        (pickle.dumps({"a": 1}), "plain pickle"),
        (b"\x80\x02" + b"]" * 10**6, "no checkpoint"),
        ((10**15).to_bytes(8, "little") + b"{}", "no checkpoint"),
        ((20).to_bytes(8, "little") + b"{" * 20, "damaged"),
    ],
    ids=range(18),  # archives hold the time of day
)
def test_what_is_no_checkpoint_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(lambda: read_state_dict(tmp_path / name), message)


def test_the_suffix_does_not_decide(tmp_path):
    state = Toy(ToyConfig()).state_dict()
    save_file(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.safetensors")
    torch.save(state, tmp_path / "c", _use_new_zipfile_serialization=False)
    assert all(
        same(read_state_dict(tmp_path / name), state) for name in ["a.pt", "b.safetensors", "c"]
    )


def test_an_archive_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_state_dict(tmp_path / "a.pt")["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", ["pt", "own"])
def test_a_flipped_bit_is_noticed(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "own":
        save_pretrained(path, Toy(ToyConfig(width=64)), "toy", ToyConfig(width=64))
    else:
        torch.save(official(Toy(ToyConfig(width=64))), path)
    whole, good = path.read_bytes(), from_pretrained(path, TOY)
    places = torch.randint(len(whole) * 8, (150,), generator=torch.Generator().manual_seed(0))
    for place in places.tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = from_pretrained(path, TOY)
        except UserError:
            continue
        assert same(found.state_dict(), good.state_dict()), f"bit {place}"
        assert found.config == good.config


def test_a_checkpoint_of_before_checksums_still_loads(tmp_path):
    model = Toy(ToyConfig(width=7))
    metadata = {"sixfold": "toy", "config": '{"width": 7}'}
    (tmp_path / "a").write_bytes(save(model.state_dict(), metadata=metadata))
    assert same(from_pretrained(tmp_path / "a", TOY).state_dict(), model.state_dict())


@pytest.mark.parametrize(
    "config", ["null", "[]", "3", '"x"', "{", '{"width": null}', '{"width": "x"}', "[" * 10**5]
)
def test_settings_of_another_type_are_refused(tmp_path, config):
    metadata = {"sixfold": "toy", "config": config}
    (tmp_path / "a").write_bytes(save(Toy(ToyConfig()).state_dict(), metadata=metadata))
    refused(lambda: from_pretrained(tmp_path / "a", TOY), "settings|width")


@pytest.mark.parametrize("width", [10**6, 10**12, 10**30, -3, 0])
def test_settings_are_compared_before_anything_is_built(tmp_path, width):
    metadata = {"sixfold": "toy", "config": f'{{"width": {width}}}'}
    (tmp_path / "a").write_bytes(save(Toy(ToyConfig()).state_dict(), metadata=metadata))
    refused(lambda: from_pretrained(tmp_path / "a", TOY))


def odd_tensors():
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    return {
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": torch.ones(2, device="meta"),
        "nested": nested,
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["sparse", "csr", "quantised", "meta", "nested"])
def test_tensors_of_other_kinds_are_named(tmp_path, kind, legacy):
    content, name = {"a": odd_tensors()[kind]}, "sparse" if kind == "csr" else kind
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    refused(lambda: read_state_dict(tmp_path / "a.pt"), name)


NARROW = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [*NARROW, "complex32", "complex128"])
def test_every_kind_of_number_becomes_single(tmp_path, dtype):
    values = torch.tensor([1.0, 2.0, 0.5]).to(getattr(torch, dtype))
    torch.save({"a": values}, tmp_path / "a.pt")
    found = read_state_dict(tmp_path / "a.pt")["a"]
    assert found.dtype == (torch.complex64 if "complex" in dtype else torch.float32)
    assert found.real.tolist() == [1, 2, 0.5]


def test_whole_numbers_are_no_weights(tmp_path):
    state = {
        k: v.to(torch.int8) if "rot" not in k else v for k, v in official(Toy(ToyConfig())).items()
    }
    torch.save(state, tmp_path / "a.pt")
    refused(lambda: from_pretrained(tmp_path / "a.pt", TOY), r"torch\.int8, the model wants")


def selfish():
    found: dict = {"epoch": 1}
    found["state_dict"] = found
    return found


def deep():
    found = {"a": torch.ones(1)}
    for _ in range(20_000):
        found = {"model": found}
    return found


def deep_archive() -> bytes:
    """Write what ``deep`` says by hand: pickle itself would recurse."""
    pickled = b"\x80\x02" + b"}X\x05\x00\x00\x00model" * 50_000 + b"}" + b"s" * 50_000 + b"."
    return zipped(**{"a__data.pkl": pickled, "a__version": b"3"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (selfish(), "nests in nests"),
        ({"\x1b[2J" * 20: torch.ones(1), "\x07": 3}, "no state dict"),
        ({"a\x1b[2J\n": torch.ones(1), "head.weight": torch.ones(1, 3)}, r"\\x1b\[2J\\n"),
        ({"\ud800": torch.full((2,), float("nan"))}, r"NaN in \\ud800"),
        ({"k" * 10**6: torch.ones(1)}, "no name of a tensor"),
        ({3: torch.ones(1)}, "no name of a tensor"),
        ({f"layers.{i}.w": torch.ones(1) for i in range(3000)}, "no toy"),
        ({f"layers.{i}.w": torch.ones(1) for i in range(40_000)}, "more than the weights"),
        (dict.fromkeys(range(20_000), 0.5), "no state dict"),
        ({"a": torch.ones(1).expand(10**6, 10**6)}, "claim"),
        ({f"a{i}": torch.ones(10**4, 10).expand(99, 10**4, 10) for i in range(20)}, "claim"),
        ({"head.weight": torch.ones(1, 10**5), "rot": torch.ones(2)}, "not filled|wants"),
        ({"head.weight": torch.ones(())}, "no checkpoint of toy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_checkpoints_are_one_line(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    refused(lambda: from_pretrained(tmp_path / "a.pt", TOY), message)


def test_a_deep_nest_is_refused(tmp_path):
    (tmp_path / "a.pt").write_bytes(deep_archive())
    refused(lambda: read_state_dict(tmp_path / "a.pt"), "nests in nests")


@pytest.mark.parametrize("numbers", [0, 1, 10**6, 2**31 - 1])
def test_a_storage_of_another_size_than_declared_is_refused(tmp_path, numbers):
    """torch.load itself would read beyond the end of what there is."""
    with zipfile.ZipFile(io.BytesIO(archived({"a": torch.ones(300)}))) as archive:
        files = {record.filename: archive.read(record) for record in archive.infolist()}
    name = next(name for name in files if name.endswith("data.pkl"))
    assert files[name].count(b"M,\x01") == 2  # 300, of the storage and of the shape
    wrong = b"J" + numbers.to_bytes(4, "little")
    for changed in (
        files[name].replace(b"M,\x01", wrong),
        files[name].replace(b"M,\x01", wrong, 1),
    ):
        (tmp_path / "a.pt").write_bytes(zipped(**files | {name: changed}))
        refused(lambda: read_state_dict(tmp_path / "a.pt"))


def test_what_calls_itself_gigantic_costs_nothing(tmp_path):
    pickled = pickle.dumps(0, 2)[:2] + b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    (tmp_path / "a.pt").write_bytes(zipped(**{"a__data.pkl": pickled, "a__version": b"3"}))
    refused(lambda: read_state_dict(tmp_path / "a.pt"))


class Wrapper(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.loss = net, nn.Linear(2, 2)


STATE = official(Toy(ToyConfig(width=7)))
BESIDE = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE} | BESIDE,
        {"model_state_dict": STATE, "scaler": {"scale": 65536.0}} | BESIDE,
        {"model": {"state_dict": STATE}} | BESIDE,
        {"params_ema": STATE, "params": STATE},
        {"net": STATE} | BESIDE,
        {f"net.{k}": v for k, v in STATE.items()},
        {f"model.{k}": v for k, v in STATE.items()} | {"step": torch.tensor(3)},
        {"state_dict": {f"model.{k}": v for k, v in STATE.items()} | {"loss.w": torch.ones(4)}}
        | {"pytorch-lightning_version": "2.4", "callbacks": {}, "lr_schedulers": []},
        {f"module.model.module._orig_mod.{k}": v for k, v in STATE.items()},
        {"checkpoint": {"model": {f"module.{k}": v for k, v in STATE.items()}}},
        {"state_dict": {k: nn.Parameter(v) for k, v in STATE.items()}},
    ],
    ids=range(12),
)
def test_nests_as_people_save_them(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    assert from_pretrained(tmp_path / "a.ckpt", TOY).config == ToyConfig(width=7)


def test_a_folder_as_a_hub_lays_it_out(tmp_path):
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    (tmp_path / "configuration.json").write_text("{}")
    assert from_pretrained(tmp_path, TOY).config == ToyConfig(width=7)
    (tmp_path / "last_best_checkpoint").write_text("best.pt\n")
    refused(lambda: from_pretrained(tmp_path, TOY), r"names best\.pt, which is not in")
    refused(lambda: read_state_dict(tmp_path), "is a folder")


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    for name in ("x" * 5000, "a\0b", "\x1b[2J", "\ud800"):
        refused(lambda name=name: from_pretrained(tmp_path / name, TOY))
