"""The choice of trackers. beat_this itself is not installed here: what stands in for it shows only that times and
downbeats that it returns become a grid.
"""

import sys
import types
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editorbot_core.analysis.beats import trackers
from editorbot_core.analysis.beats.trackers import find_beats, needs_samples, tracker_version
from editorbot_core.analysis.beats.tracking import TRACKER, track_beats
from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameFeatures, analyse_frames
from editorbot_core.base.errors import AudioError, ParameterError

BEATS = 0.3 + 0.5 * np.arange(39)


@pytest.fixture(scope="module")
def samples(steady_audio: Callable[..., np.ndarray]) -> np.ndarray:
    return steady_audio(first_s=0.3)


@pytest.fixture(scope="module")
def frames(samples: np.ndarray) -> FrameFeatures:
    return analyse_frames(samples)


def test_the_default_is_the_own_tracker(frames: FrameFeatures) -> None:
    found = find_beats("semi-markov", frames)
    np.testing.assert_array_equal(found.times, track_beats(frames).times)
    assert tracker_version("semi-markov") == TRACKER
    assert not needs_samples("semi-markov")


@pytest.mark.slow
def test_librosa_finds_beats_and_the_own_evidence_bars(frames: FrameFeatures) -> None:
    found = find_beats("librosa", frames)
    assert found.tempo == pytest.approx(120, rel=0.03)
    assert np.median([np.abs(BEATS - time).min() for time in found.times]) < 0.05
    assert np.median([np.abs(BEATS[::4] - time).min() for time in found.downbeats]) < 0.05
    assert 0.1 < found.confidence <= 1
    assert found.region_confidence is not None
    assert tracker_version("librosa").startswith("librosa-")


def test_unknown_and_missing_trackers_say_what_to_do(monkeypatch: pytest.MonkeyPatch, frames: FrameFeatures) -> None:
    with pytest.raises(ParameterError, match="one of semi-markov, librosa, beat_this, got 'madmom'"):
        find_beats("madmom", frames)

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("editorbot_core.analysis.names.version", missing)
    with pytest.raises(ParameterError, match="pip install librosa"):
        find_beats("librosa", frames)
    with pytest.raises(ParameterError, match="CPJKU/beat_this"):
        tracker_version("beat_this")


@pytest.fixture
def beat_this(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Stands in for the package: its `Audio2Beats` returns what `answer` holds."""
    package, inference = types.ModuleType("beat_this"), types.ModuleType("beat_this.inference")
    stand_in = types.SimpleNamespace(answer=(BEATS, BEATS[2::4]), made=[], heard=[])

    class Audio2Beats:
        def __init__(
            self, checkpoint_path: str = "final0", device: str = "cpu", float16: bool = False, dbn: bool = False
        ):
            stand_in.made.append((checkpoint_path, device, dbn))

        def __call__(self, signal: np.ndarray, sr: int) -> tuple[np.ndarray, np.ndarray]:
            stand_in.heard.append((len(signal), sr))
            return stand_in.answer

    inference.Audio2Beats = Audio2Beats  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "beat_this", package)
    monkeypatch.setitem(sys.modules, "beat_this.inference", inference)
    monkeypatch.setattr("editorbot_core.analysis.names.version", lambda name: "1.1.0")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    stand_in.weights = tmp_path / "checkpoints" / "beat_this-final0.ckpt"
    trackers._beat_this_model.cache_clear()
    yield stand_in
    trackers._beat_this_model.cache_clear()


def test_beat_this_is_asked_for_beats_and_downbeats(beat_this: Any, frames: FrameFeatures, samples: np.ndarray) -> None:
    assert tracker_version("beat_this") == "beat_this-1.1.0-final0"
    assert needs_samples("beat_this")
    with pytest.raises(ParameterError, match="needs its weights at"):
        find_beats("beat_this", frames, samples)
    beat_this.weights.parent.mkdir()
    beat_this.weights.touch()
    found = find_beats("beat_this", frames, samples)
    np.testing.assert_allclose(found.times, BEATS)
    np.testing.assert_array_equal(found.positions, (np.arange(len(BEATS)) - 2) % 4 + 1)
    assert beat_this.made == [(str(beat_this.weights), "cpu", False)]
    assert beat_this.heard == [(20 * SAMPLE_RATE, SAMPLE_RATE)]
    # Its downbeats are two beats off the accents: the evidence in the audio does not back them.
    assert found.confidence < 0.1


def test_beats_without_downbeats_and_no_beats(beat_this: Any, frames: FrameFeatures, samples: np.ndarray) -> None:
    beat_this.weights.parent.mkdir()
    beat_this.weights.touch()
    beat_this.answer = (np.append(BEATS, 20.5), np.empty(0))
    found = find_beats("beat_this", frames, samples)
    np.testing.assert_allclose(found.times, BEATS)
    np.testing.assert_allclose(found.downbeats, BEATS[::4])
    beat_this.answer = (np.empty(0), np.empty(0))
    with pytest.raises(AudioError, match="beat_this found no beats"):
        find_beats("beat_this", frames, samples)
