import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.base.errors import ParameterError


def grid(**changes: object) -> BeatGrid:
    given = {"times": [0.5, 1.0, 1.5, 2.0], "positions": [4, 1, 2, 3], "duration": 2.5, "confidence": 0.7}
    return BeatGrid(**{**given, **changes})


def test_beats_tile_the_whole_file() -> None:
    np.testing.assert_array_equal(grid().bounds, [0.0, 1.0, 1.5, 2.0, 2.5])
    assert grid().n_beats == 4


def test_downbeats_are_at_position_one() -> None:
    np.testing.assert_array_equal(grid().downbeats, [1.0])


def test_tempo_is_of_the_median_beat() -> None:
    assert grid(times=[0.0, 0.5, 1.0, 1.6]).tempo == pytest.approx(120.0)
    assert BeatGrid(np.array([0.0]), np.array([1]), duration=1.0).tempo == 0.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"times": [0.5, 1.0]}, "one position per beat"),
        ({"times": [], "positions": []}, "one position per beat"),
        ({"times": [0.5, 0.5, 1.0, 1.5]}, "strictly increasing"),
        ({"times": [-0.1, 0.5, 1.0, 1.5]}, "non-negative"),
        ({"times": [0.5, 1.0, 1.5, np.nan]}, "finite"),
        ({"times": [500.0, 1_000.0, 1_500.0, 2_000.0]}, "milliseconds"),
        ({"duration": 2.0}, "the clip lasts 2.000 s"),
        ({"positions": [0, 1, 2, 3]}, "count from 1"),
        ({"confidence": 1.5}, "confidence"),
        ({"region_confidence": [0.5, 0.5]}, r"region_confidence must be \(1,\) values"),
        ({"region_confidence": [np.nan]}, "region_confidence"),
        ({"region_confidence": [1.1]}, "region_confidence"),
        ({"confidence": np.nan}, "confidence"),
    ],
)
def test_what_is_no_grid_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ParameterError, match=reason):
        grid(**changes)


@pytest.mark.parametrize(("duration_s", "n_regions"), [(4.0, 1), (14.9, 1), (15.1, 2), (61.0, 6), (66.0, 7)])
def test_regions_tile_the_song(duration_s: float, n_regions: int) -> None:
    grid = BeatGrid([0.5, 1.0], [1, 2], duration=duration_s, confidence=0.7)
    assert len(grid.regions) == n_regions
    assert (grid.regions[0].start_s, grid.regions[-1].end_s) == (0.0, duration_s)
    assert all(one.end_s == other.start_s for one, other in zip(grid.regions[:-1], grid.regions[1:], strict=True))
    assert all(region.confidence == 0.7 for region in grid.regions)


def test_the_metre_is_the_commonest_bar() -> None:
    assert BeatGrid(np.arange(11.0), [3, 1, 2, 3, 1, 2, 1, 2, 3, 1, 2], duration=11.0).metre == 3
    assert BeatGrid(np.arange(3.0), [2, 3, 4], duration=3.0).metre == 4
