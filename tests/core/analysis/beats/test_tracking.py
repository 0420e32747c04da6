import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import mir_eval
import numpy as np
import pytest

from editorbot_core.analysis.beats.annotations import find_annotation, load_annotation
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.beats.tracking import grid_hypotheses, grid_of_beats, track_beats
from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import analyse_frames
from editorbot_core.audio.files import find_audio, read_audio


def clicks(times: np.ndarray, accents: np.ndarray, *, duration_s: float) -> np.ndarray:
    """Decaying tones at `times`, louder and higher where `accents`."""
    samples = np.zeros(int(duration_s * SAMPLE_RATE), dtype=np.float32)
    t = np.arange(2_000) / SAMPLE_RATE
    for time, accent in zip(times, accents, strict=True):
        start = round(time * SAMPLE_RATE)
        tone = (0.8 if accent else 0.4) * np.sin(2 * np.pi * (1_500 if accent else 1_000) * t) * np.exp(-70 * t)
        length = min(len(tone), len(samples) - start)
        samples[start : start + length] += tone[:length].astype(np.float32)
    return samples


def click_track(bpm: float, metre: int = 4, *, offset_s: float = 0.3, pickup: int = 0) -> tuple[np.ndarray, BeatGrid]:
    times = np.arange(offset_s, 29.0, 60 / bpm)
    positions = (np.arange(len(times)) - pickup) % metre + 1
    return clicks(times, positions == 1, duration_s=30.0), BeatGrid(times, positions, duration=30.0)


def track(samples: np.ndarray) -> BeatGrid:
    return track_beats(analyse_frames(samples))


@pytest.mark.parametrize("bpm", [66, 90, 120, 150])
@pytest.mark.parametrize("metre", [3, 4])
def test_click_tracks_are_followed(bpm: float, metre: int) -> None:
    samples, truth = click_track(bpm, metre, pickup=2)
    grid = track(samples)
    assert mir_eval.beat.f_measure(truth.times, grid.times) > 0.98
    assert mir_eval.beat.f_measure(truth.downbeats, grid.downbeats) > 0.95
    assert grid.tempo == pytest.approx(bpm, rel=0.015)
    assert grid.confidence > 0.1
    assert grid.duration == 30.0


def test_beats_are_where_the_clicks_are() -> None:
    samples, truth = click_track(100)
    grid = track(samples)
    error = [np.abs(truth.times - time).min() for time in grid.times[1:-1]]
    # A frame is 93 ms long, and a click is heard as soon as it enters one.
    assert np.median(error) < 0.025


def test_a_tempo_that_drifts_is_followed() -> None:
    intervals = 60 / np.linspace(100, 116, 55)
    times = 0.4 + np.concatenate([[0.0], np.cumsum(intervals)])
    truth = times[times < 29.5]
    grid = track(clicks(truth, np.arange(len(truth)) % 4 == 0, duration_s=30.0))
    assert mir_eval.beat.f_measure(truth, grid.times) > 0.95


def test_noise_and_tones_have_no_confidence() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
    noise = (0.1 * rng.standard_normal(len(t))).astype(np.float32)
    assert track(noise).confidence < 0.1
    assert track((0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)).confidence < 0.1


def regions(samples: np.ndarray) -> np.ndarray:
    found = track(samples).regions
    assert found[0].start_s == 0.0
    assert found[-1].end_s == pytest.approx(len(samples) / SAMPLE_RATE)
    assert all(one.end_s == other.start_s for one, other in pairwise(found))
    return np.array([region.confidence for region in found])


@pytest.mark.parametrize("instead", ["noise", "silence"])
def test_regions_are_trusted_only_where_there_is_a_beat(steady_audio: Callable[..., np.ndarray], instead: str) -> None:
    samples = steady_audio(duration_s=63.0)
    whole = regions(samples)
    assert whole.shape == (6,)
    assert ((whole > 0.6) & (whole <= 1.0)).all()
    level = samples.std() if instead == "noise" else 0.0
    hole = slice(20 * SAMPLE_RATE, 40 * SAMPLE_RATE)
    samples[hole] = level * np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE).astype(np.float32)
    holed = regions(samples)
    assert (holed[2:4] < 0.15).all()
    assert (holed[2:4] >= 0.0).all()
    assert (np.delete(holed, (2, 3)) > 0.4).all()


def test_regions_of_noise_are_not_trusted() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(30 * SAMPLE_RATE)
    assert regions(noise.astype(np.float32)).max() < 0.3


def test_beats_from_elsewhere_are_judged_as_the_tracker_judges_its_own(
    steady_audio: Callable[..., np.ndarray],
) -> None:
    frames = analyse_frames(steady_audio(duration_s=30.0))
    own = track_beats(frames)
    again = grid_of_beats(own.times, frames, positions=own.positions).grid
    np.testing.assert_allclose(again.region_confidence, own.region_confidence)
    late = grid_of_beats(own.times + 0.03, frames).grid
    np.testing.assert_array_equal(late.positions, own.positions)
    assert late.confidence == pytest.approx(own.confidence, abs=0.1)
    off_beat = grid_of_beats(own.times[:-1] + 0.25, frames).grid
    assert off_beat.confidence < 0.5 * own.confidence
    shifted = grid_of_beats(own.times, frames, positions=own.positions % 4 + 1).grid
    assert shifted.confidence < 0.1
    assert max(region.confidence for region in shifted.regions) < 0.3


def test_there_are_no_beats_in_silence() -> None:
    samples, truth = click_track(100)
    samples[15 * SAMPLE_RATE :] = 0.0
    grid = track(np.concatenate([np.zeros(5 * SAMPLE_RATE, dtype=np.float32), samples]))
    assert grid.times[0] == pytest.approx(5 + truth.times[0], abs=0.05)
    assert grid.times[-1] == pytest.approx(20.0, abs=0.35)


@pytest.mark.parametrize("duration_s", [4.0, 4.3])
def test_short_and_silent_audio_has_a_grid(duration_s: float) -> None:
    for level in (0.0, 0.1):
        noise = level * np.random.default_rng(0).standard_normal(int(duration_s * SAMPLE_RATE))
        grid = track(noise.astype(np.float32))
        assert grid.n_beats >= 1
        assert grid.times[-1] < duration_s


def test_hypotheses_are_other_readings_of_the_song() -> None:
    samples, _ = click_track(100)
    hypotheses = grid_hypotheses(analyse_frames(samples))
    scores = [hypothesis.score for hypothesis in hypotheses]
    assert scores == sorted(scores, reverse=True)
    assert {hypothesis.level for hypothesis in hypotheses} <= {0.5, 1.0, 1.5, 2.0}
    first = hypotheses[0].grid
    same_beats = [h.grid for h in hypotheses if h.level == 1.0 and h.grid.positions.max() == 4]
    assert len({int(grid.positions[0]) for grid in same_beats}) == 4
    assert all(np.array_equal(grid.times, first.times) for grid in same_beats)
    assert sum(h.grid.confidence > 0 for h in hypotheses) == 1


def test_tracking_repeats_itself() -> None:
    samples, _ = click_track(97, pickup=1)
    one, other = track(samples), track(samples)
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.positions, other.positions)


@pytest.mark.music
@pytest.mark.slow
def test_development_songs_are_followed() -> None:
    folder = os.environ.get("EDITORBOT_MUSIC")
    if not folder:
        pytest.skip("EDITORBOT_MUSIC names no folder of annotated songs")
    beats, bars = [], []
    for path in [path for path in find_audio(folder) if ".band." in path.name]:
        annotation_path = find_annotation(path)
        assert annotation_path is not None
        truth = load_annotation(Path(annotation_path)).grid
        grid = track(read_audio(path, sample_rate=SAMPLE_RATE, mono=True).samples[0])
        trim = mir_eval.beat.trim_beats
        beats.append(mir_eval.beat.f_measure(trim(truth.times), trim(grid.times)))
        bars.append(mir_eval.beat.f_measure(trim(truth.downbeats), trim(grid.downbeats)))
    assert np.mean(beats) > 0.94
    assert np.mean(bars) > 0.88
