"""What is heard around every beat."""

import numpy as np

from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.beats.tracking import band_onsets
from editorbot_core.analysis.dsp.frames import analyse_frames
from editorbot_core.analysis.features.context import N_CONTEXT, beat_context, split_context


def test_a_chord_sounds_in_its_register():
    time = np.arange(22_050 * 8) / 22_050
    low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) * 0.3 for f in (110.0, 1318.5))
    for samples, register, pitch in ((low, 0, 9), (high, 2, 4)):
        frames = analyse_frames(samples)
        grid = BeatGrid(np.arange(0.5, 7.5, 0.5), np.arange(14) % 4 + 1, 8.0)
        chroma = split_context(beat_context(frames, grid, band_onsets(frames.mel))).chroma
        middle = chroma[4:-4].mean(axis=(0, 1))
        assert np.unravel_index(middle.argmax(), middle.shape) == (register, pitch)


def test_onsets_fall_on_the_first_quarter_of_the_beats(heard):
    frames, onsets, grid = heard
    quarters = split_context(beat_context(frames, grid, onsets)).onsets[2:-2].mean(axis=(0, 2))
    assert quarters.argmax() == 0 and quarters[0] > 2 * quarters[1:].max()


def test_columns_are_finite_and_complete(heard):
    frames, onsets, grid = heard
    context = beat_context(frames, grid, onsets)
    assert context.shape == (grid.n_beats, N_CONTEXT) and np.isfinite(context).all()
    parts = split_context(context)
    rows = [part.reshape(grid.n_beats, -1) for part in parts]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), context)


def test_one_beat_is_enough(heard):
    frames, onsets, _ = heard
    grid = BeatGrid(np.array([3.0]), np.array([1]), frames.duration_s)
    assert np.isfinite(beat_context(frames, grid, onsets)).all()
