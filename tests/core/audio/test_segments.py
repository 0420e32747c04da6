"""A segment is a range of the source with a positive length."""

import pytest

from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError


@pytest.mark.parametrize(
    "arguments",
    [
        {"start_s": 1.0, "end_s": 1.0},
        {"start_s": -0.1, "end_s": 1.0},
        {"start_s": 0.0, "end_s": float("nan")},
        {"start_s": 0.0, "end_s": 1.0, "gain_db": float("inf")},
        {"start_s": 0.0, "end_s": 1.0, "crossfade_ms": -1.0},
        {"start_s": 0.0, "end_s": 1.0, "fade_out_s": 1.5},
    ],
)
def test_impossible_segments_are_refused(arguments):
    with pytest.raises(ParameterError):
        Segment(**arguments)
