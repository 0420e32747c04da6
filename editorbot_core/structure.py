"""Structure: for every unit, whether a phrase starts there, its place in the phrase, and which material it is.

Estimated from the beat features alone by novelty and repetition (Foote 2000; Serra et al. 2014), or taken from an
annotation for labelling and judging.
"""

from dataclasses import dataclass

import numpy as np

from editorbot_core.errors import ParameterError


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
        if self.phase.shape != (n, 4) or self.cluster.shape != (n,):
            raise ParameterError(f"structure of {n} units: phase {self.phase.shape}, cluster {self.cluster.shape}")
        if not ((self.phrase_start >= 0) & (self.phrase_start <= 1)).all() or not np.allclose(
            self.phase.sum(1), 1, atol=1e-4
        ):
            raise ParameterError("phrase_start must be in [0, 1] and every row of phase must sum to 1")
