"""Ranges of a source; the renderer plays a list of them in order.

Ranges are half-open, `[start_s, end_s)`, in seconds from the first sample of the source.
"""

from dataclasses import dataclass

import numpy as np

from editorbot_core.base.errors import ParameterError

DEFAULT_CROSSFADE_MS = 20.0


@dataclass(frozen=True)
class Segment:
    """A range of the source, played once.

    Attributes:
        start_s: Start of the range, s from the start of the source; included.
        end_s: End of the range, s from the start of the source; excluded.
        gain_db: Gain over the whole range.
        crossfade_ms: Length of the crossfade into this segment from the one before; unused for the first.
        fade_out_s: Length of a fade to silence at the end of the range, s.

    Examples:
        Ranges include the start and exclude the end, so these two tile the first ten seconds:

        >>> intro, verse = Segment(0.0, 4.0), Segment(4.0, 10.0)
        >>> intro.end_s == verse.start_s, intro.duration_s + verse.duration_s
        (True, 10.0)
        >>> Segment(4.0, 4.0)
        Traceback (most recent call last):
        editorbot_core.base.errors.ParameterError: a segment is a range [start_s, end_s) with start_s < end_s; got ...
    """

    start_s: float
    end_s: float
    gain_db: float = 0.0
    crossfade_ms: float = DEFAULT_CROSSFADE_MS
    fade_out_s: float = 0.0

    def __post_init__(self) -> None:
        """Check that the range has a positive length and that gains and fades are finite."""
        values = (self.start_s, self.end_s, self.gain_db, self.crossfade_ms, self.fade_out_s)
        if not np.isfinite(values).all() or not 0 <= self.start_s < self.end_s:
            raise ParameterError(f"a segment is a range [start_s, end_s) with start_s < end_s; got {self}")
        if self.crossfade_ms < 0 or not 0 <= self.fade_out_s <= self.end_s - self.start_s + 1e-9:
            raise ParameterError(f"crossfade_ms must be >= 0 and fade_out_s within the segment; got {self}")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s
