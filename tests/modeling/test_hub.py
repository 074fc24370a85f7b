"""What an upload asks of the Hub, and how its refusals are told. tests/hub uploads to a Hub on the loopback."""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from mmm4rec_hf import MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.modeling import hub_mmm4rec, pretrained_mmm4rec
from mmm4rec_hf.modeling.hub_mmm4rec import push_folder


class Hub:
    """Answers as `HfApi` does, and keeps what it was asked."""

    def __init__(self, error: Exception | None = None, there: dict[str, str] | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error, self.there = error, there or {}

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        self.calls.append(("create_repo", options))
        return SimpleNamespace(repo_id=f"author/{repo_id}")

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo_id} | options))

    def list_repo_files(self, repo_id: str, **options: Any) -> list[str]:
        return list(self.there)

    def hf_hub_download(self, repo_id: str, name: str, **options: Any) -> str:
        path = Path(tempfile.mkdtemp(), "file")
        path.write_text(self.there[name])
        return str(path)

    def create_commit(self, repo_id: str, operations: list[Any], **options: Any) -> str:
        self.contents = {}
        for operation in operations:
            if isinstance(operation, CommitOperationAdd):
                with operation.as_file() as stream:
                    self.contents[operation.path_in_repo] = stream.read().decode()
        files = {operation.path_in_repo for operation in operations if isinstance(operation, CommitOperationAdd)}
        deleted = {operation.path_in_repo for operation in operations if isinstance(operation, CommitOperationDelete)}
        self.calls.append(("deleted", {"files": deleted}))
        self.calls.append(("create_commit", {"repo_id": repo_id, "files": files} | options))
        return "the commit"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\ntags:\n- films\n---\n# films\n")
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "items.jsonl").write_text("")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "secret").write_text("")
    return tmp_path


def pushed(monkeypatch: pytest.MonkeyPatch, hub: Hub, folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: hub)
    assert push_folder(folder, "films", **options) == "the commit"
    return dict(hub.calls)


def test_what_is_there_already_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    calls = pushed(monkeypatch, Hub(), folder, revision="experiment", private=True)
    assert calls["create_repo"] == {"repo_type": "model", "private": True, "exist_ok": True}
    branch = {"repo_id": "author/films", "repo_type": "model", "branch": "experiment", "exist_ok": True}
    assert calls["create_branch"] == branch
    commit = calls["create_commit"]
    assert commit["repo_id"] == "author/films" and commit["revision"] == "experiment" and not commit["create_pr"]
    assert commit["files"] == {"config.json", "README.md", "catalog/items.jsonl"}


def test_a_pull_request_needs_no_branch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    calls = pushed(monkeypatch, Hub(), folder, revision="main", create_pr=True, repo_type="dataset")
    assert "create_branch" not in calls and calls["create_commit"]["create_pr"]
    assert calls["create_commit"]["repo_type"] == "dataset"
    assert calls["create_commit"]["files"] == {"config.json", "README.md", "catalog/items.jsonl"}


@pytest.mark.parametrize(("repo_type", "kind"), [("model", "model"), ("dataset", "data set")])
def test_a_card_that_an_upload_left_is_replaced_and_one_that_was_edited_stays(
    monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture, repo_type: str, kind: str
) -> None:
    first, hub = Hub(), Hub()
    pushed(monkeypatch, first, folder, repo_type=repo_type, license="mit")
    (folder / "README.md").write_text("---\ntags:\n- films\n---\n# 7 films\n")
    hub.there = first.contents
    pushed(monkeypatch, hub, folder, repo_type=repo_type)
    card = ModelCard(hub.contents["README.md"])
    assert (
        "# 7 films" in card.text and card.data.license == "mit" and card.data.tags == ["films"] and not caplog.records
    )
    # A card that went through the Hub and back is stamped once.
    (folder / "README.md").write_text(hub.contents["README.md"])
    pushed(monkeypatch, again := Hub(there=hub.contents), folder, repo_type=repo_type)
    assert again.contents["README.md"] == hub.contents["README.md"]
    for edited in (hub.contents["README.md"].replace("7 films", "7 good films"), "My own words.", "# films\n"):
        caplog.clear()
        pushed(monkeypatch, edits := Hub(there={"README.md": edited}), folder, repo_type=repo_type, license="mit")
        assert "README.md" not in edits.contents and "config.json" in edits.contents
        (told,) = [record.getMessage() for record in caplog.records]
        # Of a card without a mark nobody knows who wrote it.
        why = "as it has no mark of an earlier upload or was changed since"
        assert f"author/films has a {kind} card already, which is kept, {why}" in told and "and its licence" in told
    # What the Hub's own page makes of a new repository with a licence holds no words.
    pushed(monkeypatch, new := Hub(there={"README.md": "---\nlicense: cc-by-4.0\n---\n"}), folder, license="mit")
    assert ModelCard(new.contents["README.md"]).data.license == "mit"


def test_a_card_is_given_to_a_folder_that_has_none(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    pushed(monkeypatch, own := Hub(), folder, card="# made\n")
    assert "# films\n" in own.contents["README.md"] and "made" not in own.contents["README.md"]
    (folder / "README.md").unlink()
    pushed(monkeypatch, made := Hub(), folder, card="# made\n")
    assert made.contents["README.md"].startswith("# made\n") and not (folder / "README.md").exists()


def put(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_new_card_has_the_tags_of_the_model_and_of_the_call(
    monkeypatch: pytest.MonkeyPatch, lively_model: Callable[..., MMM4RecForSequentialRecommendation]
) -> None:
    cards: list[ModelCard] = []
    monkeypatch.setattr(
        pretrained_mmm4rec, "push_folder", lambda folder, *_, **__: cards.append(ModelCard.load(f"{folder}/README.md"))
    )
    model = lively_model()
    model.push_to_hub("author/films")
    model.add_model_tags(["films"])
    model.push_to_hub("author/films", tags=["evenings"])
    plain, tagged = ({*card.data.tags} for card in cards)
    assert tagged == plain | {"films", "evenings"} and not plain & {"films", "evenings"}


def test_what_is_no_part_of_a_model_stays_and_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent = {
        "README.md": "# films\n![curve](figures/loss.png)\n",
        "figures/loss.png": "", "LICENSE": "", "config.json": "{}", "modeling_mmm4rec.py": "",
        "model.safetensors.index.json": "", "model-00001-of-00002.safetensors": "", "model.fp16.safetensors": "",
        "item_ids.json": "[]", "items.jsonl": "", "log_layout.json": "{}", "processor_config.json": "{}",
        "tokenizer.json": "", "vocab.txt": "", "catalog/catalog.json": "{}",
        "catalog/items.jsonl": '{"item_id": "1", "image": "images/1.jpg"}\n{"item_id": "2", "image": "pics/2.PNG"}\n'
        '{"item_id": "3", "image": "secret.txt"}\n{"item_id": "4", "image": "../users.png"}\n{"item_id": "5"}\n',
        "catalog/features.safetensors": "", "catalog/images/1.jpg": "", "catalog/pics/2.PNG": "",
        "catalog/processor/tokenizer.json": "", "catalog/processor/preprocessor_config.json": "",
    }  # fmt: skip
    kept = {
        "vocab_extra.txt": "", "users.jsonl": "", "users.png": "", "model.onnx": "", "notes.md": "",
        "training_args.bin": "", "checkpoint-10/optimizer.pt": "", "checkpoint-10/model.safetensors": "",
        "figures/other.png": "", "catalog/secret.txt": "", "catalog/images/gone.jpg": "", "runs/a/events": "",
        "catalog/tokenizer.json": "",
    }  # fmt: skip
    put(folder, sent | kept)
    assert pushed(monkeypatch, Hub(), folder)["create_commit"]["files"] == set(sent)
    told = caplog.records[0].getMessage()
    for name in ("users.jsonl", "checkpoint-10/", "catalog/secret.txt", "figures/other.png", " and 2 more are left"):
        assert name in told, name
    assert "optimizer" not in told


def test_code_that_a_configuration_names_goes_along_with_what_it_imports(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    names = {"AutoTokenizer": ["words.Slow", None], "AutoProcessor": "gone.P", "AutoModel": "modeling_mmm4rec.M"}
    own = json.dumps({"auto_map": names | {"A": "a--b.C"}})
    put(folder, {"tokenizer_config.json": own, "words.py": "from .letters import abc\n", "letters.py": "abc = 1\n"})
    put(folder, {"plot.py": "", "processor_config.json": "[", "modeling_mmm4rec.py": ""})
    files = pushed(monkeypatch, Hub(), folder)["create_commit"]["files"]
    assert {name for name in files if name.endswith(".py")} == {"words.py", "letters.py", "modeling_mmm4rec.py"}


def test_a_link_that_leads_out_of_the_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: Hub())
    put(
        tmp_path,
        {"model/config.json": "{}", "model/images/one.txt": "", "id_rsa": "PRIVATE", "shop/items.jsonl": "{}"},
    )
    folder = tmp_path / "model"
    (folder / "vocab.txt").symlink_to(tmp_path / "id_rsa")
    with pytest.raises(
        ValueError, match="vocab.txt is a link that leads out of .*model, and what it leads to would be"
    ):
        push_folder(folder, "films")
    (folder / "vocab.txt").unlink()
    # Inside of it, links are what they lead to; one to a folder is not walked into.
    (folder / "vocab.txt").symlink_to(folder / "images" / "one.txt")
    (folder / "catalog").symlink_to(tmp_path / "shop")
    assert pushed(monkeypatch, Hub(), folder)["create_commit"]["files"] == {"config.json", "vocab.txt"}


def test_a_snapshot_in_the_hub_s_cache_is_uploaded_whose_files_are_links(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "hub" / "models--author--films"
    put(cache, {"blobs/a1": "{}", "snapshots/0f/item_ids.json": "[]"})
    (cache / "snapshots" / "0f" / "config.json").symlink_to("../../blobs/a1")
    files = pushed(monkeypatch, Hub(), cache / "snapshots" / "0f")["create_commit"]["files"]
    assert files == {"config.json", "item_ids.json"}


IMAGES = [
    ("1", "/home/alice/pictures/1.jpg", None), ("2", "C:\\\\shop\\\\2.jpg", None), ("3", "\\\\\\\\nas\\\\3.jpg", None),
    ("4", "../4.jpg", None), ("5", "file:///home/5.jpg", None), ("6", "https://shop.org/6.jpg", "https://shop.org/6.jpg"),
    ("7", "images/7.jpg", "images/7.jpg"), ("9", "images/gone.jpg", None), ("10", "notes.txt", None),
    ("11", "./images/7.jpg", "./images/7.jpg"), ("12", {"path": "/home/alice/12.jpg"}, None), ("13", "", ""),
]  # fmt: skip


@pytest.mark.parametrize("place", ["", "catalog/"])
def test_paths_of_the_machine_stay_and_the_fields_that_go_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    records = [
        {"item_id": item_id, "title": f"T\u00e9 {item_id}", "supplier": "Acme", "price": 3.5, "image": image}
        for item_id, image, _ in IMAGES
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records) + '{"item_id": "8", "title": "\\ud800"}\n'
    put(tmp_path, {f"{place}items.jsonl": lines, f"{place}catalog.json": "{}", f"{place}images/7.jpg": "7"})
    put(tmp_path, {f"{place}notes.txt": ""})
    hub = Hub()
    with caplog.at_level(logging.INFO):
        pushed(monkeypatch, hub, tmp_path)
    sent = [json.loads(line) for line in hub.contents[f"{place}items.jsonl"].splitlines()]
    assert [item.pop("image", None) for item in sent] == [image for *_, image in IMAGES] + [None]
    assert [item["title"] for item in sent] == [record["title"] for record in records] + ["\ud800"]
    assert f"{place}images/7.jpg" in hub.contents and (tmp_path / f"{place}items.jsonl").read_text() == lines
    told = [record.getMessage() for record in caplog.records]
    fields = "item_id (13), title (13), supplier (12), price (12), image (4)"
    assert f"{place}items.jsonl: the items go along with these fields: {fields}" in told
    assert any(line.startswith(f"{place}items.jsonl: the pictures of 8 items are left out") for line in told)
    pushed(monkeypatch, hub, tmp_path, fields=["supplier"])
    sent = [json.loads(line) for line in hub.contents[f"{place}items.jsonl"].splitlines()]
    assert sent[0] == {"item_id": "1", "title": "T\u00e9 1", "supplier": "Acme"}
    assert f"{place}images/7.jpg" not in hub.contents
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: hub)
    with pytest.raises(
        ValueError, match="no item has a field 'brand'; the fields are image, item_id, price, supplier"
    ):
        push_folder(tmp_path, "films", fields=["brand"])


def test_texts_that_name_a_path_of_the_machine_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, {"encoder/config.json": "{}", "config.json": json.dumps({"encoder": f"{tmp_path}/encoder"})})
    put(tmp_path, {"README.md": "`org/tmp`, https://hub.org/tmp, /no/such/folder, and ./tmp\n"})
    pushed(monkeypatch, Hub(), tmp_path)
    told = [record.getMessage() for record in caplog.records if "of this machine" in record.getMessage()]
    assert told == [f"config.json goes along and names {tmp_path}/encoder of this machine; nobody else can follow it"]


OTHERS = {
    ".gitattributes": "", "README.md": "Mine.", "photo.png": "", "catalog/notes.md": "", "pytorch_model.bin": "",
    "model.fp16.safetensors": "", "my.py": "",
}  # fmt: skip
BESIDE = {"catalog/catalog.json": "", "catalog/items.jsonl": "", "catalog/images/7.jpg": "", "log_layout.json": ""}
CONFIG = '{"feature_encoder": {"text": {"encoder": "a/b"}}}'
MODEL = {"config.json": CONFIG, "item_ids.json": '["1", "2"]', "model.safetensors": ""}
PROCESSOR = {"processor_config.json": "{}", "tokenizer.json": "", "items.jsonl": ""}


@pytest.mark.parametrize(
    ("new", "deleted"),
    [
        pytest.param(MODEL, set(), id="the same items"),
        pytest.param(MODEL | {"item_ids.json": '["2", "1"]'}, set(BESIDE), id="other items"),
        pytest.param(MODEL | {"config.json": "{}"}, set(BESIDE), id="another encoder"),
        pytest.param({"config.json": CONFIG}, {"item_ids.json", *BESIDE}, id="a base model"),
        pytest.param({"processor_config.json": "{}"}, {"tokenizer.json", "items.jsonl"}, id="a processor"),
        pytest.param(
            MODEL | {"catalog/catalog.json": "{}", "catalog/items.jsonl": ""},
            {"catalog/images/7.jpg", "log_layout.json"},
            id="a catalogue",
        ),
        pytest.param(
            {"config.json": CONFIG, "item_ids.json": '["1", "2"]', "model.safetensors.index.json": "{}"}
            | {f"model-0000{n}-of-00002.safetensors": "" for n in (1, 2)},
            {"model.safetensors"},
            id="weights in shards",
        ),
        pytest.param({"model.fp16.safetensors": ""}, set(), id="another variant"),
    ],
)
def test_what_is_of_an_earlier_model_leaves_in_the_same_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new: dict[str, str], deleted: set[str]
) -> None:
    put(tmp_path, new)
    hub = Hub(there=OTHERS | BESIDE | MODEL | PROCESSOR)
    calls = pushed(monkeypatch, hub, tmp_path)
    assert calls["deleted"]["files"] == deleted and calls["create_commit"]["files"] == set(new)
    assert sum(name == "create_commit" for name, _ in hub.calls) == 1
    # What lies there without a model is not of an earlier one.
    assert not pushed(monkeypatch, Hub(there=OTHERS | BESIDE), tmp_path)["deleted"]["files"] - {
        "catalog/images/7.jpg",
        "log_layout.json",
    }


@pytest.mark.parametrize("fields", [None, ["price"]])
def test_what_is_of_an_earlier_catalogue_leaves_its_own_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, fields: list[str] | None
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(hub_mmm4rec.logger, "propagate", True)
    items = {"catalog.json": "{}", "features.safetensors": ""}
    new = '{"item_id": "a", "price": 3, "image": "images/a.jpg"}\n'
    put(tmp_path, {**items, "items.jsonl": new, "images/a.jpg": "new"})
    earlier = "".join(f'{{"item_id": "{item}", "image": "images/{item}.jpg"}}\n' for item in "ab")
    theirs = dict.fromkeys(["images/banner.jpg", "processor/notes.txt", "LICENSE", "customers.csv"], "theirs")
    pictures = dict.fromkeys(["images/a.jpg", "images/b.jpg"], "old")
    processor = dict.fromkeys(["processor/processor_config.json", "processor/tokenizer.json"], "{}")
    hub = Hub(there={**items, **theirs, **pictures, **processor, "items.jsonl": earlier})
    calls = pushed(monkeypatch, hub, tmp_path, repo_type="dataset", fields=fields)
    gone = {"images/b.jpg", *processor} | ({"images/a.jpg"} if fields else set())
    assert calls["deleted"]["files"] == gone
    assert "author/films loses what would not fit what is uploaded: images/" in caplog.text
    # That pictures were not asked for needs no word.
    assert "left out, being no files" not in caplog.text
    # One that nobody can read names none.
    hub = Hub(there={**items, **pictures, "items.jsonl": "<html>"})
    assert not pushed(monkeypatch, hub, tmp_path, repo_type="dataset", fields=fields)["deleted"]["files"]


def test_shards_leave_for_one_file_of_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(tmp_path, MODEL)
    shards = {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    hub = Hub(there=dict.fromkeys(["training_args.bin", "model.safetensors.index.fp16.json", *shards], ""))
    assert pushed(monkeypatch, hub, tmp_path)["deleted"]["files"] == {"training_args.bin", *shards}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HFValidationError("two slashes"), "'films' cannot be the name of a repository: two slashes"),
        (LocalTokenNotFoundError("none"), "an upload to films needs a token: run `hf auth login`"),
        (
            HfHubHTTPError("403\nForbidden", response=httpx.Response(403, request=httpx.Request("POST", "http://a"))),
            "the Hub refused the upload to films; it needs a token that may write there: 403 Forbidden",
        ),
    ],
)
def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception, message: str) -> None:
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: Hub(error))
    with pytest.raises(ValueError) as told:
        push_folder(folder, "films")
    assert message in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"), [({}, "Upload processor"), ({"commit_message": "Titles"}, "Titles")], ids=str
)
def test_a_processor_is_uploaded_with_its_items(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    processor, hub = MMM4RecProcessor(), Hub()
    processor.set_items(SimpleNamespace(item_ids=["a"], titles=["A"]))
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: hub)
    assert processor.push_to_hub("author/films", **options) == "the commit"
    commit = dict(hub.calls)["create_commit"]
    assert commit["commit_message"] == message and {"processor_config.json", "items.jsonl"} <= commit["files"]


@pytest.mark.parametrize(("count", "more"), [(10, ""), (11, " and 1 more"), (12, " and 2 more")])
def test_ten_files_that_leave_are_named_and_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, more: str
) -> None:
    put(tmp_path, {"model.safetensors": ""})
    shards = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    pushed(monkeypatch, Hub(there=dict.fromkeys(shards, "")), tmp_path)
    told = f"author/films loses what would not fit what is uploaded: {', '.join(shards[:10])}{more}"
    assert [record.getMessage() for record in caplog.records] == [told]


def test_a_card_is_edited_whatever_its_digest() -> None:
    card = hub_mmm4rec._stamped("# films\n")
    assert not hub_mmm4rec._is_edited(card)
    assert all(hub_mmm4rec._is_edited(card.replace("# films", f"# {n} films")) for n in range(16))


def test_what_tells_of_a_catalogue_may_lie_there_without_items(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(tmp_path, {"config.json": "{}", "catalog/catalog.json": "{}"})
    files = pushed(monkeypatch, Hub(), tmp_path)["create_commit"]["files"]
    assert files == {"config.json", "catalog/catalog.json"}


@pytest.mark.parametrize(("count", "more"), [(10, ""), (11, " and 1 more"), (24, " and 14 more")])
def test_ten_files_that_stay_are_named_and_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, more: str
) -> None:
    names = [f"notes-{n:02}.md" for n in range(count)]
    put(tmp_path, {"config.json": "{}"} | dict.fromkeys(names, ""))
    pushed(monkeypatch, Hub(), tmp_path)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(
        f"of {tmp_path} {', '.join(names[:10])}{more} are left out, being no files of a saved model"
    )


def test_items_of_a_processor_go_along_to_the_letter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    items = '{"item_id": "a", "title": "\u00e9"}\n'
    put(tmp_path, {"processor_config.json": "{}", "items.jsonl": items})
    pushed(monkeypatch, hub := Hub(), tmp_path)
    assert hub.contents["items.jsonl"] == items


@pytest.mark.parametrize(
    ("cache", "inside"),
    [("films", "snapshots"), ("models--author--films", "refs"), ("models--author--films", "trees")],
    ids=lambda name: name,
)
def test_a_folder_that_is_no_snapshot_of_the_hub_s_cache_has_no_files_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str, inside: str
) -> None:
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: Hub())
    put(tmp_path / cache, {"blobs/a1": "{}", f"{inside}/0f/item_ids.json": "[]"})
    folder = tmp_path / cache / inside / "0f"
    (folder / "config.json").symlink_to("../../blobs/a1")
    with pytest.raises(ValueError, match=r"config\.json is a link that leads out of"):
        push_folder(folder, "films")


@pytest.mark.parametrize(("line", "told"), [("{", "is no JSON"), ("[1]", "holds no item")])
def test_a_damaged_line_of_items_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, told: str
) -> None:
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: Hub())
    put(tmp_path, {"catalog.json": "{}", "items.jsonl": f'{{"item_id": "a"}}\n{line}\n'})
    with pytest.raises(ValueError, match=rf"^line 2 of .*items\.jsonl {told}.*; save the catalogue again$"):
        push_folder(tmp_path, "films", repo_type="dataset")
