"""Units that a published set comes with."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from flow_files import compressible, h5, smoke, well

from sixfold.core import UserError, train
from sixfold.pde.data.layouts import LAYOUTS, open_flows
from sixfold.pde.data.published_units import PUBLISHED, published_units
from sixfold.pde.fields.smoke_data import OFFICIAL_DEVIATION, OFFICIAL_MEAN

FNO = ["width=2", "modes=2", "num_layers=1", "time_history=1"]


def attempt(data: Path, out: Path, **options: Any) -> Any:
    options = {"rollout_steps": 1, "published_units": True, **options}
    return train(
        "pde/fno", data=data, out=out, set=FNO, options=options, steps=1, batch=2, threads=1
    )


def test_smoke_has_the_published_ones_and_else_those_of_the_training(tmp_path):
    flows = smoke(tmp_path / "a.h5", {"train": 2, "valid": 1})
    model = attempt(flows, tmp_path / "run")
    assert torch.equal(model.normalizer.mean.flatten(), torch.tensor(OFFICIAL_MEAN))
    assert torch.equal(model.normalizer.sd.flatten(), torch.tensor(OFFICIAL_DEVIATION))
    (block,) = open_flows(smoke(tmp_path / "b.h5", {"train": 1}), ["vy", "u"])
    mean, sd = published_units(block)
    assert torch.equal(mean, torch.tensor(OFFICIAL_MEAN)[[2, 0]])
    assert torch.equal(sd, torch.tensor(OFFICIAL_DEVIATION)[[2, 0]])
    fitted = attempt(flows, tmp_path / "fitted", published_units=False)
    assert not torch.equal(fitted.normalizer.sd, model.normalizer.sd)


def test_every_layout_has_a_number_for_each_channel():
    fields = {layout.name: set(layout.fields) for layout in LAYOUTS}
    assert {name: set(known) for name, known in PUBLISHED.items()} == {
        name: fields[name] for name in PUBLISHED
    }


STATS: dict[str, Any] = {
    "mean": {"pressure": 1.0, "velocity": [2.0, 3.0]},
    "std": {"pressure": 4.0, "velocity": [5.0, 6.0]},
}


def test_those_of_the_well_are_read_above_its_data(tmp_path):
    file = well(tmp_path / "set" / "data" / "train" / "shear.hdf5", count=3)
    fields = "pressure,velocity"
    with pytest.raises(UserError, match=r"no stats.yaml lies beside .*shear.hdf5 or above it"):
        attempt(file, tmp_path / "run", fields=fields)
    stats = tmp_path / "set" / "stats.yaml"
    stats.write_text(yaml.safe_dump(STATS))
    model = attempt(file, tmp_path / "run", fields=fields)
    assert model.normalizer.mean.flatten().tolist() == [1.0, 2.0, 3.0]
    assert model.normalizer.sd.flatten().tolist() == [4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean: [", "not valid YAML"),
        ("mean: {pressure: 1.0}", "has no mean of velocity"),
        ("7", "should hold `key: value` lines, but holds int"),
        ("mean: {pressure: 1.0, velocity: 2.0}", "has 1 numbers as mean of velocity, which has 2"),
        (
            "mean: {pressure: 1.0, velocity: [2.0, 3.0]}\nstd: {pressure: 1.0, velocity: [1.0, 0]}",
            r"has \[1.0, 0\] as std of velocity; fetch it again",
        ),
        ("mean: {pressure: .nan, velocity: [2.0, 3.0]}", "has nan as mean of pressure"),
    ],
)
def test_damaged_ones_are_named(tmp_path, text, message):
    (block,) = open_flows(well(tmp_path / "shear.hdf5"), ["pressure", "velocity"])
    (tmp_path / "stats.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        published_units(block)


def test_a_set_without_any_says_so(tmp_path):
    (block,) = open_flows(compressible(tmp_path / "cfd.h5"))
    with pytest.raises(UserError, match="no published units are known for density, pressure"):
        published_units(block)


def test_those_of_linked_data_lie_beside_the_link(tmp_path):
    file = well(tmp_path / "cache" / "4f2a.hdf5")
    link = tmp_path / "set" / "data" / "train" / "shear.hdf5"
    link.parent.mkdir(parents=True)
    link.symlink_to(file)
    (tmp_path / "set" / "stats.yaml").write_text(yaml.safe_dump(STATS))
    (block,) = open_flows(link, ["pressure", "velocity"])
    assert published_units(block)[0].tolist() == [1.0, 2.0, 3.0]


def test_fields_in_other_units_are_warned_of(tmp_path):
    flows = smoke(tmp_path / "a.h5", {"train": 2, "valid": 1})
    with h5(flows, "r+") as file:
        file["train/vx"][...] *= 1000
    with pytest.warns(UserWarning, match="in the published units vx has a root mean square of"):
        attempt(flows, tmp_path / "run")
