"""Evaluation of editors on the same songs and targets.

Every editor edits every song at every target ratio; a row holds the metrics of one edit (`evaluation.metrics`). Editors
are compared song by song, since songs differ more than editors do: `wins` is the share of songs with the higher mean
quality over the targets, ties counting half, with a bootstrap interval over songs. If an editor raises, the evaluation
fails: no edit is left out or scored 0.

    python -m editorbot_core.evaluation --checkpoint models/policy_best.pt --test_dir ./test_audio/
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import read_audio
from editorbot_core.audio.render import render_edit
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.progress import Progress
from editorbot_core.editing.baselines import Editor
from editorbot_core.evaluation.comparison import Interval, WinRate, bootstrap_mean, win_rate
from editorbot_core.evaluation.metrics import edit_metrics
from editorbot_core.songs.song import Song

SCHEMA = "editorbot.evaluation/1"

# Columns of the summary and how they are printed: heading, factor, decimals.
SUMMARY_COLUMNS: dict[str, tuple[str, float, int]] = {
    "quality": ("quality", 1.0, 1),
    "joins_on_downbeat": ("downbeat %", 100.0, 0),
    "bar_position_continues": ("bar %", 100.0, 0),
    "four_bar_continues": ("4-bar %", 100.0, 0),
    "phrase_both_sides": ("phrase %", 100.0, 0),
    "smoothness": ("smooth %", 100.0, 0),
    "coverage": ("coverage %", 100.0, 0),
    "length_error": ("length err %", 100.0, 1),
    "joins_per_minute": ("joins/min", 1.0, 1),
    "start_kept": ("start %", 100.0, 0),
    "end_kept": ("end %", 100.0, 0),
    "clicks": ("clicks", 1.0, 2),
}


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        rows: A row per song x ratio x editor: `track_id`, `target_ratio`, `editor` and the fields of `EditMetrics`;
            what does not apply is NaN: a share of joins where there are none, clicks where nothing was rendered.
        editors: Names of the editors, in the order given.
    """

    rows: pd.DataFrame
    editors: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Mean of every summary metric per editor, over the edits to which it applies; NaN if there are none."""
        grouped = self.rows.groupby("editor", sort=False)[list(SUMMARY_COLUMNS)].mean()
        return grouped.reindex(list(self.editors))

    def per_song(self, metric: str) -> pd.DataFrame:
        """Mean over the targets, a row per song and a column per editor."""
        return self.rows.pivot_table(index="track_id", columns="editor", values=metric, aggfunc="mean")

    def _check(self, *names: str) -> None:
        unknown = [name for name in names if name not in self.editors]
        if unknown:
            raise ParameterError(f"no editor {unknown[0]!r} was evaluated; there are {', '.join(self.editors)}")

    def wins(self, editor: str, against: str, *, seed: int = 0) -> WinRate:
        """How often `editor` has the higher quality, song by song, with a paired bootstrap interval over songs."""
        self._check(editor, against)
        per_song = self.per_song("quality")
        return win_rate((per_song[editor] - per_song[against]).to_numpy(), seed=seed)

    def quality(self, editor: str, *, seed: int = 0) -> Interval:
        """Mean quality of one editor with its bootstrap interval over songs."""
        self._check(editor)
        return bootstrap_mean(self.per_song("quality")[editor].to_numpy(), seed=seed)

    def metrics(self, editor: str, *, prefix: str = "") -> dict[str, float]:
        """The summary of one editor by metric name, without metrics that apply to none of its edits."""
        self._check(editor)
        values = dict(zip(SUMMARY_COLUMNS, self.table().loc[editor].to_numpy(dtype=float), strict=True))
        return {f"{prefix}{name}": float(value) for name, value in values.items() if np.isfinite(value)}

    def text(self) -> str:
        """The summary as a table to print, with a line about the songs and the reference."""
        table = self.table()
        shown = [name for name in SUMMARY_COLUMNS if table[name].notna().any()]
        heads = [SUMMARY_COLUMNS[name][0] for name in shown]
        body = [
            [_cell(value, *SUMMARY_COLUMNS[name][1:]) for name, value in zip(shown, values, strict=True)]
            for values in table[shown].to_numpy(dtype=float)
        ]
        width = max(len("editor"), *(len(editor) for editor in self.editors))
        widths = [max(len(head), *(len(row[i]) for row in body)) for i, head in enumerate(heads)]
        lines = ["  ".join(["editor".ljust(width), *(h.rjust(w) for h, w in zip(heads, widths, strict=True))])]
        for editor, row in zip(self.editors, body, strict=True):
            lines.append("  ".join([editor.ljust(width), *(c.rjust(w) for c, w in zip(row, widths, strict=True))]))
        n_songs = self.rows["track_id"].nunique()
        ratios = ", ".join(f"{ratio:g}" for ratio in sorted(self.rows["target_ratio"].unique()))
        by = self.rows.groupby("reference")["track_id"].nunique()
        judged = " and ".join(f"{count} by {_REFERENCES[str(name)]}" for name, count in by.items())
        lines.append(f"{n_songs} songs at {ratios} of their length, judged {judged}")
        return "\n".join(lines)

    def as_dict(self, *, against: Sequence[str] = ()) -> dict[str, Any]:
        """The evaluation as plain values: summary, win rates of every editor against each of `against`, and rows."""
        rows = [
            {str(name): _plain(value) for name, value in row.items()} for row in self.rows.to_dict(orient="records")
        ]
        return {
            "schema": SCHEMA,
            "editors": list(self.editors),
            "summary": {
                name: {**self.metrics(name), "quality_interval": list(self.quality(name)[1:])} for name in self.editors
            },
            "wins": {
                name: {other: self.wins(name, other)._asdict() for other in against if other != name}
                for name in self.editors
            },
            "rows": rows,
        }


_REFERENCES = {"annotation": "annotation", "estimated": "estimated beats and structure (no annotation beside them)"}


def _plain(value: Any) -> Any:
    """`value` for JSON: NaN becomes None, NumPy numbers become Python numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _cell(value: float, factor: float, decimals: int) -> str:
    return "-" if not np.isfinite(value) else f"{value * factor:.{decimals}f}"


def validate(editors: Mapping[str, Editor], songs: Sequence[Song], ratios: Sequence[float]) -> None:
    """Check that there is something to evaluate and that songs and ratios are distinct.

    Raises:
        ParameterError: If not.
    """
    if not editors or not songs or not ratios:
        raise ParameterError(f"need editors, songs and ratios; got {len(editors)}, {len(songs)} and {len(ratios)}")
    if any(not np.isfinite(ratio) or not 0 < ratio <= 4 for ratio in ratios):
        raise ParameterError(f"ratios are shares of the song's length, above 0 and at most 4; got {list(ratios)}")
    ids = [song.track_id for song in songs]
    if len(set(ids)) < len(ids) or len(set(ratios)) < len(ratios):
        raise ParameterError("every song and every ratio may be given once")


def evaluate(
    editors: Mapping[str, Editor],
    songs: Sequence[Song],
    *,
    ratios: Sequence[float] = (0.5,),
    rendered: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Let every editor edit every song at every target and measure the edits.

    Args:
        editors: Name to editor.
        songs: Songs, each once.
        ratios: Targets as shares of each song's length.
        rendered: Also render every edit from the song's file and count clicks; slower.
        progress: Called as progress("evaluate", done, total) for every song.

    Raises:
        ParameterError: If there is nothing to evaluate.
        Exception: If an editor or the renderer raises; a note names the editor and the song.
    """
    validate(editors, songs, ratios)
    rows = []
    for done, song in enumerate(songs):
        if progress:
            progress("evaluate", done, len(songs))
        clip = read_audio(song.path) if rendered else None
        for ratio in ratios:
            for name, editor in editors.items():
                try:
                    row = _measure(editor, song, ratio * song.duration, clip)
                except Exception as error:
                    error.add_note(f"editor {name!r}, song {song.track_id}, ratio {ratio}")
                    raise
                rows.append({"track_id": song.track_id, "target_ratio": float(ratio), "editor": name, **row})
    if progress:
        progress("evaluate", len(songs), len(songs))
    frame = pd.DataFrame(rows)
    for name in SUMMARY_COLUMNS:
        frame[name] = frame[name].astype(float)
    return Evaluation(frame.astype({"step_percentile": float}), tuple(editors))


def _measure(editor: Editor, song: Song, target_s: float, clip: AudioClip | None) -> dict[str, Any]:
    edl = editor(song, target_s)
    audio = None
    if clip is not None:
        # Judged as it is heard: joins at the best-matching sample.
        segments, audio = render_edit(clip, edl.segments)
        edl = replace(edl, segments=segments)
    return asdict(edit_metrics(edl, song, rendered=audio))
