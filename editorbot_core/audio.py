"""Audio in memory, and the one door through which audio files come in and go out.

Samples are float32 in (-1, 1) nominally, shape `(n_channels, n_samples)`; times are seconds from the first sample.
"""

from dataclasses import dataclass

import numpy as np

from editorbot_core.errors import ParameterError


@dataclass(frozen=True)
class AudioClip:
    """Samples and their rate.

    Attributes:
        samples: float32, shape (n_channels, n_samples), finite.
        sample_rate: Hz.
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        """Check shape, type and rate."""
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ParameterError(
                f"samples must be float32 (n_channels, n_samples); got {self.samples.dtype} {self.samples.shape}"
            )
        if self.sample_rate <= 0:
            raise ParameterError(f"sample_rate must be positive; got {self.sample_rate}")

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.samples.shape[0]

    @property
    def n_samples(self) -> int:
        """Samples per channel."""
        return self.samples.shape[1]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate
