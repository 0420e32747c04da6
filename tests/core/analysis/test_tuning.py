from pathlib import Path

import pytest

from editorbot_core.analysis.beats.tracking import TrackerConfig
from editorbot_core.analysis.tuning import FACTORS, TrackerTrial, chosen_constants, try_constants
from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.demo.songs import compose_demo_songs


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    compose_demo_songs(folder, n_songs=2, seed=0)
    return folder


def trial(constant: str, value: float, gain: float) -> TrackerTrial:
    return TrackerTrial(constant, value, first=0.8, best=0.9, gain=gain, gain_error=0.01)


def test_only_gains_beyond_chance_change_a_constant() -> None:
    trials = [trial("a", 1.0, 0.019), trial("b", 1.0, 0.03), trial("b", 2.0, 0.05), trial("b", 3.0, 0.04)]
    assert chosen_constants(trials) == {"b": 2.0}
    # Of many values one seems better by chance.
    assert chosen_constants([trial("a", 1.0, 0.02)]) == {"a": 1.0}
    assert chosen_constants([trial("a", 1.0, 0.02), *[trial("b", float(i), 0.0) for i in range(10)]]) == {}
    assert chosen_constants([trial("a", 1.0, -0.5), TrackerTrial("", 0.0, 0.8, 0.9, 0.0, 0.0)]) == {}


def test_a_bad_constant_is_told_from_a_good_one(songs: Path) -> None:
    # Tempos about 300: whatever the songs say, twice the tempo or more is taken.
    bad = TrackerConfig(prior_bpm=300.0, prior_weight=40.0)
    seen: list[tuple[str, int, int]] = []
    trials = try_constants(
        [songs], config=bad, constants=["prior_weight", "prior_bpm"], progress=lambda *at: seen.append(at)
    )
    assert [t.constant for t in trials] == ["", *["prior_weight"] * 4, *["prior_bpm"] * 4]
    assert [t.value for t in trials[5:]] == [300.0 * factor for factor in FACTORS]
    assert all(0 <= t.first <= t.best <= 1 for t in trials)
    as_it_is, slower = trials[0], trials[5]
    assert (as_it_is.gain, as_it_is.gain_error) == (0, 0)
    assert slower.first > as_it_is.first + 0.1
    assert slower.gain == pytest.approx((slower.first + slower.best - as_it_is.first - as_it_is.best) / 2)
    assert seen[-1] == ("try constants", 2, 2)


def test_one_song_is_too_few(tmp_path: Path) -> None:
    compose_demo_songs(tmp_path, n_songs=1, seed=0)
    with pytest.raises(ParameterError, match="at least two songs"):
        try_constants([tmp_path])
