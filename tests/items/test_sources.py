"""Items from the files and frames that users have; what cannot be read is counted with its place, never run."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import datasets
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmm4rec_hf.data.readers import files
from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.items.amazon import amazon_record
from mmm4rec_hf.items.sources import read_items
from mmm4rec_hf.items.text import item_text

from .conftest import noise, png

ROWS = [{"item_id": "007", "title": "a, b"}, {"item_id": "9007199254740993", "title": "é"}]
EXPECTED = (["007", "9007199254740993"], [{"title": "a, b"}, {"title": "é"}])


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
def test_json_lines_read_alike_plain_and_compressed(tmp_path, suffix):
    opener = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[suffix]
    path = tmp_path / f"items.jsonl{suffix}"
    with opener(path, "wb") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    assert read_items(path) == EXPECTED


def test_arrays_tables_frames_and_dictionaries_read_alike(tmp_path):
    frame = polars.DataFrame(ROWS)
    frame.write_csv(tmp_path / "items.csv")
    frame.write_csv(tmp_path / "items.tsv", separator="\t")
    frame.write_parquet(tmp_path / "items.parquet")
    (tmp_path / "items.json").write_text(json.dumps(ROWS), encoding="utf-8")
    paths = [tmp_path / f"items.{kind}" for kind in ("csv", "tsv", "parquet", "json")]
    for source in (*paths, frame, frame.lazy(), frame.to_arrow(), datasets.Dataset.from_list(ROWS), ROWS, iter(ROWS)):
        assert read_items(source) == EXPECTED, source


def test_a_pandas_frame_reads_alike_and_its_gaps_are_absent():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([*ROWS, {"item_id": "x", "title": None}])
    assert read_items(frame) == ([*EXPECTED[0], "x"], [*EXPECTED[1], {}])


@pytest.mark.parametrize(
    "dtype", ["object", "str", "string", "string[pyarrow]", "category", "Int64", "int64[pyarrow]", "datetime64[ns]"]
)
def test_a_gap_of_any_pandas_type_is_absent(dtype):
    pandas = pytest.importorskip("pandas")
    value = 7 if "int" in dtype.lower() else "1999-01-02"
    frame = pandas.DataFrame({"item_id": ["a", "b", None]}, dtype="string")
    frame["title"] = pandas.Series([value, None, value], dtype=dtype)
    catalog = ItemCatalog.from_items(frame)
    assert catalog.item_ids == ["a", "b"]
    # A time of day is written where the type holds one.
    assert item_text(catalog["a"]).removesuffix(" 00:00:00 ;").removesuffix(" ;") == f"Title: {value}"
    assert catalog["b"] == {} and item_text(catalog["b"]) is None


LISTS = {
    "item_id": ["a", "b"],
    "genres": [["Comedy", "Drama"], None],
    "cast": [[{"name": "Ann", "roles": ["x", "y"]}], []],
    "text_features": [[1.0, 2.0], [3.0, 4.0]],
}


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow", None])
def test_lists_of_a_parquet_file_are_lists_by_path_and_by_pandas(tmp_path, backend):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "items.parquet"
    polars.DataFrame(LISTS).write_parquet(path)
    frame = pandas.read_parquet(path, **({"dtype_backend": backend} if backend else {}))
    expected = [{"genres": ["Comedy", "Drama"], "cast": LISTS["cast"][0]}, {"cast": []}]
    for source in (
        path,
        frame,
        frame.to_dict("records"),
        datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")),
    ):
        catalog = ItemCatalog.from_items(source)
        assert catalog.records == expected and catalog.text_features.tolist() == LISTS["text_features"]
        assert item_text(catalog["a"], ["genres"]) == "Genres: Comedy, Drama ;"


def test_arrays_of_numbers_are_not_taken_apart():
    vector = np.arange(3, dtype=np.float32)
    assert read_items([{"item_id": "a", "vector": vector}])[1][0]["vector"] is vector


@pytest.mark.parametrize("zero", [0, "0"])
def test_the_id_zero_is_an_item_like_others(tmp_path, zero):
    rows = [{"item_id": zero, "title": "first"}, {"item_id": 1, "title": "second"}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "items.csv").write_text("item_id,title\n0,first\n1,second\n")
    for source in (rows, tmp_path / "items.jsonl", tmp_path / "items.csv"):
        catalog = ItemCatalog.from_items(source)
        assert catalog.item_ids == ["0", "1"] and 0 in catalog and "0" in catalog
        assert catalog[zero]["title"] == catalog.select([zero]).titles[0] == "first"
    catalog.remove_items([0])
    assert catalog.item_ids == ["1"]


def test_python_literals_are_read_and_code_is_never_run(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [
        "{'item_id': 'B1', 'title': 'it\\'s', 'also': None}",
        "__import__('os').system('touch pwned')",
        '{"item_id": "B2", "title": "x"}',
        "[1, 2]",
        "(" * 500,
        "{'item_id': 'B3'} or __import__('os').system('touch pwned')",
    ]
    (tmp_path / "meta.json").write_text("\n".join(lines))
    assert read_items(tmp_path / "meta.json") == (["B1", "B2"], [{"title": "it's"}, {"title": "x"}])
    assert "dropped 4 lines that are no records: 2, 4, 5, 6" in caplog.text
    assert not (tmp_path / "pwned").exists()


DEEP = b'{"item_id": "b", "x": ' + b"[" * 65 + b"]" * 65 + b"}"


@pytest.mark.parametrize(
    "line",
    [
        b'{"item_id": "b", "x": ' + b"[" * 200_000,
        DEEP,
        b"{'item_id': 'b', 'x': " + b"-" * 100_000 + b"1}",
        b"{'item_id': 'b', 'x': " + b"(" * 100_000 + b"}",
        b"{'item_id': 'b', 'x': a" + b".a" * 100_000 + b"}",
        b"{'item_id': 'b', 'price': 0x" + b"9" * 50_000 + b"}",
        b'{"item_id": "b", "price": ' + b"9" * 50_000 + b"}",
        b"{'item_id': 'b', 'title': '" + b"x" * (1 << 20) + b"'}",
        b'{"item_id": "b", "title": "' + b"x" * (16 << 20) + b'"}',
        b"{'item_id': 'b', **{'x': 1}}",
        b"{'item_id': f'{1}'}",
    ],
    ids=["nested", "deep", "minus", "brackets", "dots", "hex", "digits", "literal", "long", "unpacking", "format"],
)
@pytest.mark.parametrize("name", ["items.jsonl", "items.jsonl.gz"])
def test_lines_made_to_harm_the_parser_are_dropped_with_their_numbers(tmp_path, caplog, line, name):
    content = b'{"item_id": "a"}\n' + line + b'\n{"item_id": "c"}\n'
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    with caplog.at_level("WARNING"):
        assert ItemCatalog.from_items(tmp_path / name).item_ids == ["a", "c"]
    assert "dropped 1 lines that are no records: 2" in caplog.text


def test_in_an_array_a_record_that_is_too_deep_is_dropped(tmp_path):
    (tmp_path / "items.json").write_bytes(b'[{"item_id": "a"}, ' + DEEP + b"]")
    assert ItemCatalog.from_items(tmp_path / "items.json").item_ids == ["a"]


@pytest.mark.parametrize("name", ["items.jsonl.gz", "items.csv.bz2", "items.json.xz"])
def test_a_decompression_bomb_is_refused_before_memory_is_full(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "UNPACKED_BYTES", 1 << 20)
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[Path(name).suffix]
    (tmp_path / name).write_bytes(pack(b"item_id,title\n" + b" " * 20_000_000))
    with pytest.raises(ValueError, match=rf"{name} unpacks to more than 200 times its size"):
        ItemCatalog.from_items(tmp_path / name)


LONG = "x" * 1000
BOMBS = {
    "rows": {"item_id": ["a"] * 1_000_000},
    "nothing": {"item_id": ["a"] * 200_000, **{f"empty{n}": [None] * 200_000 for n in range(5)}},
    "texts": {"item_id": [str(n) for n in range(3000)], "title": [LONG] * 3000},
    "bytes": {"item_id": [str(n) for n in range(3000)], "image": [LONG.encode()] * 3000},
    "lists": {"item_id": ["a"], "tags": [[LONG] * 3000]},
    "lists of lists": {"item_id": ["a"], "tags": [[[LONG] * 30] * 100]},
    "structs": {"item_id": [str(n) for n in range(3000)], "brand": [{"name": LONG, "size": 1}] * 3000},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_parquet_file_that_holds_far_more_than_its_size_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "items.parquet"
    pq.write_table(polars.DataFrame(BOMBS[name]).to_arrow(), path, compression="zstd")
    assert path.stat().st_size < 14_000
    if name in ("rows", "nothing"):
        # Its end says so.
        monkeypatch.setattr(polars, "read_parquet", None)
    with pytest.raises(
        ValueError, match=r"items.parquet unpacks to [\d,]+ bytes, more than 200 times its size.*as CSV"
    ):
        ItemCatalog.from_items(path)


def test_large_parquet_files_are_read_as_long_as_they_are_not_much_larger_than_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNPACKED_BYTES", 0)
    rows = range(20_000)
    features = np.random.default_rng(0).normal(size=(len(rows), 16)).astype("f4")
    kinds = polars.Series([f"kind {row % 7}" for row in rows], dtype=polars.Categorical)
    table = polars.DataFrame(
        {
            "item_id": [str(row) for row in rows],
            "text_features": features,
            "kind": kinds,
            "nothing": [None] * len(rows),
        }
    )
    table.write_parquet(tmp_path / "items.parquet")
    catalog = ItemCatalog.from_items(tmp_path / "items.parquet")
    assert len(catalog) == 20_000 and np.array_equal(catalog.text_features, features)
    assert catalog["8"] == {"kind": "kind 1"}


def test_of_a_key_that_stands_twice_the_last_value_counts(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "title": "x", "item_id": "b", "title": "y"}\n')
    catalog = ItemCatalog.from_items(tmp_path)
    assert catalog.item_ids == ["b"] and catalog.titles == ["y"]


def test_ids_of_any_letters_are_kept_and_halves_of_letters_refused(tmp_path):
    odd = ["a\nb", "\x00", "\x1b[2J", "\u202egnp.exe", "\u200b", "../../etc/passwd", "/", "\U0001f600"]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"item_id": item, "title": "t\ud83d"}) + "\n" for item in odd))
    catalog = ItemCatalog.from_items(path)
    assert catalog.item_ids == odd and set(catalog.titles) == {"t\ufffd"}
    catalog.save_pretrained(tmp_path / "saved")
    assert ItemCatalog.from_pretrained(tmp_path / "saved").item_ids == odd
    path.write_text('{"item_id": "\\ud83d"}\n')
    with pytest.raises(ValueError, match=r"the id '\\ud83d' holds half of a UTF-16 pair"):
        ItemCatalog.from_items(path)
    with pytest.raises(ValueError, match="an integer of 20,001 bits"):
        ItemCatalog.from_items([{"item_id": 1 << 20_000}])


def test_latin_1_lines_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"item_id": "a"}\n{"item_id": "b", "title": "caf\xe9"}\n{"item_id": "c"}')
    assert read_items(path) == (["a", "b", "c"], [{}, {"title": "café"}, {}])


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_lines_of_any_bytes_are_read_or_dropped(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "items.jsonl"
    path.write_bytes(b'{"item_id": "good"}\n' + b"\n".join(line.replace(b"\n", b" ") for line in lines))
    assert "good" in read_items(path)[0]


def test_repeated_and_nameless_items_are_counted(caplog):
    rows = [{"asin": "a", "t": 1}, {"asin": "a", "t": 1}, {"asin": "a", "t": 2}, {"asin": None}, {"asin": ""}]
    assert read_items(rows) == (["a"], [{"t": 1}])
    assert "2 records have no asin" in caplog.text
    assert "2 records repeat an item id and were dropped, the first of each id kept; 1 of them differ" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"asin": "a", "movieId": 1}], r"may be any of \['asin', 'movieId'\]; give id_column="),
        ([{"name": "a"}], r"no field of \['name'\].*give id_column="),
        ([], "no items were read from a list"),
    ],
)
def test_an_unclear_id_names_the_remedy(rows, message):
    with pytest.raises(ValueError, match=message):
        read_items(rows)
    if rows:
        assert read_items(rows, id_column=next(iter(rows[0])))[0] == ["a"]


@pytest.mark.parametrize("bad", [1.0, True, ["a"]])
def test_an_id_that_has_lost_its_digits_is_refused(bad):
    with pytest.raises(TypeError, match="an id must be a string or an integer"):
        read_items([{"item_id": bad}])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*none.jsonl"):
        read_items(tmp_path / "none.jsonl")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(ValueError, match="a.xlsx is none of .csv, .txt, .tsv, .jsonl"):
        read_items(tmp_path / "a.xlsx")


def test_a_folder_must_hold_one_items_file(tmp_path):
    with pytest.raises(ValueError, match=r"should hold one file of items \(items.jsonl, .*found none; name the file"):
        read_items(tmp_path)
    for name in ("items.jsonl", "items.csv"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="found items.csv, items.jsonl; name the file"):
        read_items(tmp_path)


@pytest.mark.parametrize("items", [{"item_id": "a"}, ["a"], 5, datasets.DatasetDict()])
def test_items_that_are_no_dictionaries_are_refused(items):
    with pytest.raises(TypeError, match="dictionar"):
        read_items(items)


def test_the_id_is_told_by_the_first_records_together():
    rows = [{"title": "nameless"}, {"title": "T", "productId": 5}]
    assert read_items(rows) == (["5"], [{"title": "T"}])
    assert read_items([{"id": 1, "item_id": 2}])[0] == ["2"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_is_read_with_any_separator(tmp_path, separator):
    lines = [["sku", "title"], ["0", '"a b"'], ["007", "c"]]
    (tmp_path / "shop.csv").write_text("".join(separator.join(line) + "\n" for line in lines))
    assert read_items(tmp_path / "shop.csv") == (["0", "007"], [{"title": "a b"}, {"title": "c"}])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_any_encoding_is_read(tmp_path, encoding):
    (tmp_path / "items.jsonl").write_bytes('{"item_id": "ü", "title": "café"}\n'.encode(encoding))
    (tmp_path / "shop.csv").write_bytes("item_id,title\nü,café\n".encode(encoding))
    (tmp_path / "shop.item").write_bytes("item_id:token\ttitle:token\nü\tcafé\n".encode(encoding))
    for name in ("items.jsonl", "shop.csv", "shop.item"):
        assert read_items(tmp_path / name) == (["ü"], [{"title": "café"}]), name


def test_what_windows_writes_beyond_latin_1_is_read(tmp_path):
    (tmp_path / "items.jsonl").write_bytes('{"item_id": "ü", "title": "„Café“ – 20 €"}\n'.encode("cp1252"))
    (tmp_path / "shop.csv").write_bytes("item_id;title\nü;„Café“ – 20 €\n".encode("cp1252"))
    for name in ("items.jsonl", "shop.csv"):
        assert read_items(tmp_path / name) == (["ü"], [{"title": "„Café“ – 20 €"}]), name


def test_recbole_items_become_records(tmp_path):
    path = tmp_path / "shop.item"
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    path.write_text(header + "1\tToy \"Story\t1995\tAnimation Children's\n2\tunknown\t\tunknown\n")
    for source in (path, tmp_path):
        assert read_items(source) == (
            ["1", "2"],
            [
                {"title": 'Toy "Story (1995)', "genres": ["Animation", "Children's"]},
                {"title": "unknown", "release_year": "", "genres": ["unknown"]},
            ],
        )
    path.write_text(header + "1\tToy Story\n")
    with pytest.raises(ValueError, match="shop.item, line 2: 2 columns, the header has 4"):
        read_items(path)
    path.write_text("item\ttitle\n1\tx\n")
    with pytest.raises(ValueError, match="no atomic item file"):
        read_items(path)


FILMS = (["1", "2"], [{"title": "Cité (1995)", "genres": ["Comedy", "War"]}, {"title": "x, y", "genres": []}])


def write_films_100k(folder):
    flags = [["0"] * 19 for _ in range(2)]
    flags[0][5] = flags[0][17] = "1"
    rows = [["1", "Cité (1995)", "01-Jan-1995", "", "http://example.org/?Cit%E9"], ["2", "x, y", "", "", ""]]
    lines = ["|".join(row + flag) for row, flag in zip(rows, flags, strict=True)]
    (folder / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    (folder / "u.data").write_text("1\t1\t3\t881250949\n")


def write_films_1m(folder):
    (folder / "movies.dat").write_bytes("1::Cité (1995)::Comedy|War\n2::x, y::\n".encode("latin-1"))


def write_films_latest(folder):
    lines = 'movieId,title,genres\n1,Cité (1995),Comedy|War\n2,"x, y",(no genres listed)\n'
    (folder / "movies.csv").write_text(lines, encoding="utf-8")
    (folder / "tags.csv").write_text("movieId,tag\n")


@pytest.mark.parametrize("write", [write_films_100k, write_films_1m, write_films_latest])
def test_the_films_of_movielens_are_read_from_every_layout(tmp_path, write):
    write(tmp_path)
    assert read_items(tmp_path) == FILMS
    assert read_items(tmp_path, format="movielens") == FILMS


@pytest.mark.parametrize(("name", "fields"), [("u.item", 24), ("movies.dat", 3)])
def test_a_film_of_another_form_is_refused_with_its_line(tmp_path, name, fields):
    (tmp_path / name).write_text("\n1|x\n")
    with pytest.raises(ValueError, match=rf"{name}, line 2: \d fields, a film has {fields}"):
        read_items(tmp_path)


def test_amazon_2018_metadata_skips_an_empty_first_picture():
    raw = {"asin": "0001388703", "title": "T", "brand": "", "description": ["one", "", "two"], "also_buy": ["x"]}
    raw |= {"imageURLHighRes": ["", "https://example.org/1.jpg"], "imageURL": ["https://example.org/small.jpg"]}
    assert amazon_record(raw, "amazon-2018") == {
        "item_id": "0001388703",
        "title": "T",
        "description": "one two",
        "image": "https://example.org/1.jpg",
    }
    raw["imageURLHighRes"] = [""]
    assert amazon_record(raw, "amazon-2018")["image"] == "https://example.org/small.jpg"


@pytest.mark.parametrize("as_columns", [False, True])
def test_amazon_2023_metadata_takes_the_main_picture(as_columns):
    images = [
        {"thumb": "t1", "large": "l1", "hi_res": "h1", "variant": "PT01"},
        {"thumb": "t2", "large": "l2", "hi_res": None, "variant": "MAIN"},
    ]
    raw = {"parent_asin": "B07", "title": "T", "store": "Acme", "description": [], "categories": ["A", "B"]}
    raw["images"] = {key: [image[key] for image in images] for key in images[0]} if as_columns else images
    expected = {"item_id": "B07", "title": "T", "brand": "Acme", "category": ["A", "B"], "image": "l2"}
    assert amazon_record(raw, "amazon-2023") == expected


def test_amazon_metadata_that_pandas_read_is_read_alike(tmp_path):
    pandas = pytest.importorskip("pandas")
    images = {"hi_res": [None, "h2"], "large": ["l1", "l2"], "variant": ["PT01", "MAIN"]}
    raw = {"parent_asin": "B07", "title": "T", "store": None, "description": ["one", "two"], "images": images}
    path = tmp_path / "meta.parquet"
    polars.DataFrame([raw, raw | {"parent_asin": "B08", "store": "Acme"}]).write_parquet(path)
    expected = {"title": "T", "description": "one two", "image": "h2"}
    for frame in (pandas.read_parquet(path), pandas.read_parquet(path).convert_dtypes()):
        assert read_items(frame) == (["B07", "B08"], [expected, expected | {"brand": "Acme"}])
    gaps = {"asin": "B1", "imUrl": pandas.NA, "description": ["one", float("nan"), pandas.NA]}
    assert read_items([gaps]) == (["B1"], [{"description": "one"}])


def test_amazon_files_load_by_one_call(tmp_path):
    path = tmp_path / "meta_Beauty.json.gz"
    with gzip.open(path, "wt") as stream:
        stream.write("{'asin': 'B1', 'title': 'x', 'imUrl': 'http://example.org/a.jpg'}\n")
    for options in ({"format": "amazon-2018"}, {}):
        catalog = ItemCatalog.from_items(path, **options)
        assert catalog["B1"] == {"title": "x", "image": "http://example.org/a.jpg"}
    raw = ItemCatalog.from_items(path, id_column="asin")
    assert raw["B1"] == {"title": "x", "imUrl": "http://example.org/a.jpg"}
    with pytest.raises(ValueError, match="leave id_column='asin' out"):
        ItemCatalog.from_items(path, format="amazon-2018", id_column="asin")
    later = {"parent_asin": "B2", "title": "y", "images": [{"large": "http://example.org/b.jpg", "variant": "MAIN"}]}
    assert ItemCatalog.from_items([later])["B2"]["image"] == "http://example.org/b.jpg"


def test_a_dataset_s_broken_picture_does_not_end_the_reading():
    cells = [{"bytes": png(noise(0)), "path": None}, {"bytes": b"broken", "path": None}]
    columns = datasets.Features({"item_id": datasets.Value("string"), "image": datasets.Image()})
    dataset = datasets.Dataset.from_dict({"item_id": ["a", "b"], "image": cells}, features=columns)
    catalog = ItemCatalog.from_items(dataset)
    assert catalog.picture("a").size == (20, 30)
    with pytest.raises(ValueError, match="no picture of these formats"):
        catalog.picture("b")


def test_features_come_with_their_items_in_whatever_order():
    rows = [{"item_id": "b", "text_features": [3.0, 4.0]}, {"item_id": "a", "text_features": [1.0, 2.0]}]
    catalog = ItemCatalog.from_items(rows)
    assert catalog.select(["a", "b"]).text_features.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert "text_features" not in catalog["a"]
    with pytest.raises(ValueError, match="1 of 2 items have no text_features"):
        ItemCatalog.from_items([rows[0], {"item_id": "c"}])


def test_the_relative_pictures_of_a_file_start_at_its_folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(noise(0)))
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "image": "pictures/a.png"}\n')
    for source in (tmp_path, tmp_path / "items.jsonl", str(tmp_path)):
        assert ItemCatalog.from_items(source).picture("a").size == (20, 30)
    assert Path(ItemCatalog.from_items(tmp_path).root) == tmp_path
