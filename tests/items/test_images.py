"""Pictures of every kind a shop has: each gives upright RGB, or one clear reason."""

import io
import ntpath
import os
import struct
import warnings
import zlib
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmm4rec_hf.items import ItemCatalog, images
from mmm4rec_hf.items.images import PictureError, absolute_pictures, load_picture

from .conftest import encoded, noise, png

# Pillow opens these and more, and writes the last from version 12 on; a shop has no need of them.
RARE_FORMATS = ("EPS", "TIFF", "ICO", "PPM", "TGA", "SGI", "PCX", "DDS", "JPEG2000", "IM", "DIB", "QOI")
Image.init()
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
        *((encoded(noise(1), kind), "no picture of these formats") for kind in RARE_FORMATS if kind in Image.SAVE),
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
    """A folder with a picture and links, beside another folder with a picture."""
    for name in ("shop/pictures", "private/deep"):
        (tmp_path / name).mkdir(parents=True)
    for number, name in enumerate(("shop/pictures/a.png", "shop/b.png", "private/a.png", "private/b.png")):
        noise(number).save(tmp_path / name)
    links = {
        "linked": tmp_path / "private",
        "deep": tmp_path / "private" / "deep",
        "link.png": Path("../private/a.png"),
        "twice.png": Path("link.png"),
        "inner": Path("pictures"),
        "inner.png": tmp_path / "shop" / "b.png",
        "loop.png": Path("loop.png"),
        "away.png": Path("nowhere.png"),
    }
    for name, target in links.items():
        (tmp_path / "shop" / name).symlink_to(target)
    (tmp_path / "alias").symlink_to(tmp_path / "shop")
    return tmp_path / "shop"


# And the seed of the picture that they lead to.
INSIDE = {
    "pictures/a.png": 0,
    "./pictures/../pictures/a.png": 0,
    "{root}/pictures/a.png": 0,
    "inner/a.png": 0,
    "inner/../b.png": 1,
    "inner.png": 1,
}
OUTSIDE = [
    "../private/a.png",
    "pictures/../../private/a.png",
    "{other}/private/a.png",
    "../shopping/a.png",
    "linked/a.png",
    "linked/../private/a.png",
    # By its letters shop/b.png; opened, private/b.png.
    "deep/../b.png",
    "link.png",
    "twice.png",
    "{root}/linked/a.png",
]


def seen(picture: Any, number: int) -> bool:
    """Whether a picture is that of `noise(number)`."""
    return np.array_equal(np.asarray(picture), np.asarray(noise(number)))


@pytest.mark.parametrize("reference", INSIDE)
def test_paths_below_the_items_folder_are_followed_and_links_that_stay_in_it_too(shop, reference, monkeypatch):
    number = INSIDE[reference]
    for path in (reference.format(root=shop), {"path": reference.format(root=shop)}):
        assert seen(load_picture(path, root=shop), number)
        # A folder that is a link itself, and paths by its other name.
        assert seen(load_picture(path, root=shop.parent / "alias"), number)
    assert seen(load_picture(reference.format(root=shop.parent / "alias"), root=shop.parent / "alias"), number)
    monkeypatch.chdir(shop.parent)
    assert seen(load_picture(reference.format(root=shop), root="shop"), number)


@pytest.mark.parametrize("reference", OUTSIDE)
def test_paths_that_lead_out_of_the_items_folder_are_not(shop, reference):
    (shop.parent / "shopping").mkdir()
    reference = reference.format(other=shop.parent, root=shop)
    for path in (reference, {"bytes": None, "path": reference}):
        with pytest.raises(PictureError, match=r"outside the items' folder.*root=.*follow_links=True$"):
            load_picture(path, root=shop)
    # What the caller says in person counts: a Path, which no file can hold, no folder at all, or a wider one.
    (shop.parent / "shopping" / "a.png").write_bytes(png(noise(0)))
    assert load_picture(shop / reference, root=shop).size == (20, 30)
    assert load_picture(str(shop / reference)).size == (20, 30)
    assert load_picture(str(shop / reference), root="/").size == (20, 30)


@pytest.mark.parametrize(
    "reference",
    [
        "loop.png",
        "away.png",
        "pictures/a.png\0.png",
        "\0",
        "\ud800.png",
        "a" * 5000,
        # Names of files where they are no paths.
        "C:\\private\\a.png",
        "\\\\server\\share\\a.png",
        "..\\private\\a.png",
    ],
)
def test_what_leads_nowhere_is_no_file(shop, reference):
    with pytest.raises(PictureError, match="no such file"):
        load_picture(reference, root=shop)


@pytest.mark.parametrize(
    ("reference", "inside"),
    [
        ("pictures\\a.png", True),
        ("pictures/a.png", True),
        ("D:\\Shop\\PICTURES\\a.png", True),
        ("..\\private\\a.png", False),
        ("pictures\\..\\..\\private\\a.png", False),
        ("C:\\private\\a.png", False),
        ("C:a.png", False),
        ("\\private\\a.png", False),
        ("\\\\server\\share\\a.png", False),
        ("//server/share/a.png", False),
        ("\\\\?\\D:\\private\\a.png", False),
    ],
)
def test_on_windows_drives_and_shares_lead_out_and_are_not_asked(monkeypatch, reference, inside):
    """Its rules of paths, which every system has."""
    asked = []

    def realpath(path: Any) -> str:
        asked.append(str(path))
        return ntpath.abspath(path)

    windows = SimpleNamespace(abspath=ntpath.abspath, realpath=realpath)
    monkeypatch.setattr(images, "os", SimpleNamespace(path=windows, PathLike=os.PathLike))
    monkeypatch.setattr(images, "Path", PureWindowsPath)
    assert (images.picture_path(reference, "D:\\shop") is not None) == inside
    # The question where \\server leads would be sent to it.
    assert asked == ["D:\\shop"] + inside * [str(PureWindowsPath("D:\\shop", reference))]


def test_the_hub_s_cache_holds_its_files_beside_the_snapshot_and_nothing_else_is_followed_there(tmp_path):
    repository = tmp_path / "datasets--org--items"
    snapshot = repository / "snapshots" / "0123"
    for folder in (snapshot / "images", repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    noise(3).save(repository / "blobs" / "abc", "PNG")
    noise(4).save(repository / "refs" / "main", "PNG")
    (snapshot / "images" / "a.png").symlink_to("../../../blobs/abc")
    (snapshot / "images" / "b.png").symlink_to("../../../refs/main")
    for root in (snapshot, snapshot / "images"):
        assert seen(load_picture("a.png" if root.name == "images" else "images/a.png", root=root), 3)
    with pytest.raises(PictureError, match="outside"):
        load_picture("images/b.png", root=snapshot)
    # The same links in a folder of another name, as somebody might send it.
    repository.rename(tmp_path / "items")
    with pytest.raises(PictureError, match="outside"):
        load_picture("images/a.png", root=tmp_path / "items" / "snapshots" / "0123")


def test_links_are_followed_where_the_caller_says_they_are_his_own(shop, caplog):
    caplog.set_level("WARNING")
    references = ["linked/a.png", "link.png", "deep/../b.png", "../private/a.png", f"{shop.parent}/private/a.png"]
    records = [{"image": reference} for reference in references]
    expected = [shop / "linked" / "a.png", shop / "link.png", shop / "b.png", None, None]
    made = absolute_pictures(records, shop, follow_links=True)
    assert [record.get("image") for record in made] == expected
    assert caplog.messages == [
        f"2 paths of pictures lead out of {shop} and were left out; give a root= that holds them"
    ]
    items = [{"item_id": str(number), **record} for number, record in enumerate(records)]
    catalog = ItemCatalog.from_items(items, root=shop, follow_links=True)
    # As it would be opened, private/b.png is another picture.
    assert seen(catalog.picture("0"), 2) and seen(catalog.picture("1"), 2) and seen(catalog.picture("2"), 1)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("pictures/a.png", "{root}/pictures/a.png"),
        ("{root}/pictures/a.png", "{root}/pictures/a.png"),
        ({"bytes": None, "path": "pictures/a.png"}, "{root}/pictures/a.png"),
        (Path("../private/a.png"), "{root}/../private/a.png"),
        # The name of a link, not of what it leads to, which may change.
        ("inner/a.png", "{root}/inner/a.png"),
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
    references = ["../private/a.png", "/etc/hostname", {"path": "../private/a.png"}, "link.png", "pictures/a.png"]
    made = absolute_pictures([{"item_id": "a", "image": reference} for reference in references], shop)
    # Left as they are, another root might hold them.
    assert made == [{"item_id": "a"}] * 4 + [{"item_id": "a", "image": shop / "pictures" / "a.png"}]
    (message,) = caplog.messages
    assert message == (
        f"4 paths of pictures lead out of {shop} and were left out; give a root= that holds them, "
        "or follow_links=True where links of yours lead there"
    )


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
