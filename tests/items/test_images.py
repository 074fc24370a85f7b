"""Pictures of every kind a shop has: each gives upright RGB, or one clear reason."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmm4rec_hf.items import images
from mmm4rec_hf.items.images import PictureError, load_picture

from .conftest import encoded, noise, png

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def colours(picture: Image.Image) -> list[tuple[int, ...]]:
    """The distinct colours of a picture."""
    assert picture.mode == "RGB"
    return sorted({tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()})


def test_a_picture_is_the_same_from_path_bytes_dataset_cell_and_memory(tmp_path):
    picture = noise(0)
    content = png(picture)
    (tmp_path / "a.png").write_bytes(content)
    for reference in (
        "a.png",
        tmp_path / "a.png",
        content,
        {"bytes": content, "path": None},
        {"path": "a.png"},
        picture,
    ):
        np.testing.assert_array_equal(np.asarray(load_picture(reference, root=tmp_path)), np.asarray(picture))


def test_a_palette_picture_keeps_its_colours():
    picture = Image.new("RGB", (4, 4), RED)
    picture.putpixel((0, 0), BLUE)
    assert colours(load_picture(png(picture.convert("P", palette=Image.Palette.ADAPTIVE)))) == [BLUE, RED]


def test_transparent_pixels_become_white():
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    picture.putpixel((0, 0), (*RED, 255))
    assert colours(load_picture(png(picture))) == [RED, WHITE]


def test_a_transparent_palette_entry_becomes_white():
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([*BLUE, *RED])
    picture.putpixel((0, 0), 1)
    assert colours(load_picture(png(picture, transparency=0))) == [RED, WHITE]


def test_cmyk_is_converted():
    (colour,) = colours(load_picture(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)))
    assert np.abs(np.array(colour) - RED).max() < 10


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(grey):
    picture = Image.fromarray(np.full((4, 4), grey * 257, dtype=np.uint16))
    assert colours(load_picture(png(picture))) == [(grey, grey, grey)]


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert colours(load_picture(content)) == [RED]


def test_exif_rotation_is_applied():
    picture = Image.new("RGB", (16, 8), RED)
    exif = picture.getexif()
    exif[0x0112] = 6
    assert load_picture(encoded(picture, "JPEG", exif=exif)).size == (8, 16)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(noise(1, (64, 64)), "JPEG")[:900], "cannot be decoded"),
        (png(noise(1))[:200], "cannot be decoded"),
        (b"", "cannot be decoded"),
        (b"<html>not found</html>", "cannot be decoded"),
        (png(Image.new("RGB", (1, 1))), "a placeholder of one pixel"),
        ("absent.jpg", "no such file"),
        ("data:image/png;base64," + "A" * 5000, "no such file"),
        ("a\0.png", "no such file"),
        ("", "not a picture reference|no such file"),
        (17, "not a picture reference: int"),
        ({"bytes": None, "path": None}, "not a picture reference"),
        ("https://example.org/a.jpg", "download=True was not given"),
    ],
)
def test_what_cannot_be_used_has_one_reason(content, reason, tmp_path):
    with pytest.raises(PictureError, match=reason):
        load_picture(content, root=tmp_path)


def test_a_picture_beyond_the_pixel_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    with pytest.raises(PictureError, match="more than 599 pixels"):
        load_picture(png(noise(0)))


@given(st.binary(max_size=64), st.integers(0, 400))
def test_broken_bytes_give_a_picture_or_a_reason(noise_bytes, position):
    content = bytearray(png(noise(0, (8, 8))))
    content[position : position + len(noise_bytes)] = noise_bytes
    try:
        assert load_picture(bytes(content)).mode == "RGB"
    except PictureError as error:
        assert str(error)


def test_the_caller_s_picture_is_left_as_it_is():
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    load_picture(picture)
    assert picture.mode == "RGBA" and isinstance(picture, Image.Image)
    assert io.BytesIO(png(picture)).getbuffer().nbytes > 0
