"""A song, ready to be edited."""

from dataclasses import dataclass

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
        path: Where it was read from.
        sha256: Digest of the file.
        features: 121 features per beat, with the grid.
        units: How beats are grouped into units.
        structure: Estimated structure per unit (never from an annotation).
        annotation: What is known for certain; for labelling training pairs and for judging, never an input of a model.
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
        """Beats: a tracker's, or as a person corrected them."""
        return self.features.grid

    @property
    def duration(self) -> float:
        """Length of the audio, s."""
        return self.grid.duration

    @property
    def unit_durations(self) -> np.ndarray:
        """Length of every unit, s, float64 (n_units,)."""
        return self.units.durations(self.grid)
