import warnings
from pathlib import Path

import numpy as np
import png
import pytest
import torch
from PIL import Image
from published import needs_weights
from tiny_networks import tiny_cfsr, tiny_imdn, tiny_pan

from sixfold.core import UserError
from sixfold.core.system import load_function
from sixfold.core.weights.convert import save_pretrained
from sixfold.vision import CFSR, CFSRConfig, upscale
from sixfold.vision.images.files import read_picture
from sixfold.vision.models import cfsr, imdn, pan

MODEL = tiny_cfsr(dw_size=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "x2.safetensors"
    save_pretrained(path, MODEL, "cfsr", MODEL.config)
    return path


@pytest.fixture
def run(weights):
    """Return what ``sixfold run vision/cfsr`` calls, with small weights."""
    target = load_function(str(cfsr.SYSTEM.run))
    return lambda *paths, **options: target(*paths, weights=str(weights), **options)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("tile", [1, 4, 7, 8, 13, 14, 100])
@pytest.mark.parametrize("model", [MODEL, tiny_pan(3)], ids=["cfsr", "pan"])
def test_tiles_are_the_whole(model, tile):
    picture = torch.rand(3, 14, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(picture[None])[0]
    torch.testing.assert_close(upscale(model, picture, tile), whole, rtol=0, atol=1e-5)


def test_the_released_size_has_no_seams():
    torch.manual_seed(0)
    model = CFSR(cfsr.CFSRConfig(embed_dim=4, layer_scale=1.0)).eval()  # depths and kernels of old
    picture = torch.rand(3, 70, 150)
    with torch.no_grad():
        whole = model(picture[None])[0]
    torch.testing.assert_close(upscale(model, picture, 50), whole, rtol=0, atol=1e-5)


def test_every_kind_of_picture_comes_back_as_its_kind(tmp_path):
    pixels = noise(5, 4, 3)
    expected = upscale(MODEL, pixels)
    assert expected.dtype == np.uint8
    assert expected.shape == (10, 8, 3)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    assert np.array_equal(upscale(MODEL, image), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(upscale(MODEL, np.asarray(image)), expected)  # cannot be written
    assert isinstance(upscale(MODEL, image), Image.Image)
    assert np.array_equal(upscale(MODEL, tmp_path / "a.png"), expected)
    assert np.array_equal(upscale(MODEL, str(tmp_path / "a.png")), expected)
    assert np.array_equal(upscale(MODEL, planes).permute(1, 2, 0), expected)
    assert torch.equal(upscale(MODEL, planes[None])[0], upscale(MODEL, planes))
    floats = upscale(MODEL, pixels / 255.0)
    assert floats.dtype == np.float64
    assert np.array_equal(np.rint(floats.clip(0, 1) * 255), expected)
    deep = upscale(MODEL, pixels.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - expected).max() <= 0.51


def test_grey_is_enlarged_as_equal_colours_and_stays_grey():
    grey = noise(5, 4)
    colours = upscale(MODEL, (grey / 255.0)[..., None].repeat(3, 2))
    np.testing.assert_allclose(upscale(MODEL, grey / 255.0), colours.mean(2), atol=1e-6)
    assert upscale(MODEL, grey[..., None]).shape == (10, 8, 1)


def test_a_network_for_grey_takes_grey_and_its_alpha():
    model = tiny_cfsr(in_chans=1, dw_size=3)
    assert upscale(model, noise(5, 4)).shape == (10, 8)
    assert upscale(model, noise(5, 4, 2)).shape == (10, 8, 2)
    with pytest.raises(UserError, match="3 channels does not fit: this CFSR takes 1"):
        upscale(model, noise(5, 4, 3))


def test_alpha_goes_through_the_network_too():
    rgba = noise(6, 5, 4) | 1  # nothing is hidden
    found = upscale(MODEL, rgba)
    assert np.array_equal(found[..., :3], upscale(MODEL, rgba[..., :3]))
    assert np.array_equal(found[..., 3], upscale(MODEL, rgba[..., 3]))


@pytest.mark.parametrize("alpha", [0, 90, 255])
def test_alpha_that_is_one_number_stays_that_number(alpha):
    rgba = noise(6, 5, 4)
    rgba[..., 3] = alpha
    assert (upscale(MODEL, rgba)[..., 3] == alpha).all()


@needs_weights
def test_a_red_disc_on_transparent_black_has_no_dark_rim():
    y, x = np.mgrid[:32, :32]
    disc = np.hypot(y - 15.5, x - 15.5) < 10
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[disc] = (255, 0, 0, 255)
    found = upscale(CFSR.from_pretrained("CFSR_x2.pth"), rgba)
    visible = found[found[..., 3] > 8]
    assert visible[:, 0].min() > 240  # a mixture with black would be near 128 at the rim
    assert visible[:, 1:3].max() < 16
    assert np.ptp(found[..., 3]) > 250


def test_a_palette_with_transparency_is_the_picture_converted_to_rgba(tmp_path, run):
    image = Image.fromarray(noise(6, 5, 3) // 64 * 64).convert("P")
    image.save(tmp_path / "in.png", transparency=image.getpixel((0, 0)))
    run(tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "in.png") as saved:
        assert saved.mode == "P"
        expected = upscale(MODEL, np.asarray(saved.convert("RGBA")))
    with Image.open(tmp_path / "out.png") as found:
        assert found.mode == "RGBA"
        assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_ramp_of_16_bits_keeps_its_levels(tmp_path, weights, channels):
    """The network is made to be a plain enlargement, so that what is lost is the files' fault."""
    ramp = np.linspace(0, 65535, 2000).astype(np.uint16)
    pixels = np.broadcast_to(ramp[None, :, None], (2, 2000, channels))
    with (tmp_path / "in.png").open("wb") as file:
        writer = png.Writer(2000, 2, bitdepth=16, greyscale=channels == 1)
        writer.write(file, pixels.reshape(2, -1))
    pan.enlarge_files(
        Nearest(), [tmp_path / "in.png", tmp_path / "out.png"], tile=None, device="cpu",
        overwrite=False,
    )  # fmt: skip
    found = read_picture(tmp_path / "out.png").pixels
    assert found.dtype == np.uint16
    assert found.shape == (4, 4000, channels)
    assert np.array_equal(found[::2, ::2], pixels)


class Nearest(torch.nn.Module):
    """A network that repeats every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.config = tiny_pan().config
        self.one = torch.nn.Parameter(torch.ones(()))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one * x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_the_output_is_upright_and_keeps_the_notes(tmp_path, run):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "pinhole"
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / "in.png", exif=exif, icc_profile=b"profile")
    run(tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (8, 12)
        assert (image.getexif()[0x0112], image.getexif()[0x0110]) == (1, "pinhole")
        assert image.info["icc_profile"] == b"profile"


def test_a_folder_is_enlarged_and_a_bad_file_is_passed_over(tmp_path, run, capsys):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / "in" / "deep" / "b.gif")
    (tmp_path / "in" / "c.png").write_text("a picture")
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "in", tmp_path / "out")
    assert caught.value.code == 1
    out = capsys.readouterr().out
    assert "c.png is no picture" in out
    assert "1 of 3 failed" in out
    found = sorted(str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*.*"))
    assert found == ["a.jpg", "deep/b.png"]
    made = (tmp_path / "out" / "a.jpg").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        run(tmp_path / "in", tmp_path / "out")
    assert "2 of 3 are in" in capsys.readouterr().out
    assert (tmp_path / "out" / "a.jpg").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"scale": 3}, "enlarges by 2, --scale says 3"),
        ({"tile": 0}, "side of 1 pixel at least, got 0"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
    ids=["scale", "tile", "device"],
)
def test_options_that_do_not_fit_are_refused(tmp_path, run, options, reason):
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / "in.png")
    with pytest.raises(UserError, match=reason):
        run(tmp_path / "in.png", tmp_path / "out.png", **options)
    assert not (tmp_path / "out.png").exists()


def test_files_that_do_not_fit_are_refused(tmp_path, run):
    Image.fromarray(noise(4, 6, 4)).save(tmp_path / "in.png")
    with pytest.raises(UserError, match="holds no transparency"):
        run(tmp_path / "in.png", tmp_path / "out.jpg")
    with pytest.raises(UserError, match="name it one of"):
        run(tmp_path / "in.png", tmp_path / "out.txt")
    with pytest.raises(UserError, match="there is no file"):
        run(tmp_path / "other.png", tmp_path / "out.png")
    with pytest.raises(UserError, match="is the input"):
        run(tmp_path / "in.png", tmp_path / "in.png")


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (noise(4, 4, 5), "5 channels does not fit"),
        (np.zeros((4, 4, 3), np.int64), "got Tensor of torch.int64"),
        (np.zeros(4), r"got ndarray of float64 \(4,\)"),
        (np.zeros((0, 4, 3)), r"got Tensor of torch.float64 \(3, 0, 4\)"),
        (np.full((4, 4, 3), np.nan), "NaN or infinite"),
    ],
    ids=["channels", "integers", "axes", "nothing", "nan"],
)
def test_other_pictures_are_refused(picture, reason):
    with pytest.raises(UserError, match=reason):
        upscale(MODEL, picture)


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(UserError, match="training mode"):
        upscale(tiny_cfsr().train(), noise(4, 4, 3))


def test_imdn_is_not_cut():
    assert upscale(tiny_imdn(), noise(4, 4, 3)).shape == (8, 8, 3)
    with pytest.raises(UserError, match="IMDN pools over the whole picture"):
        upscale(tiny_imdn(), noise(4, 4, 3), tile=2)


@pytest.mark.parametrize(
    ("module", "model"), [(pan, tiny_pan()), (imdn, tiny_imdn())], ids=["pan", "imdn"]
)
def test_the_baselines_run_alike(tmp_path, module, model):
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / "in.png")
    save_pretrained(tmp_path / "w.safetensors", model, module.SYSTEM.name, model.config)
    module.run(tmp_path / "in.png", tmp_path / "out.png", weights=str(tmp_path / "w.safetensors"))
    expected = upscale(model, noise(4, 6, 3))
    assert np.array_equal(read_picture(tmp_path / "out.png").pixels, expected)
    with pytest.raises(UserError, match="checkpoint of"):
        CFSR.from_pretrained(tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_white_of_16_bits_stays_white_in_half_precision(dtype):
    class Doubling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = CFSRConfig(upscale=2, embed_dim=8, depths=(1,))
            self.one = torch.nn.Parameter(torch.ones((), dtype=dtype))

        def forward(self, x):
            assert x.dtype == dtype
            return self.one * x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    white = np.full((6, 6, 3), 65535, np.uint16)
    assert (upscale(Doubling().eval(), white) == 65535).all()
