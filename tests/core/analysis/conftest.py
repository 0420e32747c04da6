"""Half a minute of steady bars, and bars of random features."""

import numpy as np
import pytest

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.beats.tracking import band_onsets
from editorbot_core.analysis.dsp.frames import analyse_frames
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.context import N_CONTEXT
from editorbot_core.analysis.structure.bars import bar_features
from editorbot_core.analysis.structure.network import StructureExample, StructureNetConfig, structure_targets


@pytest.fixture(scope="module")
def heard(steady_audio):
    """Frames, onsets and grid of half a minute of bars of four at 120 beats per minute."""
    frames = analyse_frames(steady_audio(beat_s=0.5, metre=4, first_s=0.2, duration_s=30.0))
    times = np.arange(0.2, 29.5, 0.5)
    grid = BeatGrid(times, np.arange(len(times)) % 4 + 1, frames.duration_s)
    return frames, band_onsets(frames.mel), grid


def random_bars(n_bars=24, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4 * n_bars, N_FEATURES)).astype(np.float32)
    context = np.abs(rng.normal(size=(4 * n_bars, N_CONTEXT))).astype(np.float32)
    grid = BeatGrid(0.5 * np.arange(4 * n_bars) + 0.1, np.arange(4 * n_bars) % 4 + 1, 2.0 * n_bars + 1.0)
    return values, context, grid


def phrases(form, *, bar_s=2.0, first_s=0.1):
    sections, at = [], first_s
    for label, bars in form:
        sections.append(Section(at, at + bars * bar_s, label))
        at += bars * bar_s
    return tuple(sections)


SMALL = StructureNetConfig(
    width=16, dilations=((1, 2), (1,)), epochs=40, batch_size=4, crop=8, noise=0.1, feature_dropout=0.0
)


def example(seed, *, work=None):
    """Bars whose phrases can be read off the level of every fourth bar."""
    values, context, grid = random_bars(16, seed=seed)
    context[:, -6:] *= 0.01
    context[np.arange(64) // 4 % 4 == 0, -6:] += 3.0
    annotation = Annotation(f"work-{seed}" if work is None else work, grid, phrases([("A", 4), ("B", 4)] * 2))
    units = Units.bars(grid)
    targets = structure_targets(annotation, grid.times[units.first_beats])
    return StructureExample(annotation.track_id, bar_features(values, context, units), targets)
