"""Who wears the champion alias: the decision, the ledger, and the copy for commands that know no registry."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from assets.registry import Promotion
from assets.runs import append_line, read_lines
from editorbot_core.errors import ParameterError
from editorbot_core.files import sha256_file, write_bytes, write_text

_N_RESAMPLES = 2000


class Gain(NamedTuple):
    """How much better one editor is than another.

    Attributes:
        mean: Mean difference in quality over songs, points of 100.
        probability: Share of resamples of the songs in which it is positive, ties counting half.
        n_songs: Songs compared.
    """

    mean: float
    probability: float
    n_songs: int


def paired_gain(rows: pd.DataFrame, challenger: str, opponent: str, *, seed: int = 0) -> Gain:
    """Paired bootstrap over songs (Efron 1979) of the difference in quality.

    Args:
        rows: An `Evaluation`'s rows: `track_id`, `editor`, `quality`.
        challenger: Name of one editor.
        opponent: Name of the other.
        seed: Of the resampling.

    Raises:
        ParameterError: If one of them was not evaluated.
    """
    per_song = rows.pivot_table(index="track_id", columns="editor", values="quality", aggfunc="mean")
    missing = [name for name in (challenger, opponent) if name not in per_song]
    if missing:
        raise ParameterError(
            f"no editor {missing[0]!r} was evaluated; there are {', '.join(map(str, per_song.columns))}"
        )
    difference = (per_song[challenger] - per_song[opponent]).to_numpy(dtype=float)
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(len(difference), size=(_N_RESAMPLES, len(difference)))].mean(1)
    positive = np.where(np.abs(means) < 1e-9, 0.5, (means > 0).astype(float))
    return Gain(float(difference.mean()), float(positive.mean()), len(difference))


def is_better(gain: Gain, rules: Promotion) -> bool:
    """Whether the gain is enough to promote."""
    return gain.mean > rules.min_quality_gain and gain.probability >= rules.min_gain_probability


def ledger_path(home: Path) -> Path:
    """Every decision about the champion, a line each, never changed."""
    return home / "state" / "champion.jsonl"


def record_decision(home: Path, action: str, **facts: Any) -> None:
    """Add a decision to the ledger: `promoted`, `kept` or `followed` (somebody moved the alias)."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    append_line(ledger_path(home), {"at": now, "action": action, **facts})


def last_champion(home: Path) -> Mapping[str, Any] | None:
    """The last line of the ledger that says who the champion is."""
    lines = read_lines(ledger_path(home))
    return lines[-1] if lines else None


def export_weights(source: Path, target: Path) -> None:
    """Copy weights and their digest to a fixed name, unless they are there already."""
    sha256 = sha256_file(source)
    if target.is_file() and sha256_file(target) == sha256:
        return
    # Without a digest for a moment rather than with that of another file, which would be refused.
    target.with_name(target.name + ".sha256").unlink(missing_ok=True)
    write_bytes(target, source.read_bytes())
    write_text(target.with_name(target.name + ".sha256"), f"{sha256}  {target.name}\n")


def empty_folder(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
