"""Structure: for every unit, whether a phrase starts there, its place in the phrase, and which material it is.

Units are bars, or single beats where the grid is not trusted. Positions in a phrase count units, modulo 4.
`annotated_structure` is the truth, for labelling and judging; `read` and `estimate` work it out from the audio.
"""

from dataclasses import dataclass

import numpy as np

from editorbot_core.analysis.beats.annotations import Annotation
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.base.errors import ParameterError


@dataclass(frozen=True)
class Structure:
    """Structure per unit.

    Attributes:
        phrase_start: float32 (n_units,), probability that a phrase starts at the unit.
        phase: float32 (n_units, 4), probabilities of the position mod 4 in the phrase; rows sum to 1.
        cluster: int64 (n_units,), material of the phrase the unit belongs to; equal numbers, equal material.
        confidence: How far to trust it, in [0, 1].
    """

    phrase_start: np.ndarray
    phase: np.ndarray
    cluster: np.ndarray
    confidence: float

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        n = len(self.phrase_start)
        if self.phase.shape != (n, N_PHASES) or self.cluster.shape != (n,):
            raise ParameterError(f"structure of {n} units: phase {self.phase.shape}, cluster {self.cluster.shape}")
        if not ((self.phrase_start >= 0) & (self.phrase_start <= 1)).all() or not np.allclose(
            self.phase.sum(1), 1, atol=1e-4
        ):
            raise ParameterError("phrase_start must be in [0, 1] and every row of phase must sum to 1")


def annotated_structure(annotation: Annotation, grid: BeatGrid, units: Units) -> Structure:
    """The true structure of a song on any grid of it.

    A section starts at the unit whose first beat is nearest to it. Units before the first section or after the last
    belong to that section; positions before a section count back from it, so a pick-up bar has phase 3.

    Raises:
        ParameterError: If the annotation has no sections.
    """
    if not annotation.sections:
        raise ParameterError(f"{annotation.track_id}: the annotation has no sections")
    unit_times = grid.times[units.first_beats]
    section_times = np.array([section.start_s for section in annotation.sections])
    start_unit = np.abs(unit_times[:, None] - section_times[None]).argmin(axis=0)
    unit = np.arange(units.n_units)
    section_of_unit = np.maximum(np.searchsorted(start_unit, unit, side="right") - 1, 0)
    labels = list(dict.fromkeys(section.label for section in annotation.sections))
    cluster_of_section = np.array([labels.index(section.label) for section in annotation.sections])
    return Structure(
        phrase_start=np.isin(unit, start_unit).astype(np.float32),
        phase=np.eye(N_PHASES, dtype=np.float32)[(unit - start_unit[section_of_unit]) % N_PHASES],
        cluster=cluster_of_section[section_of_unit].astype(np.int64),
        confidence=1.0,
    )


N_PHASES = 4
