"""The queue of pairs that wait for a listener.

The pipeline asset `edit_pairs` writes one JSON file of schema `editorbot.edit_pairs/1`; the rating page reads it, and
reads it again when it is replaced. Pairs come by descending priority; equal priorities keep the order of the file. A
pair is identified by its content, so that a listener is not asked twice if a later run proposes the same two edits
under another id.
"""

import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import digest
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.preferences.pair_files import read_pairs
from editorbot_core.preferences.preference import EditPair, Preference

_MAX_SHOWN = 1_000


def edit_key(edl: EditDecisionList) -> str:
    """Digest of the content of an edit: song, actions and segments, without scores and model."""
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


class Comparison(NamedTuple):
    """A pair and its `comparison_key`."""

    key: str
    pair: EditPair


class PairQueue:
    """The pairs of one file, and who has answered which; safe to use from several threads.

    Pairs are identified by their `comparison_key`, because the pipeline may reuse a `pair_id` while a page is open.
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
            FormatError: If it exists and cannot be read; the pairs read before stay.
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
        """Number of different comparisons in the file as last read."""
        with self._lock:
            return len(self._waiting)

    def waiting(self, rater: str) -> list[Comparison]:
        """Comparisons that `rater` has neither answered nor skipped, by descending priority."""
        with self._lock:
            return [
                Comparison(key, pair)
                for key, pair in self._waiting.items()
                if (rater, key) not in self._answered and (rater, key) not in self._skipped
            ]

    def show(self, key: str) -> None:
        """Keep a pair that somebody is listening to, so that it can be answered even if the file changes."""
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
        """Do not show the pair to `rater` again while the server runs."""
        with self._lock:
            if key in self._waiting:
                self._skipped.add((rater, key))

    def note_answer(self, preference: Preference) -> None:
        """Count a stored answer; the same answer counts once, and only answers of people count."""
        if preference.source != "person":
            return
        with self._lock:
            if preference.answer_id not in self._answers:
                self._answers[preference.answer_id] = _content(preference)
                self._n_answers[preference.rater] += 1
                self._answered.add((preference.rater, comparison_key(preference.a, preference.b)))

    def knows_answer(self, preference: Preference) -> bool:
        """Whether exactly this answer has been counted.

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
        """Number of answers of one rater, or of all people."""
        with self._lock:
            return self._n_answers[rater] if rater is not None else self._n_answers.total()


def _content(preference: Preference) -> str:
    """Digest of the rater, the comparison and the answer, whichever edit is called a."""
    chosen = "" if preference.is_tie else edit_key(preference.chosen)
    return digest([preference.rater, comparison_key(preference.a, preference.b), chosen, preference.strength])
