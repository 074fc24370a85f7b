"""The pictures of a report: told apart by colour, marker and line, so that no one of them is needed alone."""

import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmm4rec_hf.evaluation.verdicts import metric_title
from mmm4rec_hf.extras import how_to_install

from .estimates import Estimate, Panel
from .runs import RANDOM, Points, Run
from .words import GROUP_TITLES, METRIC_UNITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, which people with any form of colour blindness tell apart; their yellow is too faint for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
GREY = "#595959"
DPI = 144
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
    "axes.axisbelow": True,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "figure.facecolor": "white",
    "legend.frameon": False,
}


def require_matplotlib() -> None:
    """
    Raises:
        RuntimeError: If matplotlib is not installed; with the remedy.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"the pictures need matplotlib ({error}); install it: {how_to_install('report')}"
        ) from error


def metrics_figure(panel: Panel, metrics: Sequence[str]) -> bytes:
    """
    Each system's mean and 95% interval, a panel a metric, as a PNG.

    Args:
        panel (`Panel`): Systems on the same targets.
        metrics (`Sequence[str]`): Such as `["hr@10", "ndcg@10"]`.
    """
    names = list(panel.estimates)
    own = {run.name for run in panel.runs}
    with _style():
        figure = _figure(3.1 * len(metrics) + 1.2, 1.5 + 0.36 * len(names))
        row = _row(figure, len(metrics))
        for axes, metric in zip(row, metrics, strict=True):
            values = [panel.estimates[name].get(metric) for name in names]
            reach = max((value.high or value.value for value in values if value is not None), default=0.0) or 1.0
            for place, (name, value) in enumerate(zip(names, values, strict=True)):
                if value is not None:
                    look = (COLOURS[0], "o") if name in own else (GREY, "x" if name == RANDOM else "s")
                    _dot(axes, place, value, *look)
                    axes.text(reach * 1.08, place, f"{value.value:.4f}", va="center", color=look[0])
            _rows(axes, [_shown(name) for name in names], len(names), axes is row[0])
            axes.set_xlim(0, reach * 1.4)
            axes.locator_params(axis="x", nbins=5)
            axes.set_title(metric_title(metric), loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel(METRIC_UNITS[metric.partition("@")[0]])
        _note(figure, "points: means over targets; bars: 95% intervals")
        return _png(figure)


def subgroups_figure(groups: Mapping[str, Mapping[str, Mapping[str, tuple[int, Estimate]]]], metric: str) -> bytes:
    """
    A metric in each group of targets, a panel a grouping, as a PNG.

    Args:
        groups (`Mapping`): By system: what [`subgroup_estimates`] gives.
        metric (`str`): The metric.
    """
    systems = list(groups)
    columns = list(groups[systems[0]])
    most = max(len(groups[systems[0]][column]) for column in columns)
    with _style():
        figure = _figure(3.6 * len(columns) + 0.6, 1.9 + (0.25 + 0.16 * len(systems)) * most)
        for axes, column in zip(_row(figure, len(columns)), columns, strict=True):
            names = list(groups[systems[0]][column])
            for number, system in enumerate(systems):
                offset = 0.5 * (number - (len(systems) - 1) / 2) / max(len(systems), 2)
                for place, name in enumerate(names):
                    look = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                    label = _shown(system) if place == 0 else None
                    _dot(axes, place + offset, groups[system][column][name][1], *look, label=label)
            counts = [groups[systems[0]][column][name][0] for name in names]
            _rows(axes, [f"{name}\n(n = {n:,})" for name, n in zip(names, counts, strict=True)], most)
            axes.set_xlim(left=0)
            axes.locator_params(axis="x", nbins=5)
            axes.set_title(GROUP_TITLES[column], loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel(f"{metric_title(metric)}, {METRIC_UNITS[metric.partition('@')[0]]}")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4))
        _note(figure, "points: means over the n targets of a group; bars: 95% intervals")
        return _png(figure)


def learning_figure(runs: Sequence[Run], metric: str) -> bytes | None:
    """
    Losses and a validation metric over the steps of each run, as a PNG.

    Args:
        runs (`Sequence[Run]`): Of any kind.
        metric (`str`): The validation metric.

    Returns:
        `bytes`, *optional*: `None` where nothing was logged.
    """
    losses, scores = loss_series(runs), metric_series(runs, metric)
    if not losses and not scores:
        return None
    kept = {run.name: run.kept_step for run in runs}
    with _style():
        titles = (
            "loss in nats (lower is better)",
            f"{metric_title(metric)} on the validation split (higher is better)",
        )
        parts = [part for part in zip((losses, scores), titles, strict=True) if part[0]]
        figure = _figure(5 * len(parts), 3.9)
        for axes, (series, title) in zip(_row(figure, len(parts)), parts, strict=True):
            for number, (name, (run, points)) in enumerate(series.items()):
                # Of several runs each has a colour, and its two losses are told apart by their lines.
                colour = list(kept).index(run) if series is losses and len(runs) > 1 else number
                line = int("validation" in name) if series is losses else number
                axes.plot(*zip(*points, strict=True), **_look(colour, line, len(points)), label=name)
                if series is scores:
                    _mark_kept(axes, points, kept[run], len(series) == 1)
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel("steps of the optimizer")
            axes.set_xlim(left=0)
            axes.margins(y=0.12)
            if len(series) > 1:
                axes.legend(loc="best", fontsize=9)
        return _png(figure)


def loss_series(runs: Sequence[Run]) -> dict[str, tuple[str, Points]]:
    """Losses by what they are called in a picture: the run's name, and steps with values."""
    series: dict[str, tuple[str, Points]] = {}
    for run in runs:
        prefix = "" if len(runs) == 1 else f"{_shown(run.name)}: "
        if run.curves.training_loss:
            series[f"{prefix}training"] = (run.name, run.curves.training_loss)
        for domain, metrics in run.curves.validation.items():
            if "loss" in metrics:
                series[f"{prefix}validation {_shown(domain)}".rstrip()] = (run.name, metrics["loss"])
    return series


def metric_series(runs: Sequence[Run], metric: str) -> dict[str, tuple[str, Points]]:
    """A validation metric by what it is called in a picture: the run's name, and steps with values."""
    series: dict[str, tuple[str, Points]] = {}
    for run in runs:
        for domain, metrics in run.curves.validation.items():
            if metric in metrics:
                name = ": ".join(part for part in (_shown(run.name) if len(runs) > 1 else "", _shown(domain)) if part)
                series[name or _shown(run.name)] = (run.name, metrics[metric])
    return series


def _look(colour: int, line: int, points: int) -> dict[str, Any]:
    return {
        "color": COLOURS[colour % len(COLOURS)],
        "linestyle": LINES[line % len(LINES)],
        "marker": MARKERS[colour % len(MARKERS)],
        "markevery": max(1, points // 12),
        "markersize": 5,
    }


def _mark_kept(axes: "Axes", points: Points, kept: int | None, is_named: bool) -> None:
    value = dict(points).get(kept) if kept is not None else None
    if kept is None or value is None:
        return
    axes.plot([kept], [value], marker="o", markersize=13, fillstyle="none", color="black", linestyle="none")
    if is_named:
        axes.annotate("kept", (kept, value), xytext=(0, 10), textcoords="offset points", ha="center")


def _dot(
    axes: "Axes",
    place: float,
    value: Estimate,
    colour: str,
    marker: str,
    label: str | None = None,
) -> None:
    """A mean with its interval on a row."""
    if value.low is not None and value.high is not None:
        axes.plot([value.low, value.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([value.value], [place], marker=marker, color=colour, markersize=6, linestyle="none", label=label)


def _rows(axes: "Axes", names: Sequence[str], most: int, are_named: bool = True) -> None:
    """Names the rows from the top on; with room for `most` of them, so that panels side by side have one scale."""
    axes.set_yticks(range(len(names)), names if are_named else [""] * len(names))
    axes.set_ylim(most - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def _note(figure: "Figure", text: str) -> None:
    figure.supxlabel(text, fontsize=9, color=GREY, x=0.01, ha="left")


def _shown(name: str) -> str:
    """A name as the font can draw it, and not too long."""
    text = "".join(letter if ord(letter) in _drawable() else "?" for letter in name)
    text = text if len(text) <= 32 else f"...{text[-29:]}"
    # A legend leaves out what begins with an underscore.
    return f" {text}" if text.startswith("_") else text


@functools.cache
def _drawable() -> frozenset[int]:
    """Code points that the font has."""
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont(FontProperties(family=[STYLE["font.family"]]))).get_charmap())


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _row(figure: "Figure", count: int) -> "list[Axes]":
    return list(figure.subplots(1, count, squeeze=False)[0])


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    # Without the version and the time of drawing: the same numbers give the same file.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
