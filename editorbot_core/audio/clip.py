"""Audio in memory."""

from dataclasses import dataclass

import numpy as np
import soxr

from editorbot_core.base.errors import ParameterError


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


def resample(clip: AudioClip, sample_rate: int) -> AudioClip:
    """The clip at another rate (soxr, HQ)."""
    if sample_rate <= 0:
        raise ParameterError(f"sample_rate must be positive; got {sample_rate}")
    if sample_rate == clip.sample_rate:
        return clip
    samples = soxr.resample(np.ascontiguousarray(clip.samples.T), clip.sample_rate, sample_rate, quality="HQ")
    return AudioClip(np.ascontiguousarray(samples.reshape(-1, clip.n_channels).T), sample_rate)
