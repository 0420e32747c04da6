"""Pairs of edits that wait for a listener, and which of them comes next.

The pipeline asset `edit_pairs` writes one JSON file of schema `editorbot.edit_pairs/1`; the rating page reads it and
notices by itself when it is replaced. Most informative means highest priority; equal priorities keep the order of the
file. A pair is known by what is heard in it, so that a listener is not asked twice although a later run proposes the
same two edits under another name.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from editorbot_core.edits import EditDecisionList
from editorbot_core.errors import EditorBotError, FormatError, ParameterError
from editorbot_core.files import digest, read_json, write_json
from editorbot_core.interchange import edl_from_dict, edl_to_dict
from editorbot_core.preferences import EditPair, Preference

SCHEMA = "editorbot.edit_pairs/1"
MAX_PAIRS = 10_000
MAX_BYTES = 512 * 2**20
_MAX_SHOWN = 1_000
_KEYS = {"pair_id", "a", "b", "origin", "priority"}


@dataclass(frozen=True)
class QueuedPair:
    """A pair that waits.

    Attributes:
        pair: The two edits of one song with one target.
        priority: How informative an answer would be; higher is asked first. Finite.
    """

    pair: EditPair
    priority: float = 0.0

    def __post_init__(self) -> None:
        """Check that the pair can be compared: one song, one target, two edits that sound different."""
        a, b = self.pair.a, self.pair.b
        if not np.isfinite(self.priority):
            raise ParameterError(f"pair {self.pair.pair_id}: priority must be finite; got {self.priority}")
        if (a.track_id, a.source_sha256) != (b.track_id, b.source_sha256):
            raise ParameterError(f"pair {self.pair.pair_id}: both edits must be of one song")
        if a.segments == b.segments:
            raise ParameterError(f"pair {self.pair.pair_id}: the two edits play the same segments")


def pairs_path(home: Path) -> Path:
    """Where the pipeline leaves the pairs and the rating page looks for them."""
    return home / "pairs" / "edit_pairs.json"


def edit_key(edl: EditDecisionList) -> str:
    """Digest of what is decided and heard: song, actions and segments, without scores and authorship."""
    return digest(
        {
            "track_id": edl.track_id,
            "source_sha256": edl.source_sha256,
            "actions": edl.actions.tolist(),
            "segments": [[s.start_s, s.end_s, s.gain_db, s.crossfade_ms, s.fade_out_s] for s in edl.segments],
        }
    )


def comparison_key(a: EditDecisionList, b: EditDecisionList) -> str:
    """Digest of the question `a or b`, the same for `b or a`."""
    return digest(sorted([edit_key(edl), round(edl.target_duration_s, 3)] for edl in (a, b)))


def write_pairs(path: Path | str, pairs: Sequence[EditPair], *, priorities: Sequence[float] | None = None) -> None:
    """Replace the pairs at `path` in one step.

    Args:
        path: The JSON file; see `pairs_path`.
        pairs: At most 10,000, with ids of their own.
        priorities: One finite number per pair; all equal (the order of `pairs` counts) if not given.

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


class Comparison(NamedTuple):
    """A pair and the key it is asked and answered under."""

    key: str
    pair: EditPair


class PairQueue:
    """The pairs of one file, and who has answered which; safe to use from several threads.

    Pairs go by their `comparison_key`: the pipeline may use a `pair_id` again for other edits while a page is open.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._lock = threading.RLock()
        self._version: tuple[int, int, int] | None = None
        self._waiting: dict[str, EditPair] = {}
        self._shown: dict[str, EditPair] = {}
        self._answers: dict[str, str] = {}
        self._n_answers: Counter[str] = Counter()
        self._answered: set[tuple[str, str]] = set()
        self._skipped: set[tuple[str, str]] = set()

    def refresh(self) -> None:
        """Read the file if it has changed.

        Raises:
            FormatError: If it is there and cannot be read; the pairs known before stay.
        """
        with self._lock:
            try:
                status = self._path.stat()
            except FileNotFoundError:
                self._version, self._waiting = None, {}
                return
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            waiting: dict[str, EditPair] = {}
            for queued in sorted(read_pairs(self._path), key=lambda queued: -queued.priority):
                waiting.setdefault(comparison_key(queued.pair.a, queued.pair.b), queued.pair)
            self._waiting, self._version = waiting, version

    def __len__(self) -> int:
        """Different comparisons in the file as last read."""
        with self._lock:
            return len(self._waiting)

    def waiting(self, rater: str) -> list[Comparison]:
        """What `rater` has neither answered nor skipped, most informative first."""
        with self._lock:
            return [
                Comparison(key, pair)
                for key, pair in self._waiting.items()
                if (rater, key) not in self._answered and (rater, key) not in self._skipped
            ]

    def show(self, key: str) -> None:
        """Remember a pair that somebody is listening to, so that it can be answered although the file changes."""
        with self._lock:
            pair = self._waiting.get(key)
            if pair is not None:
                self._shown.pop(key, None)
                self._shown[key] = pair
                while len(self._shown) > _MAX_SHOWN:
                    del self._shown[next(iter(self._shown))]

    def get(self, key: str) -> EditPair | None:
        """The pair under `key`, waiting or shown before; None if it is neither."""
        with self._lock:
            return self._waiting.get(key) or self._shown.get(key)

    def skip(self, rater: str, key: str) -> None:
        """Do not show the pair to `rater` again while this queue lives."""
        with self._lock:
            if key in self._waiting:
                self._skipped.add((rater, key))

    def note_answer(self, preference: Preference) -> None:
        """Remember a stored answer of a person; the same answer twice counts once, other sources do not count."""
        if preference.source != "person":
            return
        with self._lock:
            if preference.answer_id not in self._answers:
                self._answers[preference.answer_id] = _content(preference)
                self._n_answers[preference.rater] += 1
                self._answered.add((preference.rater, comparison_key(preference.a, preference.b)))

    def knows_answer(self, preference: Preference) -> bool:
        """Whether exactly this answer has been noted.

        Raises:
            ParameterError: If the id was used for another answer.
        """
        with self._lock:
            noted = self._answers.get(preference.answer_id)
        if noted is not None and noted != _content(preference):
            raise ParameterError(f"the answer_id {preference.answer_id} belongs to another answer")
        return noted is not None

    def is_answered(self, rater: str, key: str) -> bool:
        """Whether `rater` has answered the pair under `key`."""
        with self._lock:
            return (rater, key) in self._answered

    def n_answers(self, rater: str | None = None) -> int:
        """Answers of one rater, or of all people."""
        with self._lock:
            return self._n_answers[rater] if rater is not None else self._n_answers.total()


def _content(preference: Preference) -> str:
    """Digest of who answered what, whichever edit is called a."""
    chosen = "" if preference.is_tie else edit_key(preference.chosen)
    return digest([preference.rater, comparison_key(preference.a, preference.b), chosen, preference.strength])
