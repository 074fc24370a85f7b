"""The runs of a study, each once: what has its result in `results/` is not run again, what was stopped goes on.

    python benchmarks/quality/study.py main                  # studies/main.yaml: every variant, data set and seed
    python benchmarks/quality/study.py main --data movies_b --variant mmm4rec --seeds 2
    python benchmarks/quality/study.py main --jobs 2         # two runs at a time, a core each: less time in all

A study is a YAML file: `base`, a recipe of `mmm4rec finetune` for every run; `data`, what changes on each data set;
`variants`, what changes for each; and `pretrainings`, recipes of `mmm4rec pretrain` that variants start from by name
(`start_from: NAME`), or `run: [STUDY, DATA, VARIANT, SEED]`, the model of another run, of which the modules that
`fresh` names start anew. `modality: text` leaves a variant the texts alone. Runs go through the library's own
`finetune` and `pretrain`, and both held-out splits are evaluated at the validation that the recipe keeps.
"""

import argparse
import copy
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from catalogs import WORK, folder_of, one_modality
from probes import time_effect
from run_files import RESULTS, make_run, make_split, write_run
from tqdm.auto import tqdm

from mmm4rec_hf import ItemCatalog, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation.evaluator import Evaluation, evaluate_model
from mmm4rec_hf.plain_yaml import read_yaml
from mmm4rec_hf.training.finetuning import FinetuneRecipe, finetune
from mmm4rec_hf.training.pretraining import PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """One training: a variant of a study on one data set with one seed."""

    study: str
    variant: str
    data: str
    seed: int
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.study}-{self.data}-{self.variant}-{self.seed}"


def load_study(name: str) -> dict[str, Any]:
    """
    A study's file.

    Args:
        name (`str`): `main` for `studies/main.yaml`, or a path.
    """
    path = Path(name) if name.endswith(".yaml") else HERE / "studies" / f"{name}.yaml"
    return {"name": path.stem} | read_yaml(path)


def runs_of(study: Mapping[str, Any]) -> list[Run]:
    """Every run of a study, the first seeds of all variants first."""
    runs = []
    for data, changes in study["data"].items():
        for variant, own in study["variants"].items():
            here, own = dict(changes or {}), dict(own or {})
            usual, seeds = here.pop("seeds", study["seeds"]), own.pop("seeds", None)
            # A number for all data sets, or one for some of them.
            seeds = seeds.get(data, usual) if isinstance(seeds, Mapping) else seeds or usual
            if data in own.pop("only", [data]):
                recipe = merged(merged(study["base"], here), own)
                runs += [Run(study["name"], variant, data, seed, recipe) for seed in range(seeds)]
    return sorted(runs, key=lambda run: run.seed)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        inside = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if inside else copy.deepcopy(value)
    return result


def carry_out(run: Run, study: Mapping[str, Any], results: Path = RESULTS) -> Path:
    """
    Trains and evaluates a run that has no result yet.

    Args:
        run (`Run`): What to do.
        study (`Mapping`): Its study, for the pretrainings that it starts from.
        results (`Path`, *optional*): Where results stand.

    Returns:
        `Path`: The result's file.
    """
    target = results / f"{run.name}.json"
    if target.is_file():
        return target
    folder, output = folder_of(run.data), WORK / "runs" / run.name
    recipe = copy.deepcopy(run.recipe)
    if recipe.get("start_from"):
        recipe["start_from"] = str(pretrained(recipe["start_from"], study))
    recipe["training"]["seed"] = run.seed
    modality = recipe.pop("modality", None)
    items = folder / "catalog" if modality is None else one_modality(folder, modality)
    paths = {"sequences": folder / "sequences", "catalog": items, "output_dir": output}
    recipe |= {name: str(path) for name, path in paths.items()}
    test = finetune(build(FinetuneRecipe, recipe, run.name))
    model = MMM4RecForSequentialRecommendation.from_pretrained(output / "model")
    sequences = SequenceDatasets.load_from_disk(folder / "sequences")
    catalog = ItemCatalog.from_pretrained(items)
    validation = evaluate_model(model, sequences, "validation", catalog=catalog)
    record = json.loads((output / "training.json").read_text())
    rows = sequences.align(model.item_ids)["validation"]
    write_run(
        target,
        make_run(
            run.data,
            run.variant,
            run.recipe,
            {"validation": split_of(validation), "test": split_of(test)},
            seed=run.seed,
            curve=list(curve_of(record)),
            study=run.study,
            parameters=record["parameters"],
            kept=record["kept"],
            time_effect=time_effect(model, rows),
        ),
    )
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return target


def pretrained(name: str, study: Mapping[str, Any]) -> Path:
    """The model folder of a pretraining of the study, trained first if it is not there; all seeds start from it."""
    recipe = copy.deepcopy(dict(study["pretrainings"][name]))
    output = WORK / "pretrainings" / f"{study['name']}-{name}"
    if "run" in recipe:
        model = model_of_run(*recipe["run"])
        return with_fresh(model, recipe["fresh"], output / "model") if "fresh" in recipe else model
    if not (output / "model" / "model.safetensors").is_file():
        for domain in recipe["domains"]:
            folder = folder_of(domain["name"])
            domain |= {"sequences": str(folder / "sequences"), "catalog": str(folder / "catalog")}
        recipe |= {"output_dir": str(output)}
        pretrain(build(PretrainRecipe, recipe, name))
    return output / "model"


def with_fresh(folder: Path, names: Sequence[str], output: Path) -> Path:
    """A copy of a model with some of its modules as at the start of a training."""
    if not (output / "model.safetensors").is_file():
        model = MMM4RecForSequentialRecommendation.from_pretrained(folder)
        torch.manual_seed(0)
        fresh = MMM4RecForSequentialRecommendation(model.config)
        for name in names:
            model.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
        model.save_pretrained(output)
    return output


def domains_of(pretraining: Mapping[str, Any]) -> list[str]:
    """The data sets that a pretraining learns from."""
    return [pretraining["run"][1]] if "run" in pretraining else [domain["name"] for domain in pretraining["domains"]]


def model_of_run(study_name: str, data: str, variant: str, seed: int) -> Path:
    """The model folder of a run of another study, trained first if it is not there."""
    other = load_study(study_name)
    run = next(run for run in runs_of(other) if (run.data, run.variant, run.seed) == (data, variant, seed))
    return trained_model(run, other)


def trained_model(run: Run, study: Mapping[str, Any]) -> Path:
    """The model folder of a run, trained first if it is not there."""
    folder = WORK / "runs" / run.name / "model"
    if not (folder / "model.safetensors").is_file():
        # Its ranks may be there without it.
        (WORK / "results" / f"{run.name}.json").unlink(missing_ok=True)
        carry_out(run, study, WORK / "results")
    return folder


def split_of(evaluation: Evaluation) -> dict[str, Any]:
    """Ranks and loss of an evaluation as results hold them."""
    counts = evaluation.targets.select("above", "level").to_numpy()
    return make_split(counts, float(np.mean(evaluation.targets["loss"].to_numpy())))


def curve_of(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The validations of a training's log."""
    for entry in record["log"]:
        if "eval_loss" in entry:
            metrics = {"loss": entry["eval_loss"]} | {
                name.removeprefix("eval_"): entry[name] for name in ("eval_ndcg@10", "eval_hr@10", "eval_hr@50")
            }
            yield {"step": entry["step"], "epoch": entry["epoch"], "validation": metrics}


def data_of(runs: Sequence[Run], study: Mapping[str, Any]) -> None:
    """Makes the data that runs read, so that none of them has to while another does."""
    for run in runs:
        folder = folder_of(run.data)
        if "modality" in run.recipe:
            one_modality(folder, run.recipe["modality"])
        if run.recipe.get("start_from"):
            for name in domains_of(study["pretrainings"][run.recipe["start_from"]]):
                folder_of(name)


def work_off(work: Sequence[tuple[Callable[..., Path], tuple[Any, ...]]], jobs: int) -> None:
    """Calls functions, `jobs` at a time in processes of their own that share the cores; the first error ends it."""
    if jobs == 1:
        for function, arguments in work:
            print(function(*arguments), flush=True)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        futures = [pool.submit(function, *arguments) for function, arguments in work]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc="Runs", disable=None):
                print(future.result(), flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="+", help="names of studies/*.yaml, or paths")
    parser.add_argument("--data", nargs="+", help="these data sets only")
    parser.add_argument("--variant", nargs="+", help="these variants only")
    parser.add_argument("--seeds", type=int, help="at most so many")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results stand")
    arguments = parser.parse_args()
    for study in map(load_study, arguments.study):
        runs = [
            run
            for run in runs_of(study)
            if (not arguments.data or run.data in arguments.data)
            and (not arguments.variant or run.variant in arguments.variant)
            and (arguments.seeds is None or run.seed < arguments.seeds)
            and not (arguments.results / f"{run.name}.json").is_file()
        ]
        data_of(runs, study)
        bases = dict.fromkeys(run.recipe["start_from"] for run in runs if run.recipe.get("start_from"))
        # Several bases may be made of one run.
        others = dict.fromkeys(tuple(study["pretrainings"][name].get("run", ())) for name in bases)
        work_off([(model_of_run, other) for other in others if other], arguments.jobs)
        work_off([(pretrained, (name, study)) for name in bases], arguments.jobs)
        work_off([(carry_out, (run, study, arguments.results)) for run in runs], arguments.jobs)


if __name__ == "__main__":
    main()
