"""An evaluation as files: JSON, CSV, Parquet, text and plots."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from editorbot_core.base.files import atomic_path, write_json, write_text
from editorbot_core.evaluation.evaluate import SUMMARY_COLUMNS, Evaluation
from editorbot_core.evaluation.plots import quality_figure, save_figure, shares_figure


def evaluation_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """All figures of an evaluation by name: `quality`, `profile` (all metrics that are shares) and `wins`."""
    names = list(evaluation.editors)
    per_song = evaluation.per_song("quality")
    wins = np.array([[evaluation.wins(a, b).share if a != b else np.nan for b in names] for a in names])
    shares = [name for name, (heading, _, _) in SUMMARY_COLUMNS.items() if heading.endswith("%")]
    shares.remove("length_error")
    return {
        "quality": quality_figure(
            {name: per_song[name].to_numpy() for name in names}, {name: evaluation.quality(name) for name in names}
        ),
        "profile": shares_figure(
            evaluation.table()[shares].to_numpy(dtype=float).T,
            rows=[name.replace("_", " ") for name in shares],
            columns=names,
            title="share of joins, labels or edits, %",
        ),
        "wins": shares_figure(wins, rows=names, columns=names, title="songs in which the row beats the column, %"),
    }


def write_evaluation(folder: Path | str, evaluation: Evaluation) -> list[Path]:
    """Write `evaluation.json`, `evaluation.csv`, `evaluation.parquet`, `evaluation.txt` and the plots to `folder`.

    Returns:
        The files written.
    """
    folder = Path(folder)
    names = ("evaluation.json", "evaluation.csv", "evaluation.parquet", "evaluation.txt")
    paths = [folder / name for name in names]
    write_json(paths[0], evaluation.as_dict(against=evaluation.editors))
    write_text(paths[1], evaluation.rows.to_csv(index=False))
    with atomic_path(paths[2]) as temporary:
        evaluation.rows.to_parquet(temporary, index=False, write_page_checksum=True)
    write_text(paths[3], evaluation.text() + "\n")
    for name, figure in evaluation_figures(evaluation).items():
        paths.append(save_figure(folder / f"evaluation_{name}.png", figure))
    return paths
