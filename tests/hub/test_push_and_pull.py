"""What is pushed loads by name: equal bits, by revision, by remote code, offline; or it is refused, and clearly."""

import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from .conftest import NO_WAITING, TINY, WITHOUT_PACKAGE, Run, interpreter
from .loopback import LoopbackHub

NAME = "author/my.model-1.4"
PUSH = (
    TINY
    + """
from pathlib import Path
model, catalog = model_of(use_item_bias=True), catalog_of(IDS)
model.set_items(catalog)
processor = MMM4RecProcessor(max_sequence_length=8)
processor.set_items(catalog)
first = model.push_to_hub("author/my.model-1.4")
processor.push_to_hub("author/my.model-1.4")
catalog.push_to_hub("author/shop")
scores = lambda: model(**processor(histories=[HISTORY], return_tensors="pt")).logits
expected = {"first": scores().detach()}
with torch.no_grad():
    model.items.text_bias[3] += 1
expected["second"] = scores().detach()
second = model.push_to_hub("author/my.model-1.4", commit_message="Better")
with torch.no_grad():
    model.items.text_bias[3] += 1
expected["branch"] = scores().detach()
model.push_to_hub("author/my.model-1.4", revision="experiment")
model.push_to_hub("author/secret", private=True)
model.model.push_to_hub("author/base", tags=["films"])
model_of().push_to_hub("author/edited")
torch.save(expected, "expected.pt")
print(first.oid, second.oid, Path("expected.pt").resolve())
"""
)


@pytest.fixture(scope="module")
def pushed(hub: LoopbackHub, author: Run) -> list[str]:
    """Pushes everything: the first and the second commit of the weights, and where the scores of all states are."""
    hub.create("model", "author/edited", private=False)
    hub.files("author/edited")["README.md"] = b"My own words.\n"
    done = author(PUSH)
    assert "author/edited has a model card already" in done.stderr
    return done.stdout.split()


def test_a_model_its_processor_and_its_catalogue_load_by_name_and_revision(pushed: list[str], reader: Run) -> None:
    first, second, expected = pushed
    reader(
        TINY
        + f"""
import transformers
name, expected = {NAME!r}, torch.load({expected!r}, weights_only=True)
processor = transformers.AutoProcessor.from_pretrained(name)
inputs = processor(histories=[HISTORY], return_tensors="pt")
load = MMM4RecForSequentialRecommendation.from_pretrained
for revision, state in (({first!r}, "first"), ({second!r}, "second"), ("main", "second"), ("experiment", "branch")):
    model = load(name, revision=revision)
    assert model.item_ids == processor.item_ids == IDS
    assert torch.equal(model(**inputs).logits, expected[state]), revision
backbone = transformers.AutoModel.from_pretrained(name)
trusted = transformers.AutoModel.from_pretrained(name, trust_remote_code=True)
assert type(backbone) is type(trusted) is type(model.model)
found = transformers.pipeline("sequential-recommendation", model=name)(HISTORY, top_k=9)
assert {{item["item_id"] for item in found}} == {{"007", "x/y", "5", "6"}}
assert found[0]["title"] == f"Title {{found[0]['item_id']}}"

catalog = ItemCatalog.from_pretrained("author/shop")
assert catalog.item_ids == IDS and (catalog.text_features == catalog_of(IDS).text_features).all()
base = load("author/base", catalog=catalog)
for key, value in base.model.state_dict().items():
    assert torch.equal(value, load(name).model.state_dict()[key]), key
try:
    load(name, revision="never")
except OSError as error:
    assert "never" in str(error), error
else:
    raise SystemExit("loaded a revision that is not there")
"""
    )


def test_by_remote_code_it_loads_where_this_package_is_not_installed(pushed: list[str], reader: Run) -> None:
    first, second, expected = pushed
    done = reader(
        WITHOUT_PACKAGE
        + f"""
import torch, transformers
name, expected = {NAME!r}, torch.load({expected!r}, weights_only=True)
options = dict(trust_remote_code=True)
model = transformers.AutoModelForPreTraining.from_pretrained(name, **options)
processor = transformers.AutoProcessor.from_pretrained(name, **options)
history = {{"items": ["7", "B00.1"], "timestamps": [1_300_000_000, 1_300_000_060]}}
assert torch.equal(model(**processor(histories=[history], return_tensors="pt")).logits, expected["second"])
backbone = transformers.AutoModel.from_pretrained(name, **options)
print(type(backbone).__name__, type(backbone).__module__.split(".")[0])
recommend = transformers.pipeline("sequential-recommendation", model=name, **options)
print(len(recommend(history)))
transformers.AutoModel.from_pretrained("author/base", **options).save_pretrained("again")
model.push_to_hub("author/forked")
"""
    )
    assert done.stdout.split() == ["MMM4RecModel", "transformers_modules", "4"]


def test_the_repository_names_the_model_that_its_card_runs(hub: LoopbackHub, pushed: list[str], reader: Run) -> None:
    files = hub.files(NAME)
    card = ModelCard(files["README.md"].decode())
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert NAME in code and "path/to" not in card.text and card.data.library_name == "transformers"
    (base_code,) = re.findall(r"```python\n(.*?)```", hub.files("author/base")["README.md"].decode(), re.DOTALL)
    assert "films" in ModelCard(hub.files("author/base")["README.md"].decode()).data.tags
    shop = hub.files("author/shop", "dataset")["README.md"].decode()
    assert "text features: encoder some/encoder, revision 1" in shop and "by `some/encoder`" in card.text
    (shop_code,) = re.findall(r"```python\n(.*?)```", shop, re.DOTALL)
    reader(f"{code}\n{base_code}\nassert output.user_embeds.shape == (1, 16)\n{shop_code}\nassert len(catalog) == 6")


def test_an_upload_is_one_commit_and_a_card_that_was_edited_stays(hub: LoopbackHub, pushed: list[str]) -> None:
    assert [commit.title for commit in hub.commits(NAME)] == [
        "initial commit", "Upload model", "Upload processor", "Better",
    ]  # fmt: skip
    assert hub.files("author/edited")["README.md"] == b"My own words.\n"
    assert "model.safetensors" in hub.files("author/edited")


def test_a_catalogue_is_pushed_with_its_pictures_or_without_their_names(
    hub: LoopbackHub, author: Run, reader: Run
) -> None:
    done = author(
        TINY
        + """
import pathlib
from PIL import Image
from mmm4rec_hf.cli import main
catalog = catalog_of(["a", "b"])
pathlib.Path("pics").mkdir()
for number, record in enumerate(catalog.records):
    Image.new("RGB", (9, 8), (200 * number, 0, 0)).save(f"pics/{number}.png")
    record["image"] = f"pics/{number}.png"
catalog.root = pathlib.Path.cwd()
catalog.save_pretrained("saved", save_images=True)
pathlib.Path("saved", "customers.csv").write_text("u1,u2")
assert main(["push", "saved", "author/pictures", "--license", "cc0-1.0"]) == 0
pathlib.Path("saved", "images", "b").with_suffix(".png").unlink()
assert main(["push", "saved", "author/one-picture"]) == 0
ItemCatalog.from_pretrained("saved").push_to_hub("author/none")
pathlib.Path("saved", "README.md").write_text("# Films of the author")
assert main(["push", "saved", "author/own-card"]) == 0
"""
    )
    pictures = {"images/a.png", "images/b.png"}
    files = hub.files("author/pictures", "dataset")
    assert files.keys() - {".gitattributes"} == pictures | {
        "README.md", "catalog.json", "features.safetensors", "items.jsonl",
    }  # fmt: skip
    assert ModelCard(files["README.md"].decode()).data.license == "cc0-1.0"
    assert hub.commits("author/pictures", "dataset")[-1].title == "Upload 2 items"
    assert hub.files("author/one-picture", "dataset").keys() & pictures == {"images/a.png"}
    assert not hub.files("author/none", "dataset").keys() & pictures
    assert hub.files("author/own-card", "dataset")["README.md"].startswith(b"# Films of the author")
    # Of one-picture, none and own-card.
    assert re.findall(r"the pictures of (\d+) items are left out", done.stderr) == ["1", "2", "1"]
    reader(
        """
from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.items.images import load_picture
def colours(name):
    catalog = ItemCatalog.from_pretrained(name)
    shown = [record["image"] for record in catalog.records if "image" in record]
    return [load_picture(image, root=catalog.root).getpixel((0, 0)) for image in shown]
assert colours("author/pictures") == [(0, 0, 0), (200, 0, 0)]
assert colours("author/one-picture") == [(0, 0, 0)] and colours("author/none") == []
"""
    )


def test_a_private_repository_opens_with_a_token_alone(pushed: list[str], reader: Run) -> None:
    done = reader(
        """
from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.cli import main
load = MMM4RecForSequentialRecommendation.from_pretrained
try:
    load("author/secret")
except OSError as error:
    assert "author/secret" in str(error) and "token" in str(error), error
else:
    raise SystemExit("opened without a token")
assert main(["recommend", "author/secret", "--history", "7"]) == 1
assert load("author/secret", token="hf_of_the_author").item_ids[0] == "007"
""",
        token=None,
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mmm4rec: error: ")]
    assert "'author/secret' is no folder here, and no model to be had from the Hub: " in line
    assert line.endswith("or it is private and asks for a token (`hf auth login` or HF_TOKEN)")


def test_what_a_repository_has_not_is_said(pushed: list[str], author: Run) -> None:
    author(
        f"""
from huggingface_hub import CommitOperationAdd, HfApi
from mmm4rec_hf.saved_models import find_model
HfApi().create_repo("author/notes")
HfApi().create_commit("author/notes", [CommitOperationAdd("notes.txt", b"no model")], commit_message="Notes")
assert find_model({NAME!r}) == find_model({NAME!r}, revision="experiment") == {NAME!r}
for name, revision, reason in (
    ({NAME!r}, "absent", "the repository has no such revision"),
    ("author/notes", None, "the repository holds none"),
    ("author/nothing", None, "it has none of that name, or it is private and asks for a token"),
    ("a--b", None, "it cannot be a repository's name"),
):
    try:
        find_model(name, revision)
    except ValueError as error:
        assert f"{{name!r}} is no folder here, and no model to be had from the Hub: {{reason}}" in str(error), error
    else:
        raise SystemExit(f"found {{name}}")
"""
    )


def test_what_was_loaded_once_loads_offline_and_what_was_not_says_so(
    hub: LoopbackHub, pushed: list[str], tmp_path: Path
) -> None:
    code = f"""
from mmm4rec_hf import ItemCatalog
from transformers import pipeline
found = pipeline("sequential-recommendation", model={NAME!r})({{"items": ["7"], "timestamps": [1300000000]}})
print(len(found), len(ItemCatalog.from_pretrained("author/shop")))
"""
    reader = interpreter(hub, tmp_path)
    assert reader(code).stdout.split() == ["5", "6"]
    before = len(hub.requests)
    shutil.copytree(tmp_path / "home", tmp_path / "home-2")
    before = len(hub.requests)
    # Not asked, and the same with nobody at the address; then without what was loaded.
    told = {
        "is not asked (HF_HUB_OFFLINE is set)": {"home": "home", "HF_HUB_OFFLINE": "1"},
        "cannot be reached": {"home": "home-2", "HF_ENDPOINT": "http://127.0.0.1:9"},
    }
    for why, variables in told.items():
        done = reader(
            NO_WAITING
            + code
            + f"""
import os, shutil
from mmm4rec_hf.cli import main
shutil.rmtree(os.environ["HF_HOME"])
assert main(["recommend", {NAME!r}, "--history", "7"]) == 1
try:
    ItemCatalog.from_pretrained("author/shop")
except ValueError as error:
    assert "'author/shop' is no folder here, and no data set to be had from the Hub" in str(error), error
else:
    raise SystemExit("loaded what nobody has")
""",
            **variables,
        )
        assert done.stdout.split() == ["5", "6"]
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("mmm4rec: error: ")]
        assert f"'{NAME}' is no folder here, and no model to be had from the Hub: " in line
        assert line.endswith(f"the Hub {why}, and it was not loaded before")
    assert len(hub.requests) == before


def test_a_file_that_breaks_off_is_fetched_again_or_refused(pushed: list[str], reader: Run) -> None:
    _, _, expected = pushed
    reader(
        NO_WAITING
        + f"""
import os, torch, transformers, urllib.request
from mmm4rec_hf import MMM4RecForSequentialRecommendation

def load():
    model = MMM4RecForSequentialRecommendation.from_pretrained({NAME!r})
    processor = transformers.AutoProcessor.from_pretrained({NAME!r})
    history = {{"items": ["7", "B00.1"], "timestamps": [1_300_000_000, 1_300_000_060]}}
    expected = torch.load({expected!r}, weights_only=True)["second"]
    assert torch.equal(model(**processor(histories=[history], return_tensors="pt")).logits, expected)
    assert model.item_ids == processor.item_ids and len(model.item_ids) == 6

def cut(times, file):
    urllib.request.urlopen(f"{{os.environ['HF_ENDPOINT']}}/cut/{{times}}/{{file}}")

for file in ("model.safetensors", "item_ids.json", "items.jsonl"):
    cut(1000, file)
    try:
        load()
    except Exception as error:
        print(type(error).__name__, error)
    else:
        raise SystemExit(f"took half of {{file}}")
    # Half of it was left behind, and the next attempt breaks off once more.
    cut(1, file)
load()
"""
    )


def test_items_that_the_hub_does_not_answer_for_are_not_taken_for_none(pushed: list[str], reader: Run) -> None:
    reader(
        NO_WAITING
        + f"""
import os, transformers, urllib.request
from mmm4rec_hf import MMM4RecProcessor

def fail(file):
    urllib.request.urlopen(f"{{os.environ['HF_ENDPOINT']}}/fail/{{file}}")

def refuses():
    try:
        transformers.AutoProcessor.from_pretrained({NAME!r})
    except OSError as error:
        assert "does not say whether {NAME} has items.jsonl" in str(error), error
        return True

fail("items.jsonl")
assert refuses()
fail("none")
assert len(transformers.AutoProcessor.from_pretrained({NAME!r}).item_ids) == 6
# Those that were loaded before are taken, as of every file.
fail("items.jsonl")
assert len(transformers.AutoProcessor.from_pretrained({NAME!r}).item_ids) == 6
fail("none")
"""
    )


def test_uploads_without_a_right_or_a_name_are_refused_clearly(pushed: list[str], reader: Run) -> None:
    reader(
        TINY
        + """
import re
model = model_of()
def refused(part, name, message, **options):
    try:
        part.push_to_hub(name, **options)
    except ValueError as error:
        assert re.search(message, str(error)) and "\\n" not in str(error), error
    else:
        raise SystemExit(f"pushed to {name}")
refused(model, "author/x", "author/x.*token", token="hf_wrong")
refused(model, "author/x", "author/x.*token")
refused(catalog_of(IDS), "author/x", "author/x.*token")
refused(MMM4RecProcessor(), "author/x", "author/x.*token")
refused(model, "a/b/c", "'a/b/c' cannot be the name of a repository")
""",
        token=None,
    )
