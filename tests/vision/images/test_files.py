import io

import numpy as np
import png
import pytest
from PIL import Image, ImageCms, ImageOps

from sixfold.core import UserError
from sixfold.vision.images.files import check_output, read_picture, write_picture
from sixfold.vision.images.picture import ORIENTATION, Picture, fill_hidden

CAMERA = 0x0110  # EXIF tag of the camera's model
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write_png_16(path, pixels: np.ndarray) -> None:
    height, width, channels = pixels.shape
    writer = png.Writer(
        width, height, bitdepth=16, greyscale=channels < 3, alpha=channels in (2, 4)
    )
    with path.open("wb") as file:
        writer.write(file, pixels.reshape(height, -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_comes_back_with_all_its_bits(tmp_path, channels, dtype):
    pixels = noise(5, 4, channels, dtype=dtype)
    exif = Image.Exif()
    exif[CAMERA] = "pinhole"
    write_picture(tmp_path / "a.png", Picture(pixels, exif, PROFILE))
    found = read_picture(tmp_path / "a.png")
    assert found.pixels.dtype == dtype
    assert np.array_equal(found.pixels, pixels)
    assert (found.exif[CAMERA], found.profile) == ("pinhole", PROFILE)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_of_others_are_read(tmp_path, channels):
    pixels = noise(5, 4, channels, dtype=np.uint16)
    write_png_16(tmp_path / "a.png", pixels)
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_exif_and_profile_are_kept(tmp_path, suffix):
    exif = Image.Exif()
    exif[CAMERA], exif[ORIENTATION] = "pinhole", 6
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"  # of the sub-directory: when it was taken
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / f"in{suffix}", exif=exif, icc_profile=PROFILE)
    found = read_picture(tmp_path / f"in{suffix}")
    assert found.pixels.shape == (6, 4, 3)
    write_picture(tmp_path / f"out{suffix}", found)
    with Image.open(tmp_path / f"out{suffix}") as image:
        kept = image.getexif()
        assert (kept[CAMERA], kept.get(ORIENTATION, 1)) == ("pinhole", 1)
        if suffix != ".tif":  # Pillow writes no sub-directories to a TIFF
            assert kept.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        assert image.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(noise(4, 6, 3))
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as saved:
        expected = np.asarray(ImageOps.exif_transpose(saved))
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, expected)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_becomes_alpha(tmp_path, mode):
    image = Image.fromarray(noise(5, 4, 3) // 64 * 64).convert(mode)
    mark = image.getpixel((0, 0))
    image.save(tmp_path / "a.png", transparency=mark)
    found = read_picture(tmp_path / "a.png").pixels
    with Image.open(tmp_path / "a.png") as saved:
        expected = np.asarray(saved.convert("LA" if mode == "L" else "RGBA"))
    assert (found[..., -1] == 0).any()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("CMYK", 3), ("YCbCr", 3)]
)
def test_other_modes_become_grey_or_colours(tmp_path, mode, channels):
    Image.fromarray(noise(5, 4, 3)).convert(mode).save(
        tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    )
    (file,) = tmp_path.iterdir()
    assert read_picture(file).pixels.shape == (5, 4, channels)


def test_16_bits_of_grey_stay_in_a_tiff(tmp_path):
    pixels = noise(5, 4, 1, dtype=np.uint16)
    write_picture(tmp_path / "a.tif", Picture(pixels))
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)


def test_hidden_colours_are_replaced_by_the_nearest_visible_ones():
    alpha = np.array([[9, 0, 0, 0, 0, 255]])
    colour = np.arange(6).reshape(1, 6, 1)
    assert fill_hidden(colour, alpha)[..., 0].tolist() == [[0, 0, 0, 5, 5, 5]]
    assert fill_hidden(colour, np.zeros((1, 6))) is colour


def whole_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(40, 40, 3)).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"a picture of a cat", "is no picture, whatever its name says"),
        (whole_png()[:2000], "is damaged"),
        (whole_png()[:60], "is damaged|is no picture"),
        (whole_png()[:900] + b"\0" * 40 + whole_png()[940:], "is damaged"),
    ],
    ids=["empty", "text", "cut short", "no pixels", "overwritten"],
)
def test_what_is_no_picture_is_named(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_picture(tmp_path / "a.png")
    assert "a.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_of_16_bits_is_named(tmp_path):
    write_png_16(tmp_path / "a.png", noise(40, 40, 3, dtype=np.uint16))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a.png is damaged"):
        read_picture(tmp_path / "a.png")


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match="is a folder, not a picture"):
        read_picture(tmp_path)
    with pytest.raises(UserError, match=r"there is no file .*b.png"):
        read_picture(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"name it one of .png"):
        check_output(tmp_path / "a.txt")
    (tmp_path / "c.png").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        check_output(tmp_path / "c.png")


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_transparency_is_not_dropped_in_silence(tmp_path, suffix):
    with pytest.raises(UserError, match=r"holds no transparency; name a \.png"):
        write_picture(tmp_path / f"a{suffix}", Picture(noise(4, 4, 4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "YCbCr", "1"])
def test_a_tiff_becomes_a_tiff_of_its_own_size(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(noise(4, 6, dtype=np.uint16))
    else:
        image = Image.fromarray(noise(4, 6, 4)).convert(mode)
    exif = Image.Exif()
    exif[CAMERA] = "pinhole"
    image.save(tmp_path / "in.tif", exif=exif)
    given = read_picture(tmp_path / "in.tif")
    large = Picture(given.pixels.repeat(2, 0).repeat(2, 1), given.exif, given.profile)
    for suffix in (".tif", ".png", ".jpg"):
        if suffix == ".jpg" and given.has_alpha:
            continue
        write_picture(tmp_path / f"out{suffix}", large)
        with Image.open(tmp_path / f"out{suffix}") as found:
            assert found.size == (12, 8)
            assert found.getexif()[CAMERA] == "pinhole"
            assert suffix == ".tif" or 0x0100 not in found.getexif()  # the width


def test_a_profile_of_other_colours_is_not_kept(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(noise(4, 6, 4)).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=lab)
    assert read_picture(tmp_path / "a.jpg").profile == b""


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65501)])
def test_a_side_too_long_for_the_format_is_refused(tmp_path, suffix, side):
    with pytest.raises(UserError, match="a side at most"):
        write_picture(tmp_path / f"a{suffix}", Picture(np.zeros((1, side, 3), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_portable_maps_of_16_bits(tmp_path):
    grey, colour = noise(2, 3, dtype=np.uint16), noise(2, 3, 3, dtype=np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5\n3 2\n65535\n" + grey.astype(">u2").tobytes())
    (tmp_path / "a.ppm").write_bytes(b"P6\n3 2\n65535\n" + colour.astype(">u2").tobytes())
    assert np.array_equal(read_picture(tmp_path / "a.pgm").pixels[..., 0], grey)
    with pytest.raises(UserError, match="colours of 16 bits"):
        read_picture(tmp_path / "a.ppm")
