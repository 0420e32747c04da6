"""Pairs of edits in files: JSON for the rating page, a table for the pipeline.

The pipeline asset `edit_pairs` writes one JSON file of schema `editorbot.edit_pairs/1`; the rating page reads it, and
reads it again when it is replaced.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError
from editorbot_core.base.files import read_json, write_json
from editorbot_core.editing.interchange import edl_from_dict, edl_to_dict
from editorbot_core.preferences.preference import EditPair

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "editorbot.edit_pairs/1"
MAX_PAIRS = 10_000
MAX_BYTES = 512 * 2**20
_KEYS = {"pair_id", "a", "b", "origin", "priority"}


@dataclass(frozen=True)
class QueuedPair:
    """A pair that waits to be rated.

    Attributes:
        pair: The two edits of one song with one target.
        priority: How informative an answer would be; higher is asked first. Finite.
    """

    pair: EditPair
    priority: float = 0.0

    def __post_init__(self) -> None:
        """Check that the pair can be compared: one song, and edits that play different segments."""
        a, b = self.pair.a, self.pair.b
        if not np.isfinite(self.priority):
            raise ParameterError(f"pair {self.pair.pair_id}: priority must be finite; got {self.priority}")
        if (a.track_id, a.source_sha256) != (b.track_id, b.source_sha256):
            raise ParameterError(f"pair {self.pair.pair_id}: both edits must be of one song")
        if a.segments == b.segments:
            raise ParameterError(f"pair {self.pair.pair_id}: the two edits play the same segments")


def pairs_path(home: Path) -> Path:
    """Path of the file through which the pipeline hands pairs to the rating page."""
    return home / "pairs" / "edit_pairs.json"


def write_pairs(path: Path | str, pairs: Sequence[EditPair], *, priorities: Sequence[float] | None = None) -> None:
    """Replace the pairs at `path` in one step.

    Args:
        path: The JSON file; see `pairs_path`.
        pairs: At most 10,000, with distinct ids.
        priorities: One finite number per pair; if None, all are equal and the order of `pairs` counts.

    Raises:
        ParameterError: If there are too many, an id occurs twice, or a pair cannot be compared.
    """
    if priorities is None:
        priorities = [0.0] * len(pairs)
    if len(priorities) != len(pairs) or len(pairs) > MAX_PAIRS:
        raise ParameterError(f"{len(pairs)} pairs and {len(priorities)} priorities; at most {MAX_PAIRS}, one for one")
    queued = [QueuedPair(pair, float(priority)) for pair, priority in zip(pairs, priorities, strict=True)]
    _check_unique(queued)
    write_json(
        path,
        {
            "schema": SCHEMA,
            "pairs": [
                {
                    "pair_id": waiting.pair.pair_id,
                    "origin": waiting.pair.origin,
                    "priority": waiting.priority,
                    "a": edl_to_dict(waiting.pair.a),
                    "b": edl_to_dict(waiting.pair.b),
                }
                for waiting in queued
            ],
        },
        indent=None,
    )


def read_pairs(path: Path | str) -> list[QueuedPair]:
    """The pairs at `path`, in the order of the file.

    Raises:
        FormatError: If the file is missing, too large, damaged, or not of schema `editorbot.edit_pairs/1`.
    """
    document = read_json(path, max_bytes=MAX_BYTES)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or set(document) != {"schema", "pairs"}:
        raise FormatError(f"{path}: not a list of pairs of schema {SCHEMA!r}; run `make run` to write it again")
    rows = document["pairs"]
    if not isinstance(rows, list) or len(rows) > MAX_PAIRS:
        raise FormatError(f"{path}: `pairs` must be a list of at most {MAX_PAIRS}")
    pairs: list[QueuedPair] = []
    for number, row in enumerate(rows):
        try:
            pairs.append(_parse(row))
        except (EditorBotError, TypeError, ValueError, KeyError) as error:
            raise FormatError(f"{path}: pair {number}: {error}") from error
    try:
        _check_unique(pairs)
    except ParameterError as error:
        raise FormatError(f"{path}: {error}") from error
    return pairs


def _parse(row: Any) -> QueuedPair:
    if not isinstance(row, dict) or set(row) != _KEYS:
        raise FormatError(f"expected the keys {', '.join(sorted(_KEYS))}; got {str(row)[:80]}")
    if not isinstance(row["pair_id"], str) or not isinstance(row["origin"], str):
        raise FormatError("pair_id and origin must be text")
    if isinstance(row["priority"], bool) or not isinstance(row["priority"], int | float):
        raise FormatError(f"priority must be a number; got {row['priority']!r}")
    pair = EditPair(pair_id=row["pair_id"], a=edl_from_dict(row["a"]), b=edl_from_dict(row["b"]), origin=row["origin"])
    return QueuedPair(pair, float(row["priority"]))


def _check_unique(pairs: Iterable[QueuedPair]) -> None:
    seen: set[str] = set()
    for waiting in pairs:
        if waiting.pair.pair_id in seen:
            raise ParameterError(f"the pair_id {waiting.pair.pair_id!r} occurs twice")
        seen.add(waiting.pair.pair_id)


def pairs_table(pairs: Sequence[EditPair], part: str) -> "pd.DataFrame":
    """A row per pair, with the two edits as JSON and the part of the song, `train` or `eval`."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "pair_id": pair.pair_id,
                "track_id": pair.a.track_id,
                "part": part,
                "target_duration_s": pair.a.target_duration_s,
                "origin": pair.origin,
                "a": json.dumps(edl_to_dict(pair.a), allow_nan=False),
                "b": json.dumps(edl_to_dict(pair.b), allow_nan=False),
            }
            for pair in pairs
        ]
    )


def pairs_of(table: "pd.DataFrame") -> list[EditPair]:
    """The pairs in a table of `pairs_table`."""
    return [
        EditPair(
            row["pair_id"], edl_from_dict(json.loads(row["a"])), edl_from_dict(json.loads(row["b"])), row["origin"]
        )
        for row in table.to_dict("records")
    ]
