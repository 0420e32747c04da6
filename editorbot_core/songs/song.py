"""A song, ready to be edited: its features, its units, its structure, and its annotation if there is one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from editorbot_core.analysis.beats.annotations import Annotation
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.base.files import digest


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


def features_digest(features: BeatFeatures) -> str:
    """Hexadecimal SHA-256 of the features, their grid and their context."""
    return _digest_of_arrays(features.values, features.grid.times, features.grid.positions, features.context)


def songs_digest(songs: Sequence[Song]) -> str:
    """Digest of all that is learned from the songs: features, beats, units, structure and annotations."""
    return digest(
        [
            [
                song.track_id,
                features_digest(song.features),
                _digest_of_arrays(
                    song.units.unit_id, song.structure.phrase_start, song.structure.phase, song.structure.cluster
                ),
                None
                if song.annotation is None
                else [
                    _digest_of_arrays(song.annotation.grid.times, song.annotation.grid.positions),
                    [[section.start_s, section.end_s, section.label] for section in song.annotation.sections],
                ],
            ]
            for song in songs
        ]
    )


def _digest_of_arrays(*arrays: np.ndarray | None) -> str:
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()
