"""The page of a report and the pictures beside it."""

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from mmm4rec_hf.evaluation.significance import COMPARISON_WORDS, NO_INTERVAL_WORDS, has_width
from mmm4rec_hf.evaluation.verdicts import metric_title, p_value, verdict
from mmm4rec_hf.outputs import replace_file
from mmm4rec_hf.training.finetuning import TRAINING_DEFAULTS

from . import figures, words
from .estimates import Estimate, Panel, families, headline_metrics, make_panels, subgroup_estimates
from .runs import RANDOM, Run, read_runs

TEMPLATE_NAME = "report.html.jinja"
DEFAULT_METRIC = "ndcg@10"
# Systems in the picture of subgroups: more hide each other.
MOST_SYSTEMS = 4


@dataclass
class Picture:
    """
    A picture of the page.

    Args:
        name (`str`): Of its file.
        content (`bytes`): PNG.
        alt (`str`): What it shows, for those who do not see it.
    """

    name: str
    content: bytes
    alt: str

    @property
    def address(self) -> str:
        """`str`: The picture inside the page."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode("ascii")

    @property
    def width(self) -> int:
        """`int`: In the pixels of a page, so that letters are as large as those around it."""
        pixels = int.from_bytes(self.content[16:20], "big")  # of the PNG's header
        return pixels * 96 // figures.DPI


@dataclass
class Table:
    """
    A table of the page; the first column names the row.

    Args:
        header (`list[str]`): Names of columns.
        rows (`list[list[str]]`): Cells.
        note (`str`, *optional*): A line below.
    """

    header: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass
class Section:
    """
    A part of the page.

    Args:
        title (`str`): Its heading.
        paragraphs (`list[str]`): What it says first.
        pictures (`list[Picture]`): Then what it shows.
        tables (`list[Table]`): Then its numbers.
    """

    title: str
    paragraphs: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def write_report(
    folders: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    metric: str = DEFAULT_METRIC,
    title: str | None = None,
) -> list[Path]:
    """
    Writes one page on runs, which needs no other file and no network, and its pictures as PNGs beside it.

    Args:
        folders (`Sequence[str]`): One or more runs, see [`read_run`]. Runs on the same targets are tested against the
            first of them, user by user.
        output (`str` or `os.PathLike`): The page, `.html`.
        metric (`str`, *optional*, defaults to `"ndcg@10"`): What curves, subgroups and the summary show.
        title (`str`, *optional*): Of the page; by default the names of the runs.

    Returns:
        `list[Path]`: What was written, the page first.

    Raises:
        FileNotFoundError, ValueError: As [`read_runs`], or if `output` is no page, or no run has the metric.
        RuntimeError: If matplotlib is not installed.
    """
    target = Path(output)
    if target.suffix not in (".html", ".htm"):
        raise ValueError(f"the report is a page and must end in .html, got {target.name!r}")
    figures.require_matplotlib()
    runs = read_runs(folders)
    panels = make_panels(runs)
    _check_metric(runs, panels, metric)
    sections = [
        *(_results(panel, metric, target.stem, _number(panels, panel)) for panel in panels),
        *_means_alone(runs),
        *(_subgroups(panel, metric, target.stem, _number(panels, panel)) for panel in panels),
        *_learning(runs, metric, target.stem),
        *_cost(runs),
    ]
    page = _render(runs, panels, [section for section in sections if section is not None], metric, title)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = [target]
    for picture in (picture for section in sections if section is not None for picture in section.pictures):
        with replace_file(target.with_name(picture.name)) as partial:
            partial.write_bytes(picture.content)
        written.append(target.with_name(picture.name))
    with replace_file(target) as partial:
        # A name of a folder may hold bytes that are no text.
        partial.write_bytes(page.encode("utf-8", "replace"))
    return written


def _check_metric(runs: Sequence[Run], panels: Sequence[Panel], metric: str) -> None:
    known = {name for panel in panels for name in panel.evaluation.metrics}
    known |= {name for run in runs for metrics in run.curves.validation.values() for name in metrics}
    known |= {name for run in runs for table in run.tables.values() for name in table}
    choices = sorted(name for name in known if name.partition("@")[0] in ("hr", "ndcg", "mrr") and "@" in name)
    lacking = [panel for panel in panels if metric not in panel.evaluation.metrics]
    if (known and metric not in choices) or lacking:
        raise ValueError(f"the runs have no metric {metric!r}; there are {', '.join(choices)}")


def _number(panels: Sequence[Panel], panel: Panel) -> str:
    """Tells files and headings of several panels apart."""
    return "" if len(panels) == 1 else f"-{panels.index(panel) + 1}"


def _results(panel: Panel, metric: str, stem: str, number: str) -> Section:
    shown = headline_metrics(panel.evaluation, metric)
    picture = Picture(
        f"{stem}-metrics{number}.png",
        figures.metrics_figure(panel, shown),
        f"{', '.join(map(metric_title, shown))} of each run and baseline with 95% intervals; the table below "
        "has the same numbers.",
    )
    systems = [values for name, values in panel.estimates.items() if name != RANDOM]
    paragraphs = [
        words.protocol_words(panel.evaluation),
        "A point is the mean over targets, a bar its 95% interval: how far the mean would move with other users of "
        "the same kind. It says nothing of another seed of the training.",
        *_without_interval(values[name] for values in systems for name in shown),
    ]
    section = Section(f"How well it recommends{_of(panel, number)}", paragraphs, [picture])
    names = sorted((name for name in panel.estimates[panel.runs[0].name] if "@" in name), key=_place_of)
    rows = [
        [system, *(words.interval(values[name]) if name in values else "" for name in names)]
        for system, values in panel.estimates.items()
    ]
    there = {RANDOM} & panel.estimates.keys() | {name for judges in panel.judges.values() for name in judges}
    baselines = "; ".join(f"{name}: {text}" for name, text in words.BASELINE_WORDS.items() if name in there)
    header = ["mean (95% interval)", *map(metric_title, names)]
    section.tables.append(Table(header, rows + _family_rows(panel, names), f"{baselines}."))
    section.tables += _comparisons(panel, shown)
    return section


def _without_interval(estimates: Iterable[Estimate]) -> list[str]:
    """A sentence where an interval is missing."""
    return [f"Some numbers stand {NO_INTERVAL_WORDS}."] if any(mean.low is None for mean in estimates) else []


def _place_of(name: str) -> tuple[int, int]:
    """HR before NDCG before MRR, small cut-offs before large ones."""
    kind, _, cut_off = name.partition("@")
    return list(words.METRIC_UNITS).index(kind), int(cut_off)


def _of(panel: Panel, number: str) -> str:
    return f": {', '.join(run.name for run in panel.runs)}" if number else ""


def _family_rows(panel: Panel, names: Sequence[str]) -> list[list[str]]:
    """The mean over seeds, and the smallest and the largest."""
    rows = []
    for members in families(panel.runs):
        row = [f"{len(members)} seeds as {members[0].name}: mean (least to most)"]
        for name in names:
            values = [panel.estimates[run.name][name].value for run in members]
            row.append(words.interval(Estimate(sum(values) / len(values), min(values), max(values))))
        rows.append(row)
    return rows


def _comparisons(panel: Panel, metrics: Sequence[str]) -> list[Table]:
    rows = [
        [
            f"{row.system} less {row.other}",
            metric_title(row.metric),
            f"{row.difference:+.4f}"
            + (f" ({row.low:+.4f} to {row.high:+.4f})" if has_width(row.low, row.high) else ""),
            p_value(row.p_value),
            verdict(row.difference, row.p_value),
        ]
        for row in panel.comparisons
        if row.metric in metrics
    ]
    if not rows:
        return []
    note = (
        f"Paired by user. In brackets the 95% {COMPARISON_WORDS}; the words go by p. Each row is a test by itself: of "
        "twenty such rows one falls below 0.05 by chance."
    )
    return [Table(["difference", "metric", "mean (95% interval)", "p", "in words"], rows, note)]


def _means_alone(runs: Sequence[Run]) -> list[Section]:
    """Metrics of runs of which no ranks were kept, so that there are no intervals."""
    sections = []
    for run in runs:
        if run.evaluation is not None or not run.tables:
            continue
        names = list(dict.fromkeys(name for values in run.tables.values() for name in values if "@" in name))
        names = [name for name in names if name.partition("@")[0] in ("hr", "ndcg", "mrr")]
        rows = [
            [title, *(f"{values[name]:.4f}" if name in values else "" for name in names)]
            for title, values in run.tables.items()
        ]
        paragraphs = ["Means alone: the ranks of single users were not kept, so there are no intervals and no tests."]
        table = Table(["", *map(metric_title, names)], rows)
        sections.append(Section(f"What was measured: {run.name}", paragraphs, tables=[table]))
    return sections


def _subgroups(panel: Panel, metric: str, stem: str, number: str) -> Section | None:
    evaluations = {run.name: run.evaluation for run in panel.runs[: MOST_SYSTEMS - 1] if run.evaluation is not None}
    best = words.best_baseline(panel, metric)
    if best is not None:
        evaluations[best] = panel.baselines[best]
    groups = {name: subgroup_estimates(evaluation, metric) for name, evaluation in evaluations.items()}
    # A grouping in which all targets are alike says nothing.
    columns = [column for column, counted in next(iter(groups.values()), {}).items() if len(counted) > 1]
    if not columns:
        return None
    groups = {name: {column: found[column] for column in columns} for name, found in groups.items()}
    title = metric_title(metric)
    kinds = ", ".join(words.GROUP_TITLES[name] for name in next(iter(groups.values())))
    picture = Picture(
        f"{stem}-subgroups{number}.png",
        figures.subgroups_figure(groups, metric),
        f"{title} with 95% intervals by {kinds}; the tables below have the same numbers.",
    )
    paragraphs = [
        "The targets in groups, n of them each. Head: the most popular items, as few as make half of the training "
        "events; tail: the others that training showed; cold: items that it never showed. Few targets give wide "
        "intervals.",
        *_without_interval(
            mean for found in groups.values() for column in columns for _, mean in found[column].values()
        ),
    ]
    left_out = len(panel.runs) - (MOST_SYSTEMS - 1)
    if left_out > 0:
        paragraphs.append(f"The first {MOST_SYSTEMS - 1} runs are shown; {left_out} more are not.")
    section = Section(f"For whom it works{_of(panel, number)}", paragraphs, [picture])
    for column, counted in next(iter(groups.values())).items():
        rows = [
            [name, f"{count:,}", *(words.interval(groups[system][column][name][1]) for system in groups)]
            for name, (count, _) in counted.items()
        ]
        header = [words.GROUP_TITLES[column], "targets", *(f"{title}, {system}" for system in groups)]
        section.tables.append(Table(header, rows))
    return section


def _learning(runs: Sequence[Run], metric: str, stem: str) -> list[Section]:
    sections = []
    for kind in dict.fromkeys(run.kind for run in runs):
        # Losses of a pretraining are over a batch, those of a fine-tuning over all items.
        alike = [run for run in runs if run.kind == kind]
        content = figures.learning_figure(alike, metric)
        if content is None:
            continue
        number = "" if len({run.kind for run in runs}) == 1 else f"-{kind}"
        picture = Picture(
            f"{stem}-learning{number}.png",
            content,
            f"Loss and validation {metric_title(metric)} over the steps of the optimizer.",
        )
        over = "the other targets of a batch" if kind == "pretraining" else "all items, unless a recipe says otherwise"
        paragraphs = [
            f"The loss is the cross entropy of the item that came next over {over}, in nats; in training with "
            "dropout, which makes it larger. The circle is the step whose weights were kept.",
        ]
        sections.append(Section(f"How it learned{'' if not number else ': ' + kind}", paragraphs, [picture]))
    return sections


def _cost(runs: Sequence[Run]) -> list[Section]:
    costs = {run.name: dict(words.cost_rows(run)) for run in runs}
    costs = {name: rows for name, rows in costs.items() if rows}
    if not costs:
        return []
    names = list(dict.fromkeys(name for rows in costs.values() for name in rows))
    table = Table(["", *costs], [[name, *(rows.get(name, "not noted") for rows in costs.values())] for name in names])
    # The size of a model is known of a run without a record, too.
    machines = [
        f"{run.name}: {words.when_and_where(run).get('Machine', 'the machine was not noted')}."
        for run in runs
        if run.name in costs
    ]
    return [Section("What it cost", machines, tables=[table])]


def _facts(run: Run) -> list[tuple[str, str]]:
    """How a run was made, in words."""
    facts = [("Kind", run.kind)]
    if run.kind != "evaluation":
        training = (TRAINING_DEFAULTS if run.kind == "fine-tuning" else {}) | run.recipe.get("training", {})
        facts += [("Data", words.data_words(run)), ("Model", words.model_words(run))]
        facts += [("Training", words.training_words(run, training))]
    if run.evaluation is not None:
        facts += [("Split", words.split_words(run.evaluation)), ("Protocol", words.protocol_words(run.evaluation))]
    return facts + list(words.when_and_where(run).items())


def _render(
    runs: Sequence[Run], panels: Sequence[Panel], sections: Sequence[Section], metric: str, title: str | None
) -> str:
    from mmm4rec_hf import __version__

    summary = [
        (run.name, words.headline(panel, run, metric), run is panel.runs[0]) for panel in panels for run in panel.runs
    ]
    context: dict[str, Any] = {
        "title": title or f"Report on {', '.join(run.name for run in runs)}",
        "written": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
        "summary": [(name, text) for name, text, _ in summary],
        "sections": sections,
        "runs": [(run.name, _facts(run), list(_flat(run.recipe))) for run in runs],
        "has_chance": any(RANDOM in panel.estimates for panel in panels),
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = resources.files(__package__).joinpath(TEMPLATE_NAME).read_text(encoding="utf-8")
    return environment.from_string(text).render(context)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A recipe as the `key=value` lines that a command line takes."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for place, entry in enumerate(value):
                lines += _flat(entry, f"{prefix}{name}.{place}.")
        elif value not in (None, [], {}):
            lines.append((prefix + name, str(words.without_place(value))))
    return lines
