"""What a training pushes, and what a training starts from, by name."""

import json
import os
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from .conftest import TINY, Run
from .loopback import LoopbackHub

LOG = (
    TINY
    + """
import json, os, pathlib
import polars as pl
from transformers import TrainingArguments, pipeline
import mmm4rec_hf
from mmm4rec_hf.cli import main

def write_domain(name, users=15, items=9):
    # Round a circle of items: what comes next can be learned.
    rows = [(f"u{u}", f"{name}{(u + n) % items}", 1_400_000_000 + 900 * n) for u in range(users) for n in range(7)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    sequences = mmm4rec_hf.prepare_sequences(mmm4rec_hf.load_interactions(log), k_core=1, output_dir=f"{name}/log")
    catalog = catalog_of([f"{name}{n}" for n in range(items)], seed=len(name))
    catalog.save_pretrained(f"{name}/catalog")
    return sequences, catalog
"""
)


def test_the_trainer_pushes_a_recommender_with_the_metrics_of_its_best_checkpoint(
    hub: LoopbackHub, author: Run
) -> None:
    out = author(
        LOG
        + """
sequences, catalog = write_domain("films")
model = model_of()
catalog = catalog.select(sequences.item_ids)
model.set_items(catalog)
args = TrainingArguments(
    os.path.abspath("run"), hub_token="hf_of_the_author",
    num_train_epochs=4, per_device_train_batch_size=16, learning_rate=0.05, eval_strategy="epoch", seed=1,
    save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="ndcg@10", hub_model_id="author/tuned",
    push_to_hub=True, hub_strategy="checkpoint", hub_always_push=True, report_to=[], use_cpu=True, disable_tqdm=True,
)
trainer = mmm4rec_hf.MMM4RecTrainer(
    model, args, train_dataset=sequences["train"], eval_dataset=sequences["validation"]
)
trainer.train()
tested = trainer.evaluate(sequences["test"], metric_key_prefix="test")
trainer.push_to_hub(license="cc-by-4.0", dataset="films of the author")
log = [entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
best = next(entry for entry in log if entry["step"] == trainer.state.best_global_step)
history = {"items": ["films1", "films2"], "timestamps": [1_400_000_000, 1_400_000_900]}
processor = MMM4RecProcessor(max_sequence_length=8)
processor.set_items(catalog)
found = [pipeline("sequential-recommendation", model=trainer.model, processor=processor)(history)]
found.append(pipeline("sequential-recommendation", model="author/tuned")(history))
print(json.dumps({
    "best": best["eval_ndcg@10"], "last": log[-1]["eval_ndcg@10"], "tested": tested["test_hr@10"],
    "step": best["step"], "folder": os.getcwd(),
    "found": [[(item["item_id"], item["score"]) for item in items] for items in found],
}))
"""
    ).stdout
    seen = json.loads(out.splitlines()[-1])
    titles = [commit.title for commit in hub.commits("author/tuned")]
    assert titles[-1] == "End of training" and sum("Training in progress" in title for title in titles) >= 2
    # Every state in between can be loaded as well, or gone on from, and none tells who trained it where.
    assert "last-checkpoint/optimizer.pt" in hub.files("author/tuned")
    for commit in hub.commits("author/tuned")[-4:]:
        assert {"model.safetensors", "item_ids.json", "modeling_mmm4rec.py", "README.md"} <= commit.files.keys()
    for commit in hub.commits("author/tuned"):
        names = commit.files.keys()
        assert not [name for name in names if name.endswith(("args.bin", "metrics.json")) or "checkpoint-" in name]
        assert not [name for name, content in commit.files.items() if b"hf_of_the_author" in content]
        paths = [name for name, content in commit.files.items() if os.fsencode(seen["folder"]) in content]
        assert paths in ([], ["last-checkpoint/trainer_state.json"])
    card = ModelCard(hub.files("author/tuned")["README.md"].decode())
    results = {(r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results or []}
    assert results["validation", "ndcg@10"] == pytest.approx(seen["best"]) and seen["best"] != seen["last"]
    assert results["test", "hr@10"] == pytest.approx(seen["tested"])
    assert card.data.license == "cc-by-4.0" and "films of the author" in card.text
    assert f"step {seen['step']}, the best of" in card.text and "author/tuned" in card.text
    (ours, pulled) = seen["found"]
    assert [name for name, _ in pulled] == [name for name, _ in ours]
    assert [score for _, score in pulled] == pytest.approx([score for _, score in ours])


def test_a_base_of_two_domains_pulled_by_name_starts_a_fine_tuning_on_a_third(
    hub: LoopbackHub, author: Run, reader: Run
) -> None:
    done = author(
        LOG
        + """
domains = []
for name in ("books", "songs"):
    write_domain(name)
    domains.append({"name": name, "sequences": f"{name}/log", "catalog": f"{name}/catalog"})
sizes = {name: value for name, value in CONFIG.items() if not name.endswith("feature_size")}
recipe = {
    "domains": domains, "output_dir": "base", "max_steps": 20, "batch_size": 8, "learning_rate": 0.02,
    "model": sizes | {"num_hidden_layers": 2}, "card": {"license": "mit", "datasets": ["author/books", "songs"]},
}
pathlib.Path("recipe.yaml").write_text(json.dumps(recipe))
assert main(["pretrain", "recipe.yaml"]) == 0
assert main(["push", "base/model", "author/two-domains", "--private"]) == 0
assert main(["push", "base/model", "author/two-domains", "--revision", "v1", "--license", "apache-2.0"]) == 0
assert main(["push", "books/catalog", "author/books", "--license", "cc0-1.0", "--json"]) == 0
assert main(["push", "books/log", "author/books"]) == 1
base = MMM4RecForSequentialRecommendation.from_pretrained("base/model")
torch.save(base.model.state_dict(), "base.pt")
print(pathlib.Path("base.pt").resolve())
"""
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mmm4rec: error: ")]
    assert "books/log holds neither a model" in line
    assert hub.repositories["model", "author/two-domains"].private
    card = ModelCard(hub.files("author/two-domains")["README.md"].decode())
    assert card.data.license == "mit" and card.data.datasets == ["author/books"]
    assert "books (" in card.text and {r.dataset_split for r in card.data.eval_results or []} == {
        "validation of books", "validation of songs",
    }  # fmt: skip
    branch = ModelCard(hub.files("author/two-domains", revision="v1")["README.md"].decode())
    assert branch.data.license == "apache-2.0" and "Licence: apache-2.0" in branch.text
    assert "license: cc0-1.0" in hub.files("author/books", "dataset")["README.md"].decode()
    path = done.stdout.splitlines()[-1]
    assert Path(path).is_file()
    done = reader(
        LOG
        + f"""
write_domain("games")
arguments = ["sequences=games/log", "catalog=games/catalog", "output_dir=tuned", "start_from=author/two-domains",
             "revision=v1", "model.num_hidden_layers=1", "freeze_encoder=true", "training.num_train_epochs=2",
             "training.use_cpu=true", "card.license=apache-2.0"]
assert main(["finetune", *arguments]) == 0
assert main(["push", "tuned/model", "author/games"]) == 0
base = torch.load({path!r}, weights_only=True)
tuned = MMM4RecForSequentialRecommendation.from_pretrained("author/games")
layers = [name for name in base if name.startswith("encoder.layers.0.")]
assert len(layers) > 10
for name in layers:
    assert torch.equal(tuned.model.state_dict()[name], base[name]), name
assert tuned.item_ids == [f"games{{n}}" for n in range(9)] and len(tuned.model.encoder.layers) == 1
print(pipeline("sequential-recommendation", model="author/games")({{"items": ["games1"], "timestamps": [1]}})[0])
"""
    )
    assert "Title games" in done.stdout
    files = hub.files("author/games")
    assert {"catalog/catalog.json", "catalog/items.jsonl", "processor_config.json"} <= files.keys()
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "author/two-domains" and card.data.license == "apache-2.0"
    assert {r.dataset_split for r in card.data.eval_results or []} == {"test", "validation"}
    assert re.search(r"15 users, 105 events", card.text) and "all 9 items" in card.text
