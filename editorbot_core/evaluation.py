"""Evaluation: editors against each other on the same songs and targets.

Every editor edits every song at every target ratio; a row holds the metrics of one edit (`metrics.py` defines them).
Editors are compared song by song, since songs differ more than editors do: `wins` is the share of songs whose mean
quality over the targets is higher, ties counting half, with a bootstrap interval over songs. An editor that raises
fails the evaluation; nothing is left out and nothing is scored 0 instead.

    python -m editorbot_core.evaluation --checkpoint models/policy_best.pt --test_dir ./test_audio/
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from editorbot_core.audio import AudioClip, read_audio
from editorbot_core.baselines import Editor
from editorbot_core.commands import run_command, say
from editorbot_core.errors import AudioError, ParameterError
from editorbot_core.files import atomic_path, write_json, write_text
from editorbot_core.home import corrections_folder, home_folder
from editorbot_core.metrics import edit_metrics
from editorbot_core.opponents import BASELINES
from editorbot_core.plots import quality_figure, save_figure, shares_figure
from editorbot_core.progress import Progress, ProgressBars
from editorbot_core.render import align_joins, render
from editorbot_core.separators import DEFAULT_SEPARATOR, SEPARATORS
from editorbot_core.songs import Song
from editorbot_core.trackers import DEFAULT_TRACKER, TRACKERS

SCHEMA = "editorbot.evaluation/1"
N_BOOTSTRAP = 2000

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


class WinRate(NamedTuple):
    """How often one editor is better than another.

    Attributes:
        share: Share of songs won, ties counting half.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end.
        n_songs: Songs compared.
    """

    share: float
    low: float
    high: float
    n_songs: int


class Interval(NamedTuple):
    """A mean over songs and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        rows: A row per song x ratio x editor: `track_id`, `target_ratio`, `editor` and the fields of `EditMetrics`;
            what does not apply is NaN: a share of joins where there are none, clicks where nothing was rendered.
        editors: Names, in the order given.
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
        difference = (per_song[editor] - per_song[against]).to_numpy()
        won = np.where(np.abs(difference) < 1e-9, 0.5, (difference > 0).astype(float))
        mean, low, high = bootstrap_mean(won, seed=seed)
        return WinRate(mean, low, high, len(won))

    def quality(self, editor: str, *, seed: int = 0) -> Interval:
        """Mean quality of one editor with its bootstrap interval over songs."""
        self._check(editor)
        return bootstrap_mean(self.per_song("quality")[editor].to_numpy(), seed=seed)

    def metrics(self, editor: str, *, prefix: str = "") -> dict[str, float]:
        """The summary of one editor as flat metric names, without those that do not apply to any edit."""
        self._check(editor)
        values = dict(zip(SUMMARY_COLUMNS, self.table().loc[editor].to_numpy(dtype=float), strict=True))
        return {f"{prefix}{name}": float(value) for name, value in values.items() if np.isfinite(value)}

    def text(self) -> str:
        """The summary as a table to print, and which reference the edits were judged by."""
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
    """`value` as JSON holds it: NaN becomes null, NumPy numbers Python numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _cell(value: float, factor: float, decimals: int) -> str:
    return "-" if not np.isfinite(value) else f"{value * factor:.{decimals}f}"


def bootstrap_mean(values: np.ndarray, *, seed: int = 0, n_resamples: int = N_BOOTSTRAP) -> Interval:
    """Mean and 95 % percentile bootstrap interval (Efron 1979) of values (n,), one per song."""
    if len(values) == 0:
        raise ParameterError("a mean needs at least one value")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(n_resamples, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def validate(editors: Mapping[str, Editor], songs: Sequence[Song], ratios: Sequence[float]) -> None:
    """Check that there is something to evaluate and that songs are told apart by their ids."""
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
        rendered: Also render every edit from the song's file, as listeners hear it, and count clicks; slower.
        progress: Called per song.

    Raises:
        ParameterError: If there is nothing to evaluate.
        Exception: Whatever an editor or the renderer raises; a note names the editor and the song.
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
        segments = align_joins(clip, edl.segments)
        edl = replace(edl, segments=segments)
        audio = render(clip, segments)
    return asdict(edit_metrics(edl, song, rendered=audio))


def evaluation_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """All figures of an evaluation by name: `quality`, `profile` (every share an edit is judged by) and `wins`."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m editorbot_core.evaluation",
        description="Judge a policy against the baselines on a folder of songs; print a table, write JSON and plots.",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, type=Path, help="policy or training checkpoint (.pt)")
    add("--test_dir", required=True, type=Path, help="folder with songs, annotations beside them where there are any")
    add("--ratio", type=float, nargs="+", default=[0.5], help="target lengths over song length (default: 0.5)")
    add("--output_dir", type=Path, default=Path("results"), help="where results go (default: results)")
    add("--candidates", type=int, default=1, help="edits sampled per song, the reward model picks one (default: 1)")
    add("--reward_model", type=Path, help="reward model (.pt): picks among --candidates, and guides a search")
    add("--rendered", action="store_true", help="also render every edit and count clicks; slower")
    add("--tracker", choices=TRACKERS, default=DEFAULT_TRACKER, help=f"finds the beats (default: {DEFAULT_TRACKER})")
    stems = f"divides songs into stems; as in training (default: {DEFAULT_SEPARATOR})"
    add("--separator", choices=SEPARATORS, default=DEFAULT_SEPARATOR, help=stems)
    add("--device", default="auto", help="cuda, cuda:N or cpu (default: cuda if there is one, else cpu)")
    add("--n_workers", type=int, default=2, help="processes that analyse songs (default: 2)")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    """The body of the command."""
    # Editors can be evaluated without songs on disk or a policy; only the command needs these.
    from editorbot_core.devices import resolve_device
    from editorbot_core.editors import policy_editor
    from editorbot_core.library import ingest, load_songs
    from editorbot_core.policy_files import load_policy
    from editorbot_core.rewards.learned import load_reward

    if arguments.candidates < 1:
        raise ParameterError(f"--candidates must be at least 1; got {arguments.candidates}")
    if arguments.candidates > 1 and arguments.reward_model is None:
        raise ParameterError("--candidates needs --reward_model FILE, which picks the best of them")
    if not arguments.test_dir.is_dir():
        raise ParameterError(f"--test_dir {arguments.test_dir}: no such folder; name one that holds songs")
    device = resolve_device(arguments.device)
    loaded = load_policy(arguments.checkpoint, device)
    reward = None if arguments.reward_model is None else load_reward(arguments.reward_model, device=device)
    bars = ProgressBars()
    store = home_folder() / "evaluation"
    corrections = corrections_folder(home_folder())
    records = ingest(
        arguments.test_dir,
        store,
        n_processes=arguments.n_workers,
        tracker=arguments.tracker,
        separator=arguments.separator,
        corrections=corrections,
        progress=bars,
    )
    for record in records:
        if record.status != "accepted":
            say(f"left out: {record.path}: {record.reason}")
    songs = load_songs(records, store, corrections=corrections)
    if not songs:
        raise AudioError(f"--test_dir {arguments.test_dir}: none of its {len(records)} files can be used as a song")
    policy = policy_editor(loaded.policy, n_candidates=arguments.candidates, reward=reward, device=device)
    editors = {**BASELINES, "policy": policy}
    if reward is not None:
        editors["guided_search"] = policy_editor(loaded.policy, reward=reward, guided=True, device=device)
    try:
        evaluation = evaluate(editors, songs, ratios=arguments.ratio, rendered=arguments.rendered, progress=bars)
    finally:
        bars.close()
    say(evaluation.text())
    for other in BASELINES:
        share, low, high, _ = evaluation.wins("policy", other)
        say(f"policy better than {other} in {100 * share:.0f} % of songs ({100 * low:.0f}-{100 * high:.0f} %)")
    if reward is not None:
        for other in (*BASELINES, "policy"):
            share, low, high, _ = evaluation.wins("guided_search", other)
            say(f"guided_search better than {other} in {100 * share:.0f} % ({100 * low:.0f}-{100 * high:.0f} %)")
    write_evaluation(arguments.output_dir, evaluation)
    say(f"written to {arguments.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m editorbot_core.evaluation`; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
