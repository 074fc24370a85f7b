"""What `mmm4rec finetune` prints at its end, of numbers known beforehand."""

import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest
from huggingface_hub.errors import StrictDataclassError

from mmm4rec_hf.cli import main
from mmm4rec_hf.cli.parsing import Parser
from mmm4rec_hf.cli.recipes import add_recipe_arguments, read_recipe, recipe_arguments
from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.modeling import MMM4RecConfig
from mmm4rec_hf.outputs import refuse_other_files
from mmm4rec_hf.training import finetuning
from mmm4rec_hf.training.finetuning import FinetuneRecipe
from mmm4rec_hf.training.saving import MODEL_FILES


def test_each_file_of_a_saved_recommender_is_known_as_its_own_and_no_other(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    assert (folder / "catalog" / "items.jsonl").is_file() and (folder / "processor_config.json").is_file()
    refuse_other_files(folder, MODEL_FILES)
    for name in ("notes.txt", "runs/events", "catalog/thesis.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    with pytest.raises(ValueError, match="would be lost: catalog/thesis.txt, notes.txt, runs/; name another folder"):
        refuse_other_files(folder, MODEL_FILES)


def evaluation_of(above: int) -> Evaluation:
    """Of twenty users, whose targets have so many items above them."""
    users = [f"u{n}" for n in range(20)]
    targets = pl.DataFrame({"user_id": users, "item_id": users, "above": [above] * 20, "level": [1] * 20})
    protocol = {"split": "test", "num_items": 200, "exclude_history": False, "score_padding_item": False}
    counted = {"num_targets": 20, "users_without_target": 0}
    return Evaluation(targets, protocol | counted | {"prepared": {}, "ks": [10]}, {})


def ended(folder: Path, monkeypatch: pytest.MonkeyPatch, own: int, **options: object) -> None:
    """A run whose targets have so many items above them, where popularity has three."""
    evaluation = evaluation_of(own)
    evaluation.save(folder / "evaluation", {"popularity": evaluation_of(3)})
    MMM4RecConfig(text_feature_size=4, image_feature_size=4, **options).save_pretrained(folder / "model")  # type: ignore[arg-type]
    monkeypatch.setattr(finetuning, "finetune", lambda recipe: evaluation)


def printed_command(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("What the log counts says more here"))
    assert lines[place + 1].startswith("  mmm4rec finetune ")
    return shlex.split(lines[place + 1])


def test_what_to_train_next_is_a_command_with_what_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = ["sequences=my sequences", "catalog=discs", "model.hidden_size=16", "model.use_item_bias=false"]
    # What was false is told once, and first what is kept, in its order.
    kept = [*told[:3], "training.num_train_epochs=1"]
    folders = {"run": "run-2", "run-2": "run-3", "run-2024-05-17": "run-2024-05-17-2", "films-2024": "films-2024-2"}
    for folder, following in folders.items():
        ended(tmp_path / folder, monkeypatch, 9)
        assert main(["finetune", *told, f"output_dir={folder}", "training.num_train_epochs=1"]) == 0
        words = printed_command(capsys)
        both = ["model.use_cooccurrence=true", "model.use_item_bias=true"]
        assert words == ["mmm4rec", "finetune", *kept, f"output_dir={following}", *both]
    parser = Parser()
    add_recipe_arguments(parser)
    recipe = read_recipe(FinetuneRecipe, *recipe_arguments(parser.parse_args(words[2:])))
    assert (recipe.sequences, recipe.output_dir) == ("my sequences", "films-2024-2")
    assert recipe.model == {"hidden_size": 16, "use_cooccurrence": True, "use_item_bias": True}


def test_a_recipe_stays_in_the_next_command_and_a_loss_that_does_not_fit_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my recipe.yaml").write_text("sequences: s\ncatalog: c\noutput_dir: run\nmodel: {item_loss: in_batch}\n")
    ended(tmp_path / "run", monkeypatch, 9, item_loss="in_batch", use_item_bias=True)
    assert main(["finetune", "my recipe.yaml"]) == 0
    changes = ["output_dir=run-2", "model.use_cooccurrence=true", "model.item_loss=full"]
    assert printed_command(capsys) == ["mmm4rec", "finetune", "my recipe.yaml", *changes]
    with pytest.raises(StrictDataclassError, match="use_cooccurrence needs item_loss='full'"):
        MMM4RecConfig(use_cooccurrence=True, item_loss="in_batch")


def test_a_run_that_is_better_than_counting_needs_no_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(tmp_path / "run", monkeypatch, 0)
    assert main(["finetune", "sequences=s", "catalog=c", f"output_dir={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert "NDCG@10 is 1.0000" in printed and "mmm4rec finetune" not in printed
