"""Audio in memory.

Samples are float32, shape `(n_channels, n_samples)`, full scale 1; times are seconds from the first sample.
"""

from dataclasses import dataclass

import numpy as np
import soxr

from editorbot_core.base.errors import ParameterError


@dataclass(frozen=True)
class AudioClip:
    """Samples and their rate.

    Attributes:
        samples: float32, shape (n_channels, n_samples). Readers and writers of files refuse values that are not finite.
        sample_rate: Hz.

    Examples:
        Two seconds of stereo silence:

        >>> clip = AudioClip(np.zeros((2, 88_200), dtype=np.float32), sample_rate=44_100)
        >>> clip.n_channels, clip.n_samples, clip.duration_s
        (2, 88200, 2.0)

        Mono has a channel axis, too:

        >>> AudioClip(np.zeros(44_100, dtype=np.float32), sample_rate=44_100)
        Traceback (most recent call last):
        editorbot_core.base.errors.ParameterError: samples must be float32 (n_channels, n_samples); got float32 (44100,)
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
    """The clip at another rate (soxr, HQ).

    Raises:
        ParameterError: If `sample_rate` is not positive.

    Examples:
        >>> clip = AudioClip(np.zeros((2, 88_200), dtype=np.float32), sample_rate=44_100)
        >>> resample(clip, 22_050).samples.shape
        (2, 44100)
    """
    if sample_rate <= 0:
        raise ParameterError(f"sample_rate must be positive; got {sample_rate}")
    if sample_rate == clip.sample_rate:
        return clip
    samples = soxr.resample(np.ascontiguousarray(clip.samples.T), clip.sample_rate, sample_rate, quality="HQ")
    return AudioClip(np.ascontiguousarray(samples.reshape(-1, clip.n_channels).T), sample_rate)
