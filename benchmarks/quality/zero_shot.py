"""A pretrained base on a shop that it never saw, without any training: its ranks as results of the study.

    python benchmarks/quality/zero_shot.py transfer         # every pretraining of studies/transfer.yaml

The shop's items are given to the base by their features alone; a base with `use_cooccurrence` is told as well what
stood near what in the shop's log, which is counted and not learned. Popularity, which counts too, and likeness of text
stand beside it in the tables.
"""

import argparse
from pathlib import Path

from catalogs import folder_of
from run_files import RESULTS, make_run, write_run
from study import domains_of, load_study, pretrained, split_of

from mmm4rec_hf import ItemCatalog, MMM4RecForSequentialRecommendation, count_near_items
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation.evaluator import evaluate_model


def evaluate_base(base: Path, data: str) -> dict[str, dict[str, object]]:
    """
    Ranks of both splits.

    Args:
        base (`Path`): A base model's folder.
        data (`str`): The data set.
    """
    folder = folder_of(data)
    sequences = SequenceDatasets.load_from_disk(folder / "sequences")
    catalog = ItemCatalog.from_pretrained(folder / "catalog").select(sequences.item_ids)
    model = MMM4RecForSequentialRecommendation.from_pretrained(base, catalog=catalog)
    if model.config.use_cooccurrence:
        count_near_items(model, sequences["train"])
    return {split: split_of(evaluate_model(model, sequences, split)) for split in ("validation", "test")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the name of a study with pretrainings, or a path")
    parser.add_argument("--data", nargs="+", help="data sets, by default those of the study's `zero_shot`")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results stand")
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    for name, recipe in study["pretrainings"].items():
        seen = domains_of(recipe)
        for data in arguments.data or study["zero_shot"]:
            if data in seen:
                continue  # it was seen
            target = arguments.results / f"zero_shot-{data}-{name}.json"
            if not target.is_file():
                splits = evaluate_base(pretrained(name, study), data)
                write_run(target, make_run(data, f"zero-shot {name}", recipe, splits))
            print(target)


if __name__ == "__main__":
    main()
