"""Structure estimated from beat features without a trained model.

The estimate compares every unit with every other (Foote 2000) and looks for the beginnings and ends of repetitions
(Serra et al. 2014); a semi-Markov model (`structure.phrases`) combines this evidence with the usual phrase lengths.
`structure.read` uses it for songs whose units are beats.

Units are bars or single beats. Lengths below are in bars; with single beats, a bar counts as four of them.
"""

from typing import NamedTuple

import numpy as np

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.dsp.vectors import standardised
from editorbot_core.analysis.features.columns import FEATURE_INDEX, N_FEATURES, span
from editorbot_core.analysis.structure.bars import BEATS_PER_BAR, later, mean_ahead, novelty, weigh_matches
from editorbot_core.analysis.structure.phrases import (
    length_log_prior,
    likeliest_phrases,
    phrase_clusters,
    phrase_posterior,
)
from editorbot_core.analysis.structure.structure import N_PHASES, Structure
from editorbot_core.base.errors import ParameterError

_CHROMA = span("chroma")
_TIMBRE = span("MFCC")
_RHYTHM = [FEATURE_INDEX[name] for name in ("onset_strength", "drums_energy", "bass_energy", "rms")]

# Log-odds of a phrase start per standard deviation of each kind of evidence, rounded from a logistic regression on
# annotated songs.
_EVIDENCE_WEIGHTS = {
    "repetition_start_2": 0.6,
    "repetition_start_4": 0.5,
    "repetition_end": 0.4,
    "repetition_vote": 0.4,
    "timbre_novelty": 0.25,
    "novelty": 0.1,
    "rhythm_novelty": 0.3,
}
_BIAS = -1.5

# Share of the neighbours' evidence that is subtracted, so that peaks count and plateaus do not.
_SHARPENING = 0.25
_VOTE_WEIGHT = 2.0
_MATCH_SHARPNESS = 6.0
_VOTE_SHARPNESS = 10.0
_MIN_LAG_BARS = 2


def estimate_structure(values: np.ndarray, units: Units) -> Structure:
    """Structure from beat features.

    Args:
        values: float32 (n_beats, 121), finite, columns as `FEATURE_NAMES`.
        units: How the beats are grouped.

    Raises:
        ParameterError: If `values` does not have a row per beat and 121 columns, or is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(units.unit_id), N_FEATURES):
        raise ParameterError(f"expected features ({len(units.unit_id)}, {N_FEATURES}), got {values.shape}")
    if not np.isfinite(values).all():
        raise ParameterError("features must be finite")
    beats_per_unit = int(np.median(units.lengths))
    bar = BEATS_PER_BAR if beats_per_unit == 1 else 1
    similarity = _similarities(values, units, beats_per_unit)
    material = similarity.material
    n_units = units.n_units

    # A pick-up is before the first phrase, not in it.
    pickup = int(n_units > 1 and units.lengths[0] < beats_per_unit)
    trust = _repetition_strength(material, 4 * bar, _MIN_LAG_BARS * bar)
    log_odds = _phrase_start_log_odds(similarity, bar) * trust
    log_prior = length_log_prior(bar)
    first = phrase_posterior(log_odds[pickup:], log_prior)
    votes = _vote(material, np.pad(first.start, (pickup, 0)), bar)
    log_odds = log_odds + trust * _VOTE_WEIGHT * (votes - votes.mean())
    posterior = phrase_posterior(log_odds[pickup:], log_prior)

    phase = np.concatenate([np.eye(N_PHASES)[[N_PHASES - 1] * pickup], posterior.phase])
    starts = pickup + likeliest_phrases(log_odds[pickup:], log_prior)
    cluster = np.pad(phrase_clusters(material, starts), (pickup, 0), mode="edge")
    certainty = (posterior.phase.max(axis=1).mean() - 1 / N_PHASES) / (1 - 1 / N_PHASES)
    return Structure(
        phrase_start=np.pad(posterior.start, (pickup, 0)).astype(np.float32),
        phase=phase.astype(np.float32),
        cluster=cluster,
        confidence=float(np.clip(trust * certainty, 0.0, 1.0)),
    )


class _Similarities(NamedTuple):
    """Cosine similarities of every two units in four respects, float64 (n_units, n_units) each."""

    material: np.ndarray
    harmony: np.ndarray
    timbre: np.ndarray
    rhythm: np.ndarray


def _similarities(values: np.ndarray, units: Units, beats_per_unit: int) -> _Similarities:
    """Self-similarity of the units in harmony, timbre and rhythm; `material` mixes the first two.

    A unit is the concatenation of its beats, stretched to `beats_per_unit` where it is longer or shorter.
    """
    offsets = np.arange(beats_per_unit)[None] * units.lengths[:, None] // beats_per_unit
    beat = units.first_beats[:, None] + offsets
    chroma = np.abs(values[:, _CHROMA])
    chroma = chroma / np.maximum(chroma.sum(axis=1, keepdims=True), 1e-9)

    def cosines(columns: np.ndarray) -> np.ndarray:
        rows = columns[beat].reshape(units.n_units, -1)
        rows = rows - rows.mean(axis=0)
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = np.where(norm > 1e-6, rows / np.maximum(norm, 1e-6), 0.0)
        return rows @ rows.T

    harmony = cosines(chroma)
    timbre = cosines(standardised(values[:, _TIMBRE]))
    return _Similarities(
        material=0.6 * harmony + 0.4 * timbre,
        harmony=harmony,
        timbre=timbre,
        rhythm=cosines(standardised(values[:, _RHYTHM])),
    )


def _phrase_start_log_odds(similarity: _Similarities, bar: int) -> np.ndarray:
    """Log-odds that a phrase starts at each unit, from novelty and repetition; float64 (n_units,)."""
    material = similarity.material
    min_lag = _MIN_LAG_BARS * bar
    repetition_start = _repetition_start(material, 2 * bar, bar, min_lag)
    evidence = {
        "repetition_start_2": repetition_start,
        "repetition_start_4": _repetition_start(material, 4 * bar, bar, min_lag),
        "repetition_end": _repetition_end(material, 4 * bar, bar, min_lag),
        "repetition_vote": _vote(material, standardised(repetition_start), bar),
        "timbre_novelty": novelty(similarity.timbre, 2 * bar),
        "novelty": novelty(material, 4 * bar),
        "rhythm_novelty": novelty(similarity.rhythm, 4 * bar),
    }
    total = sum(
        (weight * standardised(evidence[name]) for name, weight in _EVIDENCE_WEIGHTS.items()),
        start=np.zeros(len(material)),
    )
    padded = np.pad(total, 1, mode="edge")
    return total - _SHARPENING * (padded[:-2] + padded[2:]) + _BIAS


def _repetition_start(similarity: np.ndarray, width: int, bar: int, min_lag: int) -> np.ndarray:
    """'A repetition starts here': the units ahead have a match, and what came before the match is different."""
    ahead = mean_ahead(similarity, width)
    before = later(mean_ahead(similarity, bar), bar)
    return weigh_matches(ahead, ahead - before, sharpness=_MATCH_SHARPNESS, min_lag=min_lag, min_left=2 * bar)


def _repetition_end(similarity: np.ndarray, width: int, bar: int, min_lag: int) -> np.ndarray:
    """'A repetition ended before here': the units before have a match, and the match continues differently."""
    behind = later(mean_ahead(similarity, width), width)
    ahead = mean_ahead(similarity, bar)
    return weigh_matches(behind, behind - ahead, sharpness=_MATCH_SHARPNESS, min_lag=min_lag, min_past=width)


def _vote(similarity: np.ndarray, values: np.ndarray, bar: int) -> np.ndarray:
    """Mean of `values` (n,) over the units similar to each unit, so that repetitions are decided together."""
    ahead = mean_ahead(similarity, 2 * bar)
    gain = np.broadcast_to(values, similarity.shape)
    return weigh_matches(ahead, gain, sharpness=_VOTE_SHARPNESS, min_lag=_MIN_LAG_BARS * bar)


def _repetition_strength(similarity: np.ndarray, width: int, min_lag: int) -> float:
    """How well the song repeats itself, in [0, 1]: 0 for noise and for songs of a few bars."""
    n = len(similarity)
    if n < width + min_lag:
        return 0.0
    ahead = mean_ahead(similarity, width)[: n - width + 1, : n - width + 1]
    unit = np.arange(len(ahead))
    best = np.where(np.abs(unit[:, None] - unit[None]) >= min_lag, ahead, -1.0).max(axis=1)
    return float(np.clip((best.mean() - 0.25) / 0.35, 0.0, 1.0))
