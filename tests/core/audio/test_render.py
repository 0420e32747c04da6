from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.render import align_joins, count_clicks, join_times, render
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import EditDecisionList

RATE = 22050


def make_noise(duration_s=4.0, *, n_channels=2, seed=0, scale=0.2):
    rng = np.random.default_rng(seed)
    samples = scale * rng.standard_normal((n_channels, int(duration_s * RATE)))
    return AudioClip(samples.astype(np.float32), RATE)


def make_sine(duration_s=4.0, *, hz=220.0, amplitude=0.5):
    t = np.arange(int(duration_s * RATE)) / RATE
    return AudioClip((amplitude * np.sin(2 * np.pi * hz * t)).astype(np.float32)[None], RATE)


def rms(samples):
    return float(np.sqrt(np.mean(np.asarray(samples, dtype=np.float64) ** 2)))


def test_keeping_everything_returns_the_source_bit_for_bit():
    clip = make_noise(6.0001)
    grid = BeatGrid(0.2 + 0.5 * np.arange(11), np.arange(11) % 4 + 1, clip.duration_s)
    edl = EditDecisionList.keep_all(grid)
    np.testing.assert_array_equal(render(clip, edl.segments).samples, clip.samples)
    np.testing.assert_array_equal(render(clip, align_joins(clip, edl.segments)).samples, clip.samples)


def test_segments_that_play_on_return_the_source_bit_for_bit():
    clip = make_noise()
    cuts = [0.0, 0.7000123, 1.30000456, 2.9, clip.duration_s]
    segments = [Segment(a, b) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(render(clip, segments).samples, clip.samples)
    assert align_joins(clip, segments) == tuple(segments)


def test_a_duration_that_was_rounded_elsewhere_still_keeps_every_sample():
    clip = make_noise()
    for error_s in (-5e-5, 5e-5):
        rendered = render(clip, [Segment(0.0, clip.duration_s + error_s)])
        np.testing.assert_array_equal(rendered.samples, clip.samples)


@pytest.mark.parametrize("seed", range(5))
def test_an_edit_is_as_long_as_its_segments(seed):
    clip = make_noise(5.0)
    rng = np.random.default_rng(seed)
    segments = []
    for _ in range(12):
        start, end = np.sort(rng.uniform(0, clip.duration_s, 2))
        segments.append(Segment(float(start), float(end) + 0.01 if end < 4.9 else float(end), crossfade_ms=20.0))
    for version in (segments, align_joins(clip, segments)):
        rendered = render(clip, version)
        assert abs(rendered.n_samples - sum(s.duration_s for s in version) * RATE) <= len(version)
        assert rendered.samples.dtype == np.float32
        assert np.isfinite(rendered.samples).all()


def test_samples_away_from_the_joins_are_those_of_the_source():
    clip = make_noise()
    rendered = render(clip, [Segment(0.0, 1.0), Segment(2.0, 4.0)])
    half = int(0.010 * RATE)
    np.testing.assert_array_equal(rendered.samples[:, : RATE - half], clip.samples[:, : RATE - half])
    np.testing.assert_array_equal(rendered.samples[:, RATE + half :], clip.samples[:, 2 * RATE + half :])
    assert not np.array_equal(rendered.samples[:, RATE - half : RATE], clip.samples[:, RATE - half : RATE])


def test_unrelated_signals_keep_their_power_across_a_join():
    clip = make_noise(20.0, n_channels=1, seed=1)
    segments = [Segment(0.0, 5.0), Segment(10.0, 15.0, crossfade_ms=1000.0)]
    rendered = render(clip, segments).samples[0]
    middle = rendered[int(4.8 * RATE) : int(5.2 * RATE)]
    assert rms(middle) == pytest.approx(rms(rendered[: 4 * RATE]), rel=0.05)


def test_the_same_signal_keeps_its_level_across_a_join():
    clip = make_sine(hz=220.0)
    # A whole number of periods apart: the two sides are the same, equal power would be 3 dB too loud.
    segments = [Segment(0.0, 1.0), Segment(2.0, 3.0, crossfade_ms=100.0)]
    rendered = render(clip, segments).samples
    np.testing.assert_allclose(rendered, clip.samples[:, : 2 * RATE], atol=1e-3)


def test_the_fade_is_shortened_where_there_is_no_material():
    clip = make_noise(2.0)
    # The entry has nothing before it, the exit nothing after it, and the middle segment is shorter than a fade.
    for segments in (
        [Segment(0.5, 1.0), Segment(0.0, 0.5)],
        [Segment(1.0, 2.0), Segment(0.5, 1.0)],
        [Segment(1.0, 2.0), Segment(0.0, 1.0)],
        [Segment(0.0, 0.5), Segment(1.0, 1.004), Segment(0.5, 1.0)],
    ):
        rendered = render(clip, segments)
        assert rendered.n_samples == sum(round(s.end_s * RATE) - round(s.start_s * RATE) for s in segments)
        assert np.isfinite(rendered.samples).all()
        assert rms(rendered.samples) == pytest.approx(rms(clip.samples), rel=0.2)


def test_the_end_of_a_file_and_its_start_meet_without_a_click():
    clip = make_sine(2.0 + 0.25 / 220, hz=220.0)
    segments = [Segment(0.0, clip.duration_s), Segment(0.0, 1.0)]
    assert count_clicks(render(clip, [segments[0], replace(segments[1], crossfade_ms=0.0)]), [clip.duration_s]) == 1
    assert count_clicks(render(clip, segments), [clip.duration_s]) == 0


def test_gain_and_fade_out_are_heard():
    clip = make_sine()
    rendered = render(clip, [Segment(0.0, 4.0, gain_db=-6.0, fade_out_s=1.0)]).samples[0]
    np.testing.assert_allclose(rendered[: 3 * RATE], clip.samples[0, : 3 * RATE] * 10**-0.3, atol=1e-6)
    assert rendered[-1] == 0.0
    levels = [rms(rendered[int(t * RATE) : int((t + 0.1) * RATE)]) for t in np.arange(3.0, 3.95, 0.1)]
    assert (np.diff(levels) < 0).all()


def test_align_joins_finds_the_period_of_a_tone():
    # The entry is a quarter period late.
    clip = make_sine(hz=100.0)
    late = Segment(2.0 + 0.0025, 3.0)
    aligned = align_joins(clip, [Segment(0.0, 1.0), late])
    assert aligned[0] == Segment(0.0, 1.0)
    assert aligned[1].start_s == pytest.approx(2.0, abs=1.5 / RATE)
    assert aligned[1].end_s == late.end_s


def test_align_joins_stays_within_its_range_and_the_source():
    clip = make_noise()
    segments = [Segment(1.0, 2.0), Segment(0.0, 1.5), Segment(0.002, 0.01), Segment(3.0, 4.0)]
    aligned = align_joins(clip, segments, search_ms=12.0)
    for before, after in zip(segments, aligned, strict=True):
        assert abs(after.start_s - before.start_s) <= 0.012 + 1 / RATE
        assert after.start_s >= 0
        assert after.end_s == before.end_s
    assert align_joins(clip, segments, search_ms=0.0) == tuple(segments)
    with pytest.raises(ParameterError, match="search_ms"):
        align_joins(clip, segments, search_ms=-1.0)


def test_short_segments_are_aligned_within_themselves():
    clip = make_noise(1.0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        start = float(rng.choice([0.0, rng.uniform(0.0, 0.9)]))
        segments = (Segment(0.1, 0.3), Segment(start, start + float(rng.uniform(0.0005, 0.01)), fade_out_s=0.0004))
        moved = align_joins(clip, segments)[1]
        assert 0 <= moved.start_s < moved.end_s == segments[1].end_s
        assert moved.duration_s >= 0.49 * segments[1].duration_s


def test_fades_of_neighbouring_joins_do_not_overlap():
    clip = make_sine(hz=110.0)
    segments = [Segment(0.0, 0.5013), Segment(1.0021, 1.0061), Segment(2.0007, 2.0047), Segment(3.0034, 3.5)]
    rendered = render(clip, segments).samples[0]
    # A break would be a step of up to 1; the tone itself takes steps of 0.016, a fade of 2 ms of 0.02.
    assert np.abs(np.diff(rendered)).max() < 0.06


def test_align_joins_leaves_silence_where_it_is():
    clip = AudioClip(np.zeros((2, 3 * RATE), dtype=np.float32), RATE)
    segments = (Segment(0.0, 1.0), Segment(2.0, 3.0))
    assert align_joins(clip, segments) == segments


def test_a_hard_splice_of_a_tone_is_a_click_and_an_unbroken_tone_is_none():
    clip = make_sine(hz=220.0)
    half_period = 0.5 / 220
    hard = [Segment(0.0, 1.0 + half_period / 2), Segment(2.0 + 1.5 * half_period, 3.0, crossfade_ms=0.0)]
    joins = join_times(hard)
    assert count_clicks(render(clip, hard), joins) == 1
    faded = [hard[0], replace(hard[1], crossfade_ms=20.0)]
    assert count_clicks(render(clip, faded), joins) == 0
    assert count_clicks(clip, [0.5, 1.0, 1.5, 3.999999, 0.0, 99.0]) == 0


def test_a_drum_on_the_join_is_no_click():
    rng = np.random.default_rng(0)
    samples = 0.01 * rng.standard_normal(2 * RATE)
    decay = np.exp(-np.arange(RATE) / (0.05 * RATE))
    samples[RATE:] += 0.5 * decay * rng.standard_normal(RATE)
    clip = AudioClip(samples.astype(np.float32)[None], RATE)
    assert count_clicks(clip, [1.0]) == 0
    samples[RATE // 2] += 0.9
    assert count_clicks(AudioClip(samples.astype(np.float32)[None], RATE), [0.5, 1.0]) == 1


def test_join_times_are_where_the_source_does_not_play_on():
    segments = [Segment(0.0, 1.0), Segment(1.0, 2.5), Segment(4.0, 5.0), Segment(4.0, 5.0)]
    np.testing.assert_allclose(join_times(segments), [2.5, 3.5])
    assert len(join_times(segments[:1])) == 0


def test_impossible_segments_are_refused():
    clip = make_noise(2.0)
    with pytest.raises(ParameterError, match="another file"):
        render(clip, [Segment(0.0, 3.0)])
    with pytest.raises(ParameterError, match="at least one"):
        render(clip, [])
    with pytest.raises(ParameterError, match="segment 1 is shorter"):
        render(clip, [Segment(0.0, 1.0), Segment(1.5, 1.5 + 1e-6)])


def test_the_units_of_an_edit_render_in_their_order():
    # Every bar is a constant of its own, so the output says which bar is heard.
    bar = RATE
    samples = np.repeat(np.arange(1, 7, dtype=np.float32) / 10, bar)[None]
    clip = AudioClip(samples, RATE)
    grid = BeatGrid(0.25 * np.arange(24), np.arange(24) % 4 + 1, 6.0)
    actions = np.array([0, 1, 2, 5, 0, 0])
    edl = EditDecisionList.from_unit_actions(actions, grid=grid, units=Units.bars(grid))
    rendered = render(clip, edl.segments).samples[0]
    assert [round(float(rendered[int((i + 0.5) * bar)]) * 10) for i in range(6)] == [1, 3, 3, 5, 4, 6]
