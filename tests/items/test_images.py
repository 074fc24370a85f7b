"""Pictures of every kind a shop has: each gives upright RGB, or one clear reason."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmm4rec_hf.items import images
from mmm4rec_hf.items.images import PictureError, absolute_pictures, load_picture

from .conftest import encoded, noise, png

# Pillow opens these and more; a shop has no need of them.
RARE_FORMATS = ("EPS", "TIFF", "ICO", "PPM", "TGA", "SGI", "PCX", "DDS", "JPEG2000", "IM", "DIB", "QOI")
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, more: bytes = b"") -> bytes:
    """A small PNG file that says it is large: what a decompression bomb looks like before it is decoded."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def gif_header(canvas: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """A GIF file of a few bytes whose canvas and first frame have the sizes given."""
    screen = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02D\x01\0;"


# 20 MB of text in 20 KB.
PNG_TEXT_BOMB = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000)))


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
        (b"", "no picture of these formats: JPEG, PNG, WEBP, GIF, BMP"),
        (b"<html>not found</html>", "no picture of these formats"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "no picture of these formats"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%touch x) (w) file\n", "no picture of these"),
        *((encoded(noise(1), kind), "no picture of these formats") for kind in RARE_FORMATS),
        (png_header(9000, 9000), "more than 80,000,000 pixels"),
        (png_header(60_000, 60_000), "more than 80,000,000 pixels"),
        (gif_header((60_000, 60_000), (1, 1)), "more than 80,000,000 pixels"),
        (gif_header((2, 2), (60_000, 60_000)), "more than 80,000,000 pixels"),
        (png_header(20, 20, PNG_TEXT_BOMB), "cannot be decoded"),
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


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP"])
def test_the_usual_formats_are_read_whatever_the_file_s_name_says(kind, tmp_path):
    (tmp_path / "a.eps").write_bytes(encoded(Image.new("RGB", (12, 8), RED), kind))
    (colour,) = colours(load_picture("a.eps", root=tmp_path))
    assert np.abs(np.array(colour) - RED).max() < 10


def test_a_file_beyond_the_byte_limit_is_refused_unread(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(noise(0)))
    with path.open("r+b") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse: takes no space
    with pytest.raises(PictureError, match="a file of more than 100 MB"):
        load_picture(path)


def test_exif_that_lies_about_its_length_does_no_harm():
    entry = struct.pack("<HHII", 0x0112, 3, 0xFFFFFFFF, 8)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + entry * 5000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_picture(png(noise(0), exif=exif)).size == (20, 30)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a picture, beside another folder with one."""
    for name in ("shop/pictures", "private"):
        (tmp_path / name).mkdir(parents=True)
        noise(0).save(tmp_path / name / "a.png")
    (tmp_path / "shop" / "linked").symlink_to(tmp_path / "private")
    return tmp_path / "shop"


@pytest.mark.parametrize(
    "reference", ["pictures/a.png", "./pictures/../pictures/a.png", "{root}/pictures/a.png", "linked/a.png"]
)
def test_paths_below_the_items_folder_are_followed_and_links_in_it_too(shop, reference, monkeypatch):
    for path in (reference.format(root=shop), {"path": reference.format(root=shop)}):
        assert load_picture(path, root=shop).size == (20, 30)
    monkeypatch.chdir(shop.parent)
    assert load_picture(reference.format(root=shop), root="shop").size == (20, 30)


@pytest.mark.parametrize(
    "reference", ["../private/a.png", "pictures/../../private/a.png", "{other}/private/a.png", "../shopping/a.png"]
)
def test_paths_that_lead_out_of_the_items_folder_are_not(shop, reference):
    (shop.parent / "shopping").mkdir()
    reference = reference.format(other=shop.parent)
    for path in (reference, {"bytes": None, "path": reference}):
        with pytest.raises(PictureError, match=r"outside the items' folder.*root=.*--image-root"):
            load_picture(path, root=shop)
    # What the caller says in person counts: a Path, which no file can hold, no folder at all, or a wider one.
    (shop.parent / "shopping" / "a.png").write_bytes(png(noise(0)))
    assert load_picture(shop / reference, root=shop).size == (20, 30)
    assert load_picture(str(shop / reference)).size == (20, 30)
    assert load_picture(str(shop / reference), root="/").size == (20, 30)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("pictures/a.png", "{root}/pictures/a.png"),
        ("{root}/pictures/a.png", "{root}/pictures/a.png"),
        ({"bytes": None, "path": "pictures/a.png"}, "{root}/pictures/a.png"),
        (Path("../private/a.png"), "{root}/../private/a.png"),
        # The name of a link, not of what it leads to, which may change.
        ("linked/a.png", "{root}/linked/a.png"),
    ],
)
def test_pictures_are_found_from_any_folder_by_absolute_paths(shop, reference, expected, monkeypatch):
    monkeypatch.chdir(shop.parent)
    if isinstance(reference, str):
        reference = reference.format(root=shop)
    record = {"title": "é", "image": reference}
    (made,) = absolute_pictures([record], "shop")
    assert made == {"title": "é", "image": Path(expected.format(root=shop))} and record["image"] is reference
    monkeypatch.chdir("/")
    # A `Path`, so that another root does not refuse it.
    assert load_picture(made["image"], root=shop / "pictures").size == (20, 30)


def test_only_paths_are_made_absolute(shop, monkeypatch):
    others = [None, "", "https://example.com/a.png", b"a.png", {"bytes": b"a", "path": "b.png"}, noise(0)]
    records = [{}, *({"image": reference} for reference in others)]
    assert absolute_pictures(records, shop) == records
    monkeypatch.chdir(shop)
    assert absolute_pictures([{"image": "pictures/a.png"}], None) == [{"image": shop / "pictures" / "a.png"}]


def test_paths_that_lead_out_of_the_items_folder_are_not_made_absolute_but_left_out(shop, caplog):
    caplog.set_level("WARNING")
    references = ["../private/a.png", "/etc/hostname", {"path": "../private/a.png"}, "pictures/a.png"]
    made = absolute_pictures([{"item_id": "a", "image": reference} for reference in references], shop)
    # Left as they are, another root might hold them.
    assert made == [{"item_id": "a"}] * 3 + [{"item_id": "a", "image": shop / "pictures" / "a.png"}]
    (message,) = caplog.messages
    assert message == f"3 paths of pictures lead out of {shop} and were left out; give a root= that holds them"


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
