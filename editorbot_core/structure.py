"""Structure: for every unit, whether a phrase starts there, its place in the phrase, and which material it is.

`read_structure` is what songs are loaded with: a trained model reads bars, and where there are none (or no context was
stored) `estimate_structure` reads the beat features with nothing trained. That estimate compares every unit with every
other (Foote 2000) and asks where repetitions begin and end (Serra et al. 2014). Both weigh their evidence against the
usual phrase lengths in a semi-Markov model, whose forward-backward pass gives probabilities. `annotated_structure` is
the truth, for labelling and judging.

Units are bars, or single beats where the grid is not trusted; then all lengths below, which count bars, are taken four
times as long. Positions in a phrase count units, modulo 4.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from editorbot_core.annotations import Annotation
from editorbot_core.bar_features import (
    BEATS_PER_BAR,
    bar_features,
    later,
    mean_ahead,
    novelty,
    standardise,
    weigh_matches,
)
from editorbot_core.beats import BeatGrid
from editorbot_core.edits import Units
from editorbot_core.errors import ParameterError
from editorbot_core.features import FEATURE_INDEX, N_FEATURES, BeatFeatures
from editorbot_core.files import atomic_path
from editorbot_core.structure_model import N_PHASES, StructureModel, shipped_structure_model

_CHROMA = slice(FEATURE_INDEX["chroma_c"], FEATURE_INDEX["chroma_b"] + 1)
_TIMBRE = slice(FEATURE_INDEX["mfcc_01"], FEATURE_INDEX["mfcc_13"] + 1)
_RHYTHM = [FEATURE_INDEX[name] for name in ("onset_strength", "drums_energy", "bass_energy", "rms")]

STRUCTURE_VERSION = 4
"""Changes whenever the same weights and features would give another structure."""

# Relative frequency of phrases of 1, 2, ..., 16 bars.
_LENGTH_PRIOR = (0.3, 1.0, 0.6, 8.0, 1.0, 1.0, 0.4, 6.0, 0.6, 0.5, 0.1, 0.5, 0.1, 0.1, 0.1, 0.4)
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
# Share of the neighbours' evidence that is taken off: a peak counts, a plateau does not.
_SHARPENING = 0.25
_VOTE_WEIGHT = 2.0
_MATCH_SHARPNESS = 6.0
_VOTE_SHARPNESS = 10.0
_MIN_LAG_BARS = 2
_SAME_MATERIAL = 0.4
_SAME_LABEL = 0.5
_SURE = 6.0


@dataclass(frozen=True)
class Structure:
    """Structure per unit.

    Attributes:
        phrase_start: float32 (n_units,), probability that a phrase starts at the unit.
        phase: float32 (n_units, 4), probabilities of the position mod 4 in the phrase; rows sum to 1.
        cluster: int64 (n_units,), material of the phrase the unit belongs to; equal numbers, equal material.
        confidence: How far to trust it, in [0, 1].
    """

    phrase_start: np.ndarray
    phase: np.ndarray
    cluster: np.ndarray
    confidence: float

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        n = len(self.phrase_start)
        if self.phase.shape != (n, N_PHASES) or self.cluster.shape != (n,):
            raise ParameterError(f"structure of {n} units: phase {self.phase.shape}, cluster {self.cluster.shape}")
        if not ((self.phrase_start >= 0) & (self.phrase_start <= 1)).all() or not np.allclose(
            self.phase.sum(1), 1, atol=1e-4
        ):
            raise ParameterError("phrase_start must be in [0, 1] and every row of phase must sum to 1")


def annotated_structure(annotation: Annotation, grid: BeatGrid, units: Units) -> Structure:
    """The true structure of a song on any grid of it.

    A section starts at the unit whose first beat is nearest to it. Units before the first section or after the last
    belong to that section; positions before a section count back from it, so a pick-up bar has phase 3.

    Raises:
        ParameterError: If the annotation has no sections.
    """
    if not annotation.sections:
        raise ParameterError(f"{annotation.track_id}: the annotation has no sections")
    unit_times = grid.times[units.first_beats]
    section_times = np.array([section.start_s for section in annotation.sections])
    start_unit = np.abs(unit_times[:, None] - section_times[None]).argmin(axis=0)
    unit = np.arange(units.n_units)
    section_of_unit = np.maximum(np.searchsorted(start_unit, unit, side="right") - 1, 0)
    labels = list(dict.fromkeys(section.label for section in annotation.sections))
    cluster_of_section = np.array([labels.index(section.label) for section in annotation.sections])
    return Structure(
        phrase_start=np.isin(unit, start_unit).astype(np.float32),
        phase=np.eye(N_PHASES, dtype=np.float32)[(unit - start_unit[section_of_unit]) % N_PHASES],
        cluster=cluster_of_section[section_of_unit].astype(np.int64),
        confidence=1.0,
    )


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
    length_log_prior = _length_log_prior(bar)
    first = _phrase_posterior(log_odds[pickup:], length_log_prior)
    votes = _vote(material, np.pad(first.start, (pickup, 0)), bar)
    log_odds = log_odds + trust * _VOTE_WEIGHT * (votes - votes.mean())
    posterior = _phrase_posterior(log_odds[pickup:], length_log_prior)

    phase = np.concatenate([np.eye(N_PHASES)[[N_PHASES - 1] * pickup], posterior.phase])
    starts = pickup + _likeliest_phrases(log_odds[pickup:], length_log_prior)
    cluster = np.pad(_phrase_clusters(material, starts), (pickup, 0), mode="edge")
    certainty = (posterior.phase.max(axis=1).mean() - 1 / N_PHASES) / (1 - 1 / N_PHASES)
    return Structure(
        phrase_start=np.pad(posterior.start, (pickup, 0)).astype(np.float32),
        phase=phase.astype(np.float32),
        cluster=cluster,
        confidence=float(np.clip(trust * certainty, 0.0, 1.0)),
    )


def read_structure(
    features: BeatFeatures, units: Units, *, work: str = "", model: StructureModel | None = None
) -> Structure:
    """Structure of a song by the trained model, or estimated where the units are not bars.

    Args:
        features: With context.
        units: How the beats are grouped.
        work: The composition; a work of the model's training set is read by the networks that have not seen it.
        model: None for the one that comes with the package.
    """
    beats_per_unit = int(np.median(units.lengths))
    if features.context is None or beats_per_unit == 1:
        return estimate_structure(features.values, units)
    model = model or shipped_structure_model()
    found = model.probabilities(bar_features(features.values, features.context, units), work)
    # A pick-up is before the first phrase, not in it.
    pickup = int(units.n_units > 1 and units.lengths[0] < beats_per_unit)
    odds = np.clip(found.start, 1e-6, 1 - 1e-6)
    log_odds = np.clip(np.log(odds / (1 - odds)), -_SURE, _SURE)[pickup:]
    length_log_prior = _length_log_prior(1)
    posterior = _phrase_posterior(log_odds, length_log_prior)
    phase = np.concatenate([np.eye(N_PHASES)[[N_PHASES - 1] * pickup], posterior.phase])
    phase = 0.5 * (phase + found.phase)
    starts = pickup + _likeliest_phrases(log_odds, length_log_prior)
    cluster = np.pad(_phrase_clusters(found.same, starts, threshold=_SAME_LABEL), (pickup, 0), mode="edge")
    certainty = (phase.max(axis=1).mean() - 1 / N_PHASES) / (1 - 1 / N_PHASES)
    return Structure(
        phrase_start=(0.5 * (found.start + np.pad(posterior.start, (pickup, 0)))).astype(np.float32),
        phase=(phase / phase.sum(axis=1, keepdims=True)).astype(np.float32),
        cluster=cluster,
        confidence=float(np.clip(certainty, 0.0, 1.0)),
    )


def remembered_structure(path: Path, key: str, read: Callable[[], Structure]) -> Structure:
    """The structure kept at `path` if it was kept under `key`; otherwise what `read` gives, which is kept there."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return Structure(kept["phrase_start"], kept["phase"], kept["cluster"], float(kept["confidence"]))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, ParameterError):
        # Missing or damaged: it only saves work.
        pass
    structure = read()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            key=key,
            phrase_start=structure.phrase_start,
            phase=structure.phase,
            cluster=structure.cluster,
            confidence=structure.confidence,
        )
    return structure


class _Similarities(NamedTuple):
    """Cosine similarity of every two units, float64 (n_units, n_units), of four kinds."""

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
    timbre = cosines(standardise(values[:, _TIMBRE]))
    return _Similarities(
        material=0.6 * harmony + 0.4 * timbre,
        harmony=harmony,
        timbre=timbre,
        rhythm=cosines(standardise(values[:, _RHYTHM])),
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
        "repetition_vote": _vote(material, standardise(repetition_start), bar),
        "timbre_novelty": novelty(similarity.timbre, 2 * bar),
        "novelty": novelty(material, 4 * bar),
        "rhythm_novelty": novelty(similarity.rhythm, 4 * bar),
    }
    total = sum(
        (weight * standardise(evidence[name]) for name, weight in _EVIDENCE_WEIGHTS.items()),
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
    """'A repetition ended before here': the units behind have a match, and the match goes on differently."""
    behind = later(mean_ahead(similarity, width), width)
    ahead = mean_ahead(similarity, bar)
    return weigh_matches(behind, behind - ahead, sharpness=_MATCH_SHARPNESS, min_lag=min_lag, min_past=width)


def _vote(similarity: np.ndarray, values: np.ndarray, bar: int) -> np.ndarray:
    """What units say, (n,), averaged over those alike to each unit, so that repeats decide together."""
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


def _length_log_prior(bar: int) -> np.ndarray:
    """Log-probability of phrases of 1, 2, ... units; lengths that are no whole number of bars are rare."""
    per_bar = np.array(_LENGTH_PRIOR)
    prior = np.full(bar * len(per_bar), 0.02)
    prior[bar - 1 :: bar] = per_bar
    return np.log(prior / prior.sum())


class _PhrasePosterior(NamedTuple):
    """Probabilities per unit: `start` float64 (n,), `phase` float64 (n, 4)."""

    start: np.ndarray
    phase: np.ndarray


def _phrase_posterior(log_odds: np.ndarray, length_log_prior: np.ndarray) -> _PhrasePosterior:
    """Forward-backward over all ways to cut the song into phrases.

    A way's weight is the product of its phrases' prior and of the odds at their starts; the first start is certain.
    """
    n, longest = len(log_odds), len(length_log_prior)
    odds = np.concatenate([[0.0], log_odds[1:]])
    forward, backward = np.full(n + 1, -np.inf), np.full(n + 1, -np.inf)
    forward[0] = backward[n] = 0.0
    for end in range(1, n + 1):
        start = np.arange(max(0, end - longest), end)
        forward[end] = np.logaddexp.reduce(forward[start] + odds[start] + length_log_prior[end - start - 1])
    for start_unit in range(n - 1, -1, -1):
        end_unit = np.arange(start_unit + 1, min(n, start_unit + longest) + 1)
        terms = backward[end_unit] + length_log_prior[end_unit - start_unit - 1]
        backward[start_unit] = odds[start_unit] + np.logaddexp.reduce(terms)
    start_probability = np.exp(np.minimum(forward[:n] + backward[:n] - forward[n], 0.0))

    # phrases[s, l]: probability of a phrase of l + 1 units at s; reaching[s, k]: of one at s that holds s + k.
    ends = np.arange(n)[:, None] + np.arange(1, longest + 1)[None]
    inside = ends <= n
    log_phrases = (forward[:n] + odds)[:, None] + length_log_prior[None] + backward[np.minimum(ends, n)] - forward[n]
    phrases = np.where(inside, np.exp(np.minimum(log_phrases, 0.0)), 0.0)
    reaching = phrases[:, ::-1].cumsum(axis=1)[:, ::-1]
    phase = np.zeros((n, N_PHASES))
    for step in range(min(longest, n)):
        phase[step:, step % N_PHASES] += reaching[: n - step, step]
    return _PhrasePosterior(start_probability, phase / phase.sum(axis=1, keepdims=True))


def _likeliest_phrases(log_odds: np.ndarray, length_log_prior: np.ndarray) -> np.ndarray:
    """Starts of the phrases of the one likeliest way to cut the song, int64, the first 0."""
    n, longest = len(log_odds), len(length_log_prior)
    odds = np.concatenate([[0.0], log_odds[1:]])
    best, previous = np.zeros(n + 1), np.zeros(n + 1, dtype=np.int64)
    for end in range(1, n + 1):
        start = np.arange(max(0, end - longest), end)
        score = best[start] + odds[start] + length_log_prior[end - start - 1]
        previous[end] = start[score.argmax()]
        best[end] = score.max()
    starts = []
    end = n
    while end > 0:
        end = int(previous[end])
        starts.append(end)
    return np.array(starts[::-1], dtype=np.int64)


def _phrase_clusters(similarity: np.ndarray, starts: np.ndarray, *, threshold: float = _SAME_MATERIAL) -> np.ndarray:
    """Material of every unit from the first start on, int64: phrases joined by average linkage down to `threshold`.

    Two phrases are as alike as their units, aligned at the start, are on average over the shorter one.
    """
    n_phrases = len(starts)
    lengths = np.diff(np.append(starts, len(similarity)))
    alike = np.zeros((n_phrases, n_phrases))
    for i in range(n_phrases):
        for j in range(i):
            unit = np.arange(min(lengths[i], lengths[j]))
            alike[i, j] = alike[j, i] = similarity[starts[i] + unit, starts[j] + unit].mean()
    members = np.eye(n_phrases)
    while len(members) > 1:
        sizes = members.sum(axis=1)
        linkage = members @ alike @ members.T / (sizes[:, None] * sizes[None])
        np.fill_diagonal(linkage, -np.inf)
        a, b = sorted(divmod(int(linkage.argmax()), len(members)))
        if linkage[a, b] < threshold:
            break
        members[a] += members[b]
        members = np.delete(members, b, axis=0)
    group = members.argmax(axis=0)
    in_order = {old: new for new, old in enumerate(dict.fromkeys(group.tolist()))}
    return np.repeat([in_order[g] for g in group.tolist()], lengths).astype(np.int64)
