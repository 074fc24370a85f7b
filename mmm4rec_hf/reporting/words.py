"""What a report says in words: metrics, data, split, protocol, training and cost."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import PureWindowsPath
from typing import Any

from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.protocol import preparation
from mmm4rec_hf.evaluation.verdicts import best_name, sentence

from .estimates import DEFAULT_SEED, Estimate, Panel
from .runs import RANDOM, Run

GROUP_TITLES = {
    "history_length": "events in the history",
    "target_popularity": "popularity of the target",
    "target_modalities": "what is known of the target",
}
METRIC_UNITS = {
    "hr": "share of targets (0 to 1)",
    "ndcg": "mean gain (0 to 1)",
    "mrr": "mean 1 / place (0 to 1)",
    "loss": "nats",
}
BASELINE_WORDS = {
    "popularity": "items with the most training events first, the same for everyone",
    "co-occurrence": "items that most often followed the user's last item within 5 steps first",
    "similar text": "items whose text is most like that of the user's last item first, that item itself last unless "
    "users often take one again at once",
    RANDOM: "what shuffling all items reaches on average, by arithmetic",
}
_SPLITS = {
    "leave_one_out": "each user's last event is the test target, the one before it the validation target, and all "
    "before these is for training",
    "temporal": "events from {test_from} on are test targets, those from {valid_from} on validation targets, and all "
    "before these is for training",
}


def without_place(value: Any) -> Any:
    """What a recipe or a record says, but for where on a machine a file lies: a report is given away."""
    if isinstance(value, list):
        return [without_place(entry) for entry in value]
    # Takes both kinds of slashes, as the run may be of another machine.
    path = PureWindowsPath(str(value).removeprefix("file:"))
    if isinstance(value, str) and (path.anchor or path.parts[:1] in (("..",), ("~",))):
        return "/".join(["...", *path.parts[1:][-2:]])
    return value


def interval(estimate: Estimate) -> str:
    """The mean, and its interval on a line below."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f}\n{estimate.low:.4f} to {estimate.high:.4f}"


def headline(panel: Panel, run: Run, metric: str) -> str:
    """A run's result in one or two sentences."""
    assert run.evaluation is not None  # of panels
    cut_off = int(metric.rpartition("@")[2])
    own = panel.estimates[run.name]
    protocol = run.evaluation.protocol
    hits = own.get(f"hr@{cut_off}")
    parts = []
    if hits is not None:
        parts.append(
            f"For {hits.value:.1%} of {len(run.evaluation.targets):,} targets of the {protocol['split']} split the "
            f"item that came next stands among the first {cut_off} of {protocol['num_items']:,} items"
            + (f" (95% interval {hits.low:.1%} to {hits.high:.1%})" if hits.low is not None else "")
            + "."
        )
    best = best_baseline(panel, metric, run)
    if best is not None:
        row = next(row for row in panel.comparisons if (row.system, row.other, row.metric) == (run.name, best, metric))
        value = panel.estimates[best][metric].value
        parts.append(sentence(metric, own[metric].value, f"the best baseline, {best},", value, row._asdict()))
    return " ".join(parts)


def best_baseline(panel: Panel, metric: str, run: Run | None = None) -> str | None:
    """The baseline with the largest metric, of a run's own or of all."""
    names = panel.baselines if run is None else panel.judges.get(run.name, {}).values()
    return best_name({name: panel.estimates[name][metric].value for name in names})


def data_words(run: Run) -> str:
    """What a run was trained on."""
    data = run.record.get("data", {})
    statistics = data.get("statistics", {})
    parts = []
    author = run.recipe.get("card", {}).get("training_data")
    if author:
        parts.append(str(author).rstrip(".") + ".")
    if statistics:
        counts = "{events:,} events of {users:,} users with {items:,} items".format(**statistics)
        when = f", from {data['first_event']} to {data['last_event']}" if data.get("first_event") else ""
        source = data.get("source", [])
        files = ["/".join(PureWindowsPath(without_place(name)).parts[-2:]) for name in source[:3]]
        names = ", ".join(files) + (", ..." if len(source) > 3 else "")
        parts.append(f"{counts}{when}{', out of ' + names if names else ''}.")
        dropped = statistics.get("rows_read", 0) - statistics["events"]
        if dropped > 0:
            parts.append(f"{dropped:,} of {statistics['rows_read']:,} rows of the log were left out.")
    rows = run.record.get("training_rows")
    if rows:
        parts.append("Rows to train on: " + ", ".join(f"{name} {count:,}" for name, count in rows.items()) + ".")
    return " ".join(parts) or "Not noted."


def split_words(evaluation: Evaluation) -> str:
    """How training and test were parted."""
    k_core, split = preparation(evaluation.protocol)
    if k_core is None and split is None:
        return "Not noted."
    if k_core is None:
        parts = ["Which users and items of few events are left out was not noted."]
    else:
        parts = [f"Users and items with fewer than {k_core} events are left out."] if k_core > 1 else []
    if split is None:
        parts.append("How training and test were parted was not noted.")
    else:
        # Our own texts alone are templates: one from a file could print what it likes of the process, at any length.
        known = _Known(evaluation.protocol["prepared"])
        rule = _SPLITS[split].format_map(known) if split in _SPLITS else split
        parts.append(f"Events are in the order of time: {rule}.")
    return " ".join(parts)


def protocol_words(evaluation: Evaluation) -> str:
    """How targets were ranked."""
    protocol = evaluation.protocol
    history = "leave the ranking" if protocol["exclude_history"] else "stay in the ranking"
    parts = [
        f"Each target of the {protocol['split']} split is ranked among all {protocol['num_items']:,} items; items "
        f"that the user had before {history}.",
        "Items with equal scores count by their average over a random order.",
    ]
    if protocol["score_padding_item"]:
        parts.append("The padding item competes, as in the published code.")
    if protocol.get("users_without_target"):
        parts.append(f"{protocol['users_without_target']:,} users have no target and do not count.")
    tied = evaluation.metrics["tied_targets"]
    parts.append(f"{tied:,} of {len(evaluation.targets):,} targets have the same score as another item.")
    return " ".join(parts)


def model_words(run: Run) -> str:
    """What kind of model it is."""
    config = run.config
    if not config:
        return "Not noted."
    layers = config.get("num_hidden_layers", 1)
    parts = [
        f"MMM4Rec with {layers} layer{'s' if layers != 1 else ''} of width {config.get('hidden_size')}, which reads "
        f"the last {config.get('max_sequence_length')} events",
        "times of events are read" if config.get("use_time", True) else "times of events are not read",
        "an item's id adds to its features"
        if config.get("use_item_bias")
        else "items are known by their features alone",
    ]
    if config.get("use_cooccurrence"):
        parts.append("what stood near the last items in the training log adds to the scores")
    made = config.get("feature_encoder") or {}
    encoders = [
        f"{name} features by {without_place(made[name].get('encoder'))}" + _in_brackets(made[name].get("revision"))
        for name in ("text", "image")
        if made.get(name)
    ]
    return "; ".join([*parts, *encoders]) + "."


def training_words(run: Run, training: Mapping[str, Any]) -> str:
    """How a model was trained; `training` is the recipe's section with its defaults."""
    recipe = run.recipe
    if not recipe:
        return "Not noted."
    start = recipe.get("start_from")
    parts = [f"From {'fresh weights' if start is None else f'the pretrained model {without_place(start)}'}"]
    if recipe.get("fresh_projections"):
        parts[0] += ", its layers alone"
    batch = recipe.get("batch_size", training.get("per_device_train_batch_size"))
    rate = recipe.get("learning_rate", training.get("learning_rate"))
    parts.append(f"{recipe.get('optimizer', 'adamw')}, learning rate {rate}, batches of {batch}")
    steps = recipe.get("max_steps") or training.get("max_steps") or 0
    epochs = recipe.get("num_train_epochs") or training.get("num_train_epochs") or 0
    parts.append(f"at most {steps:,} steps" if steps > 0 else f"at most {epochs:g} epochs")
    patience = recipe.get("early_stopping_patience")
    if patience:
        parts.append(f"stopped after {patience} validations without a better one")
    last = max((session.get("last_step", 0) for session in run.record.get("sessions", [])), default=0)
    if run.kept_step and last:
        which = "the last" if run.kept_step == last else f"the best on the validation split of {last:,} steps"
        parts.append(f"the weights kept are those of step {run.kept_step:,}, {which}")
    seed = recipe.get("seed", training.get("seed", DEFAULT_SEED))
    return "; ".join([*parts, f"seed {seed}"]) + "."


def cost_rows(run: Run) -> list[tuple[str, str]]:
    """What a run took, as far as it was noted: names and values."""
    sessions = run.record.get("sessions", [])
    ended = [session for session in sessions if "seconds" in session]
    rows: list[tuple[str, str]] = []
    if ended:
        seconds = sum(session["seconds"] for session in ended)
        steps = sum(session["last_step"] - session["first_step"] for session in ended)
        rows.append(("training, validations among it", duration(seconds) + _stopped(len(sessions) - len(ended))))
        if steps:
            rows.append(("a step, with its share of validations", f"{seconds / steps:.3g} s"))
        rows.append(("steps", f"{steps:,}"))
        for name, title in (("process", "most memory, process"), ("gpu", "most memory, GPU")):
            peaks = [session["peak_memory"][name] for session in ended if name in session.get("peak_memory", {})]
            if peaks:
                rows.append((title, f"{max(peaks) / 1e9:.2f} GB"))
    parameters = run.record.get("parameters")
    if parameters:
        rows.append(("weights", f"{parameters['total']:,}"))
        if parameters["learned"] != parameters["total"]:
            rows.append(("weights that learned", f"{parameters['learned']:,}"))
    saved = run.folder / "model" / "model.safetensors"
    if saved.is_file():
        rows.append(("model on disk, features of items among it", f"{saved.stat().st_size / 1e6:.1f} MB"))
    return rows


def when_and_where(run: Run) -> dict[str, str]:
    """Date, machine and versions of a run's last session."""
    sessions = run.record.get("sessions", [])
    if not sessions:
        return {}
    first, last = sessions[0], sessions[-1]
    began, ended = _minute(first["started"]), _minute(last.get("ended", last["started"]))
    processes = last.get("processes", 1)
    return {
        "Date": f"{began} to {ended} UTC",
        "Machine": last["machine"] + (f", {processes} processes" if processes > 1 else ""),
        "Versions": ", ".join(f"{name} {version}" for name, version in last["versions"].items()),
    }


def duration(seconds: float) -> str:
    """`95 s`, `11.3 min` or `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _stopped(count: int) -> str:
    return f", and {count} session{'s' * (count > 1)} that did not end, of unknown length" if count else ""


def _in_brackets(text: Any) -> str:
    return f" ({text})" if text else ""


def _minute(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M")


class _Known(dict[str, Any]):
    """What is not known stands as a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"
