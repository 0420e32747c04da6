"""The 121 features of every beat: names, the container, extraction, Parquet.

Row `i` describes the audio from beat `i` to beat `i + 1`; the last row ends with the audio. The column order is
`FEATURE_NAMES` and never changes silently.
"""

from dataclasses import dataclass

import numpy as np

from editorbot_core.beats import BeatGrid
from editorbot_core.errors import ParameterError

_CHROMA = ("c", "cs", "d", "ds", "e", "f", "fs", "g", "gs", "a", "as", "b")
_SPECTRAL_NAMES = (
    "onset_strength",
    "rms",
    "spectral_centroid",
    "zero_crossing_rate",
    "spectral_rolloff",
    "spectral_bandwidth",
    "spectral_flatness",
    *(f"spectral_contrast_{band}" for band in range(1, 8)),
    *(f"mfcc_{i:02d}" for i in range(1, 14)),
    *(f"mfcc_delta_{i:02d}" for i in range(1, 14)),
    *(f"chroma_{name}" for name in _CHROMA),
)
_GRID_NAMES = ("beat_phase", "beat_phase_sin", "beat_phase_cos", "tempo_deviation", "inter_beat_interval_ratio")
STEM_NAMES = ("drums", "bass", "vocals", "other")
_STEM_FEATURE_NAMES = tuple(f"{stem}_{what}" for stem in STEM_NAMES for what in ("energy", "centroid", "energy_share"))

FEATURE_NAMES: tuple[str, ...] = (
    *_SPECTRAL_NAMES,
    *(f"{name}_diff" for name in _SPECTRAL_NAMES),
    *_GRID_NAMES,
    *_STEM_FEATURE_NAMES,
)
N_FEATURES = len(FEATURE_NAMES)
FEATURE_INDEX: dict[str, int] = {name: i for i, name in enumerate(FEATURE_NAMES)}


@dataclass(frozen=True)
class BeatFeatures:
    """The features of one song.

    Attributes:
        values: float32, shape (n_beats, 121), finite, columns as `FEATURE_NAMES`.
        grid: The beats the rows belong to.
    """

    values: np.ndarray
    grid: BeatGrid

    def __post_init__(self) -> None:
        """Check width, height and that every value is a number."""
        expected = (self.grid.n_beats, N_FEATURES)
        if self.values.shape != expected or self.values.dtype != np.float32:
            raise ParameterError(f"features must be float32 {expected}; got {self.values.dtype} {self.values.shape}")
        bad = ~np.isfinite(self.values)
        if bad.any():
            names = [FEATURE_NAMES[i] for i in np.flatnonzero(bad.any(axis=0))[:5]]
            raise ParameterError(f"features must be finite; {int(bad.sum())} are not, in {', '.join(names)}")

    @property
    def n_beats(self) -> int:
        """Number of beats."""
        return self.grid.n_beats
