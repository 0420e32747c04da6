"""Pairs of edits, and answers about them by people and programs."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import digest
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.songs.song import Song


def fits(edl: EditDecisionList, song: Song) -> bool:
    """Whether the edit was made on the song's present beats and units."""
    return np.array_equal(edl.units.unit_id, song.units.unit_id) and np.array_equal(edl.grid.times, song.grid.times)


LABELS = (0.0, 0.5, 1.0)
SOURCES = ("person", "bootstrap")
MAX_NAME = 200
_TARGET_SLACK_S = 1e-6


def utc_now() -> str:
    """The present time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_pair(a: EditDecisionList, b: EditDecisionList) -> None:
    if a.track_id != b.track_id:
        raise ParameterError(f"both edits must be of one song; got {a.track_id!r} and {b.track_id!r}")
    if abs(a.target_duration_s - b.target_duration_s) > _TARGET_SLACK_S:
        raise ParameterError(
            f"both edits must have one target; got {a.target_duration_s} s and {b.target_duration_s} s"
        )


def _check_name(value: object, what: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ParameterError(f"{what} must be 1-{MAX_NAME} printable characters; got {value!r:.80}")


@dataclass(frozen=True)
class EditPair:
    """Two edits of one song and one target, to be compared.

    Attributes:
        pair_id: Digest of what is compared, see `EditPair.of`.
        a: One edit.
        b: The other.
        origin: Names of the editors that made them, such as `dp~one_cut`.
    """

    pair_id: str
    a: EditDecisionList
    b: EditDecisionList
    origin: str

    def __post_init__(self) -> None:
        """Check that both sides are of one song and one target."""
        _check_name(self.pair_id, "pair_id")
        _check_name(self.origin, "origin")
        _check_pair(self.a, self.b)

    @classmethod
    def of(cls, a: EditDecisionList, b: EditDecisionList, *, origin: str) -> "EditPair":
        """The pair of `a` and `b`, whose id is the digest of song, target, units and actions."""
        content = [
            a.track_id,
            a.target_duration_s,
            a.units.unit_id.tolist(),
            a.actions.tolist(),
            b.units.unit_id.tolist(),
            b.actions.tolist(),
        ]
        return cls(pair_id=digest(content)[:32], a=a, b=b, origin=origin)


@dataclass(frozen=True)
class Preference:
    """One answer to "which do you prefer?".

    Attributes:
        a: One edit.
        b: The other, of the same song and target.
        label: P(a preferred): 1, 0, or 0.5 for a tie.
        strength: How much better, 0 (no difference) to 3.
        confidence: How sure the rater was, in [0, 1].
        rater: Who answered.
        source: `person` or `bootstrap`.
        answer_id: Idempotency key: storing the same answer again changes nothing.
        created_at: UTC, ISO 8601.
        round: Which round of training and asking the pair belongs to, from 0.
    """

    a: EditDecisionList
    b: EditDecisionList
    label: float
    strength: int
    confidence: float
    rater: str
    source: str
    answer_id: str
    created_at: str
    round: int = 0

    def __post_init__(self) -> None:
        """Check every field, and convert numbers to plain floats and ints."""
        _check_pair(self.a, self.b)
        if isinstance(self.label, bool) or self.label not in LABELS:
            raise ParameterError(f"label must be 1 (a), 0 (b) or 0.5 (tie); got {self.label!r}")
        for name, low, high in (("strength", 0, 3), ("round", 0, 1_000_000)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
                raise ParameterError(f"{name} must be a whole number in [{low}, {high}]; got {value!r}")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.confidence, int | float | np.floating) or not 0.0 <= self.confidence <= 1.0:
            raise ParameterError(f"confidence must be in [0, 1]; got {self.confidence!r}")
        if self.source not in SOURCES:
            raise ParameterError(f"source must be one of {', '.join(SOURCES)}; got {self.source!r}")
        _check_name(self.rater, "rater")
        _check_name(self.answer_id, "answer_id")
        try:
            offset = datetime.fromisoformat(self.created_at).utcoffset()
        except (TypeError, ValueError) as error:
            raise ParameterError(f"created_at must be ISO 8601; got {self.created_at!r}") from error
        if offset != timedelta(0):
            raise ParameterError(f"created_at must be UTC, such as {utc_now()}; got {self.created_at}")
        object.__setattr__(self, "label", float(self.label))
        object.__setattr__(self, "confidence", float(self.confidence))

    @property
    def track_id(self) -> str:
        """The song."""
        return self.a.track_id

    @property
    def is_tie(self) -> bool:
        """Whether neither edit was preferred."""
        return self.label == 0.5

    @property
    def chosen(self) -> EditDecisionList:
        """The edit that was preferred."""
        if self.is_tie:
            raise ParameterError(f"answer {self.answer_id} is a tie: neither edit was chosen")
        return self.a if self.label == 1.0 else self.b

    @property
    def rejected(self) -> EditDecisionList:
        """The edit that was not preferred."""
        return self.b if self.chosen is self.a else self.a

    def swapped(self) -> "Preference":
        """The same answer with the sides exchanged."""
        return replace(self, a=self.b, b=self.a, label=1.0 - self.label)
