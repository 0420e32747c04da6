"""A song, ready to be edited: its features, its units, its structure, and its annotation if there is one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass

import numpy as np

from editorbot_core.analysis.beats.annotations import Annotation
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.structure import Structure


@dataclass(frozen=True, eq=False)
class Song:
    """One song, ready to be edited; compared and hashed by identity.

    Attributes:
        track_id: Content id: the first 16 hexadecimal digits of the file's SHA-256.
        path: Where it was read from, as text (`base.files.path_to_text`).
        sha256: Digest of the file.
        features: 121 features per beat, with the grid.
        units: How beats are grouped into units.
        structure: Estimated structure per unit (never from an annotation).
        annotation: The truth, to label training pairs and to evaluate with; never an input of a model.
    """

    track_id: str
    path: str
    sha256: str
    features: BeatFeatures
    units: Units
    structure: Structure
    annotation: Annotation | None = None

    @property
    def grid(self) -> BeatGrid:
        """The beats: a tracker's, or a person's correction."""
        return self.features.grid

    @property
    def duration(self) -> float:
        """Length of the audio, s."""
        return self.grid.duration

    @property
    def unit_durations(self) -> np.ndarray:
        """Length of every unit, s, float64 (n_units,)."""
        return self.units.durations(self.grid)


def content_digest(*values: object) -> str:
    """Hexadecimal SHA-256 of what dataclasses, arrays, sequences and plain values hold."""
    hasher = hashlib.sha256()

    def add(value: object) -> None:
        if is_dataclass(value):
            add([getattr(value, field.name) for field in fields(value)])
        elif isinstance(value, np.ndarray):
            hasher.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            hasher.update(repr(value).encode() + b"\0")

    add(values)
    return hasher.hexdigest()


def songs_digest(songs: Sequence[Song]) -> str:
    """Digest of all that is learned from the songs: features, beats, units, structure and annotations, not paths."""
    return content_digest(
        *((song.track_id, song.features, song.units, song.structure, song.annotation) for song in songs)
    )
