"""Tuning of the beat tracker's constants on annotated songs that are used for no evaluation.

Every constant is varied alone, from 0.6 to 1.6 times its value. A song's score is the mean of two figures: the quality
of the reading that the tracker's evidence ranks first, and that of the best reading, which no ranking can exceed. The
network that ranks readings is not used. A constant is changed only if the gain over the songs is significant, corrected
for the number of values tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from editorbot_core.analysis.beats.tracking import TrackerConfig, band_onsets, beat_activation, find_readings
from editorbot_core.analysis.features.extraction import decode_song
from editorbot_core.analysis.training import annotated_songs, reading_qualities
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.progress import Progress

TUNED = (
    "mean_s",
    "gain_s",
    "full_scale",
    "prior_bpm",
    "prior_octaves_e",
    "prior_weight",
    "periodicity_weight",
    "non_beat_share",
    "tempo_change_cost",
    "bar_change_cost",
    "triple_cost",
)
FACTORS = (0.6, 0.8, 1.25, 1.6)
# Probability that any constant is changed although none is better (Bonferroni).
_CHANCE = 0.05


@dataclass(frozen=True)
class TrackerTrial:
    """The tracker with one constant changed, over all songs.

    Attributes:
        constant: Its name in `TrackerConfig`, or "" for the tracker as it is.
        value: Its value; 0 for the tracker as it is.
        first: Mean quality of the readings that the evidence ranks first, in [0, 1].
        best: Mean quality of the best readings, in [0, 1].
        gain: Mean of the two, minus that of the tracker as it is.
        gain_error: Standard error of the gain over the songs.
    """

    constant: str
    value: float
    first: float
    best: float
    gain: float
    gain_error: float


def try_constants(
    folders: Sequence[Path],
    *,
    config: TrackerConfig | None = None,
    constants: Sequence[str] = TUNED,
    progress: Progress | None = None,
) -> list[TrackerTrial]:
    """The tracker as it is, and with each of `constants` at each of `FACTORS` times its value.

    Args:
        folders: Songs with annotations beside them.
        config: The tracker as it is.
        constants: Names of the constants to vary.
        progress: Called as progress("try constants", done, total).

    Raises:
        ParameterError: If there are fewer than two annotated songs.
    """
    config = config or TrackerConfig()
    changes = [("", 0.0), *((name, factor * getattr(config, name)) for name in constants for factor in FACTORS)]
    songs = annotated_songs(folders)
    if len(songs) < 2:
        raise ParameterError("constants are chosen on at least two songs; got one")
    found = np.empty((len(changes), len(songs), 2))
    for i, (path, annotation) in enumerate(songs):
        if progress is not None:
            progress("try constants", i, len(songs))
        frames = decode_song(path).frames
        onsets = band_onsets(frames.mel, compression=config.compression)
        for j, (name, value) in enumerate(changes):
            tried = replace(config, **{name: value}) if name else config
            instants, readings = find_readings(frames, onsets, beat_activation(onsets, config=tried), config=tried)
            quality = reading_qualities(instants, readings, annotation.grid)
            found[j, i] = quality[int(np.argmax([reading.score for reading in readings]))], quality.max()
    if progress is not None:
        progress("try constants", len(songs), len(songs))
    gains = (found - found[:1]).mean(axis=2)
    errors = gains.std(axis=1, ddof=1) / np.sqrt(len(songs))
    means = found.mean(axis=1)
    return [
        TrackerTrial(name, float(value), float(first), float(best), float(gain), float(error))
        for (name, value), (first, best), gain, error in zip(changes, means, gains.mean(axis=1), errors, strict=True)
    ]


def chosen_constants(trials: Sequence[TrackerTrial]) -> dict[str, float]:
    """The value of every constant that should change: the one with the greatest significant gain."""
    changed = [trial for trial in trials if trial.constant]
    standard_errors = NormalDist().inv_cdf(1.0 - _CHANCE / max(len(changed), 1))
    chosen: dict[str, TrackerTrial] = {}
    for trial in changed:
        better = trial.gain > standard_errors * trial.gain_error
        if better and (trial.constant not in chosen or trial.gain > chosen[trial.constant].gain):
            chosen[trial.constant] = trial
    return {name: trial.value for name, trial in chosen.items()}
