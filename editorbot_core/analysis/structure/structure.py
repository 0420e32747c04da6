"""Structure: for every unit, whether a phrase starts there, its position in the phrase, and its material.

Units are bars, or single beats if the confidence of the grid is low. Positions in a phrase count units from 0, modulo
4. `annotated_structure` is the truth, to label and to evaluate with; `read` and `estimate` infer it from features.
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
        cluster: int64 (n_units,), material of the unit's phrase; phrases with the same number have the same material.
        confidence: How far to trust it, in [0, 1].

    Examples:
        Eight bars, two phrases of four bars with the same material:

        >>> structure = Structure(
        ...     phrase_start=np.array([1, 0, 0, 0, 1, 0, 0, 0], dtype=np.float32),
        ...     phase=np.tile(np.eye(4, dtype=np.float32), (2, 1)),
        ...     cluster=np.zeros(8, dtype=np.int64),
        ...     confidence=1.0,
        ... )
        >>> structure.phase.argmax(axis=1)
        array([0, 1, 2, 3, 0, 1, 2, 3])
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

    Examples:
        A pick-up bar, two phrases A of four bars, and a phrase B of two, at one bar per second:

        >>> from editorbot_core.analysis.beats.annotations import Section
        >>> grid = BeatGrid(np.arange(11.0), np.ones(11, dtype=np.int64), duration=11.0)
        >>> sections = (Section(1.0, 5.0, "A"), Section(5.0, 9.0, "A"), Section(9.0, 11.0, "B"))
        >>> structure = annotated_structure(Annotation("song", grid, sections), grid, Units.bars(grid))
        >>> structure.cluster
        array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
        >>> structure.phase.argmax(axis=1)
        array([3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
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


# Positions in a phrase are counted modulo this.
N_PHASES = 4
