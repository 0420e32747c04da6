"""Figures of training and evaluation, as Matplotlib objects without global state."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from editorbot_core.base.files import atomic_path

DPI = 100

# Colours of the last row, which is the editor being judged, and of the others.
_STRONG, _PALE = "#0072b2", "#9ab8c9"


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of that size in inches with one axes, drawn by Agg."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def save_figure(path: Path | str, figure: Figure) -> Path:
    """Write the figure to `path` as PNG in one step; return the path."""
    path = Path(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return path


def quality_figure(per_song: Mapping[str, np.ndarray], intervals: Mapping[str, tuple[float, float, float]]) -> Figure:
    """A bar per editor with its interval, and a dot per song.

    Args:
        per_song: Quality of every song, 0-100, (n_songs,) per editor, in the order of the bars.
        intervals: Mean, lower and upper end per editor.
    """
    figure, axes = _figure(7.0, 0.9 + 0.42 * len(per_song))
    for row, (editor, values) in enumerate(per_song.items()):
        mean, low, high = intervals[editor]
        axes.barh(row, mean, color=_STRONG if row == len(per_song) - 1 else _PALE, height=0.7)
        axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], color="black", capsize=3, linewidth=1)
        axes.plot(values, np.full(len(values), row + 0.28), ".", color="black", alpha=0.35, markersize=3)
        axes.text(101, row, f"{mean:.1f}", va="center")
    axes.set_yticks(range(len(per_song)), list(per_song))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("quality (0-100); bars: mean and 95 % interval over songs, dots: songs")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shares_figure(shares: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """A table of percentages, its cells shaded by value.

    Args:
        shares: Values in [0, 1], (n_rows, n_columns); NaN leaves a cell empty.
        rows: Names of the rows.
        columns: Names of the columns.
        title: Title above the table.
    """
    figure, axes = _figure(2.0 + 0.85 * len(columns), 1.3 + 0.38 * len(rows))
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for i, j in np.argwhere(np.isfinite(shares)):
        colour = "white" if shares[i, j] > 0.6 else "black"
        axes.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=25, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title, fontsize=10)
    return figure


def curves(history: Iterable[Mapping[str, Any]], panels: Mapping[str, Sequence[str]]) -> Figure:
    """Training curves: metrics over steps, a panel per group of names.

    Args:
        history: Records with `step` and `metrics`.
        panels: Title to metric names; names that were never logged are left out.
    """
    records = list(history)
    figure = Figure(figsize=(3.4 * len(panels), 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            points = [(line["step"], line["metrics"][name]) for line in records if name in line["metrics"]]
            if points:
                axes.plot(*zip(*points, strict=True), label=name.rsplit("/", 1)[-1], linewidth=1.2)
        if axes.lines:
            axes.legend(fontsize=7)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
    return figure
