"""Beat trackers by name: the library's own (`beats.tracking`), librosa's, or beat_this with its own weights.

A tracker has a name, which configurations use, and a version, which is stored with every grid it made: a song whose
features are of another version is analysed again. librosa and beat_this are used only if the user has installed them;
nothing is downloaded here. With every tracker, the confidence of the grid is computed from the same evidence.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from editorbot_core.analysis.beats.grid import BeatGrid, positions_from_downbeats
from editorbot_core.analysis.beats.tracking import TRACKER, grid_of_beats, track_beats
from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameFeatures
from editorbot_core.analysis.names import DEFAULT_TRACKER, check_tracker
from editorbot_core.base.errors import AudioError, ParameterError

BEAT_THIS_WEIGHTS = "final0"


def tracker_version(name: str) -> str:
    """Version of the tracker `name`, as stored with its grids; for a plug-in it contains the version of the package.

    Raises:
        ParameterError: If there is no such tracker, or its package is not installed.
    """
    package = check_tracker(name)
    if name == DEFAULT_TRACKER:
        return TRACKER
    return f"{name}-{package}" + (f"-{BEAT_THIS_WEIGHTS}" if name == "beat_this" else "")


def needs_samples(name: str) -> bool:
    """Whether a tracker needs the samples, beyond the frame features."""
    return name == "beat_this"


def find_beats(
    name: str, frames: FrameFeatures, samples: np.ndarray | None = None, *, onsets: np.ndarray | None = None
) -> BeatGrid:
    """The beats and bars of a song.

    Args:
        name: One of `TRACKERS`.
        frames: Frame features of the song.
        samples: The song, mono, float32 (n,) at `SAMPLE_RATE`; for trackers of which `needs_samples` is true.
        onsets: Result of `tracking.band_onsets` for `frames`; computed if None.

    Raises:
        ParameterError: If there is no such tracker, or its package or weights are missing.
        AudioError: If it finds no beats.
    """
    tracker_version(name)
    if name == "librosa":
        return _librosa_grid(frames)
    if name == "beat_this":
        assert samples is not None
        return _beat_this_grid(frames, samples)
    return track_beats(frames, onsets=onsets)


def _within(times: np.ndarray, frames: FrameFeatures, name: str) -> np.ndarray:
    """The beats inside the audio, rising, s."""
    times = np.unique(np.asarray(times, dtype=np.float64))
    times = times[(times >= 0.0) & (times < frames.duration_s - 1e-3)]
    if len(times) == 0:
        raise AudioError(f"the tracker {name} found no beats")
    return times


def _librosa_grid(frames: FrameFeatures) -> BeatGrid:
    """Beats by dynamic programming over onset strength (Ellis 2007), bars by the library's own tracker."""
    import librosa

    _, times = librosa.beat.beat_track(
        onset_envelope=frames.onset_strength.astype(np.float64), sr=SAMPLE_RATE, hop_length=HOP_LENGTH, units="time"
    )
    return grid_of_beats(_within(times, frames, "librosa"), frames).grid


def _beat_this_grid(frames: FrameFeatures, samples: np.ndarray) -> BeatGrid:
    """Beats and downbeats by a transformer (Foscarin, Schlüter and Widmer 2024)."""
    beats, downbeats = _beat_this_model()(samples, SAMPLE_RATE)
    times = _within(beats, frames, "beat_this")
    first = np.unique(np.abs(times[:, None] - np.asarray(downbeats, dtype=np.float64)[None]).argmin(axis=0))
    if len(first) == 0:
        return grid_of_beats(times, frames).grid
    metre = int(np.bincount(np.diff(first)).argmax()) if len(first) > 1 else 4
    return grid_of_beats(times, frames, positions=positions_from_downbeats(first, len(times), metre=metre)).grid


@cache
def _beat_this_model() -> Any:
    """The model from samples to times of beats and of downbeats, s; its weights must have been downloaded."""
    import torch
    from beat_this.inference import Audio2Beats

    weights = Path(torch.hub.get_dir()) / "checkpoints" / f"beat_this-{BEAT_THIS_WEIGHTS}.ckpt"
    if not weights.is_file():
        raise ParameterError(
            f"tracker 'beat_this' needs its weights at {weights}; fetch them once with "
            f'python -c "from beat_this.inference import load_model; load_model({BEAT_THIS_WEIGHTS!r})"'
        )
    return Audio2Beats(checkpoint_path=str(weights), device="cpu", dbn=False)
