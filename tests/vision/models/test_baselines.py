import pytest
import torch
from tiny_networks import tiny_imdn, tiny_pan

from sixfold.core import UserError
from sixfold.core.pipeline.measure import macs
from sixfold.vision import CFSR, IMDN, PAN
from sixfold.vision.models import imdn, pan


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_pan_looks_no_farther_than_its_receptive_radius(upscale):
    model = tiny_pan(upscale).double()
    radius = model.config.receptive_radius()
    assert PAN().config.receptive_radius() == 36
    centre = radius + 2
    x = torch.rand(1, 3, 2 * centre + 1, 2 * centre + 1, dtype=torch.float64, requires_grad=True)
    model(x)[0, :, centre * upscale : (centre + 1) * upscale].sum().backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert centre - radius <= rows.min()
    assert rows.max() <= centre + radius
    assert rows.max() - rows.min() >= 2 * radius - 2  # and is not much more than needed


@pytest.mark.parametrize(
    ("model", "module"), [(tiny_pan(4), pan), (tiny_imdn(), imdn)], ids=["pan", "imdn"]
)
def test_sizes_are_read_off_official_weights(tmp_path, model, module):
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, tmp_path / "w.pth")
    loaded = type(model).from_pretrained(tmp_path / "w.pth")
    assert loaded.config == model.config
    x = torch.rand(1, 3, 6, 5)
    assert torch.equal(loaded(x), model(x))
    state = model.state_dict()
    state.pop(next(iter(state)))
    with pytest.raises(UserError, match=r"incomplete|not filled"):
        module.convert(state)


def test_pan_of_one_step_is_x2_unless_said_otherwise(tmp_path):
    torch.save(tiny_pan(3).state_dict(), tmp_path / "w.pth")
    assert PAN.from_pretrained(tmp_path / "w.pth").config.upscale == 2
    assert PAN.from_pretrained(tmp_path / "w.pth", upscale=3).config.upscale == 3


def test_the_products_for_a_picture_of_720_lines_are_the_published_ones():
    x = torch.rand(1, 3, 18, 32)  # a hundredth of 180 x 320
    found = [100 * macs(model.eval(), x) / 1e9 for model in (CFSR(), PAN(), IMDN())]
    assert found[0] == pytest.approx(17.5, abs=0.4)  # the table counts norms too
    assert found[1] == pytest.approx(28.2, abs=0.1)
    assert found[2] == pytest.approx(40.9, abs=0.1)
