"""The bootstrap listener: labels pairs of edits until people have rated some, noisy on purpose.

It answers from a *utility* in points, made of what a listener would complain about:

- every join has an *annoyance* in [0, 1): its faults (bar position does not continue, four-bar position does not
  continue, no phrase boundary on both sides, the chords change where no phrase begins) are independent chances to be
  annoyed, so one gross fault spoils a join; annoyances add up with diminishing effect (logarithm of their sum);
- material that is never heard is missed, by the square root of how much of it there would have been to hear;
- a start or an end that is not the song's own costs points, a unit repeated more than once too;
- joins that follow each other too densely cost extra;
- a length error costs nothing within a dead zone, then saturates.

That form is deliberately not the one of `evaluation`'s `quality` (a weighted mean of shares times a duration factor).
Beats, bars, phrases and labels are the annotation's where the song has one, else estimated. Of the features it uses
chroma only, in a distance of its own (`chroma_context_distance`).

Answers follow Bradley and Terry (1952) by way of a random utility: the perceived gap is `(u_a - u_b) / temperature`
plus logistic noise, so P(a preferred) = sigmoid of the gap. A perceived gap within the tie band is a tie; its size
gives confidence and strength. The best possible predictor of such answers is known: `BootstrapListener.bayes_ceiling`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from editorbot_core.analysis.beats.annotations import Annotation
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import span
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import ACTION_REPEATS, EditDecisionList, played_units
from editorbot_core.preferences.preference import EditPair, Preference, utc_now
from editorbot_core.songs.song import Song

VERSION = 1
# At this temperature the best possible predictor is right on about 95 % of the pairs of `propose_pairs`.
DEFAULT_TEMPERATURE = 0.2
DEFAULT_TIE_BAND = 0.2
# Perceived gaps, in temperatures, from which an answer has strength 2 and 3.
_STRENGTH_STEPS = (3.0, 8.0)

# Chance that a join annoys by each fault at its worst.
_ANY_JOIN, _BAR, _FOUR_BARS, _PHRASE, _CHORDS = 0.05, 0.85, 0.6, 0.6, 0.4
# Other chords are expected where a phrase begins: there they annoy by this share of what they do elsewhere.
_CHORDS_AT_PHRASE = 0.3
_JOIN_POINTS = 3.0
_COVERAGE_POINTS = 3.0
_START_POINTS, _END_POINTS = 2.5, 3.0
_STUCK_POINTS = 0.4
_DENSITY_POINTS, _FREE_JOINS_PER_MINUTE = 1.0, 4.0
_LENGTH_POINTS, _LENGTH_DEAD_ZONE, _LENGTH_SCALE = 4.0, 0.03, 0.08
# A second of some material heard this often is enough of it.
_ENOUGH_S = 16.0

_CHROMA = span("chroma")


class Hearing(NamedTuple):
    """All the listener needs of one song in one grouping of its beats; bound `k` is the instant before unit `k`.

    Attributes:
        annoyance: float64 (U + 1, U + 1), of a join that leaves at one bound and enters at the other.
        durations: float64 (U,), s.
        material: float64 (n_labels, U), which label a unit belongs to, one-hot.
        from_annotation: Whether beats and phrases are the annotation's.
    """

    annoyance: np.ndarray
    durations: np.ndarray
    material: np.ndarray
    from_annotation: bool


def chroma_context_distance(values: np.ndarray, units: Units) -> np.ndarray:
    """How different the chords around two bounds are, float64 (U + 1, U + 1), from 0 to 1.

    Cosine distance of the summed chroma of the two beats after the bounds and of the two beats before them, the mean of
    both, over twice its mean over all pairs.
    """
    chroma = np.maximum(values[:, _CHROMA].astype(np.float64), 0.0)
    padded = np.concatenate([np.zeros((2, 12)), chroma, np.zeros((2, 12))])
    bound = np.append(units.first_beats, len(values)) + 2
    total = np.zeros((len(bound), len(bound)))
    for first, second in ((bound, bound + 1), (bound - 1, bound - 2)):
        rows = padded[first] + padded[second]
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        total += 0.5 * (1.0 - rows @ rows.T)
    np.fill_diagonal(total, 0.0)
    return np.clip(total / max(2.0 * float(total.mean()), 1e-9), 0.0, 1.0)


def _circle_distance(a: np.ndarray, period: float) -> np.ndarray:
    """Pairwise distance on a circle, (n, n), 0 to 1."""
    difference = np.abs(a[:, None] - a[None]) % period
    return np.minimum(difference, period - difference) / (period / 2)


def _bar_index(times: np.ndarray, downbeats: np.ndarray) -> np.ndarray:
    """Fractional index of the bar at `times`; bars before the first and after the last are as long as the median."""
    bar_s = float(np.median(np.diff(downbeats)))
    index = np.interp(times, downbeats, np.arange(len(downbeats)))
    index += np.minimum(times - downbeats[0], 0.0) / bar_s
    return index + np.maximum(times - downbeats[-1], 0.0) / bar_s


def _faults_by_annotation(annotation: Annotation, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bar, four-bar and phrase faults, (U + 1, U + 1) each, at bounds heard at `times` (U + 1,), s."""
    bar = _bar_index(times, annotation.grid.downbeats)
    starts = np.array([section.start_s for section in annotation.sections])
    ends = annotation.sections[-1].end_s
    section_bar = np.round(_bar_index(starts, annotation.grid.downbeats))
    # A bound just before a section start belongs to the section that starts.
    section = np.maximum(np.searchsorted(starts, times + 0.25, side="right") - 1, 0)
    into_phrase = bar - section_bar[section]
    beats_off = np.abs(times[:, None] - np.append(starts, ends)[None]).min(1) * annotation.grid.tempo / 60.0
    at_boundary = np.exp(-((beats_off / 1.5) ** 2))
    at_boundary[-1] = 1.0
    return _faults(_circle_distance(bar, 1.0), _circle_distance(into_phrase, 4.0), at_boundary)


def _faults_by_estimate(values: np.ndarray, grid: BeatGrid, units: Units) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    structure = estimate_structure(values, units)
    metre = int(grid.positions.max())
    position = np.append(grid.positions[units.first_beats] - 1, 0) / metre
    phase = np.concatenate([structure.phase, [[1.0, 0.0, 0.0, 0.0]]])
    at_boundary = np.append(structure.phrase_start, 1.0)
    return _faults(_circle_distance(position, 1.0), 1.0 - phase @ phase.T, at_boundary)


def _faults(
    bar: np.ndarray, four_bars: np.ndarray, at_boundary: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return bar, four_bars, 1.0 - np.sqrt(at_boundary[:, None] * at_boundary[None])


def _labels(song: Song, units: Units) -> np.ndarray:
    """Material of every unit, int64 (U,): the annotation's section at its middle, or the estimated cluster."""
    if song.annotation is None or not song.annotation.sections:
        return estimate_structure(song.features.values, units).cluster
    bounds = units.bounds(song.grid)
    starts = np.array([section.start_s for section in song.annotation.sections])
    section = np.maximum(np.searchsorted(starts, (bounds[:-1] + bounds[1:]) / 2, side="right") - 1, 0)
    names = [song.annotation.sections[i].label for i in section]
    return np.array([sorted(set(names)).index(name) for name in names])


def hear(song: Song, units: Units) -> Hearing:
    """Everything about a song that all its edits share."""
    annotation = song.annotation
    annotated = annotation is not None and bool(annotation.sections) and len(annotation.grid.downbeats) >= 2
    if annotated and annotation is not None:
        times = np.append(song.grid.times[units.first_beats], song.duration)
        bar, four_bars, phrase = _faults_by_annotation(annotation, times)
    else:
        bar, four_bars, phrase = _faults_by_estimate(song.features.values, song.grid, units)
    chords = chroma_context_distance(song.features.values, units)
    calm = np.full_like(bar, 1.0 - _ANY_JOIN)
    chords = chords * (_CHORDS_AT_PHRASE + (1.0 - _CHORDS_AT_PHRASE) * phrase)
    for chance, fault in ((_BAR, bar), (_FOUR_BARS, four_bars), (_PHRASE, phrase), (_CHORDS, chords)):
        calm = calm * (1.0 - chance * fault)
    labels = _labels(song, units)
    material = (labels[None] == np.unique(labels)[:, None]).astype(np.float64)
    return Hearing(1.0 - calm, units.durations(song.grid), material, annotated)


class BootstrapListener:
    """A listener with a known taste and known noise.

    Attributes:
        temperature: Points of utility by which two edits must differ for odds of e to 1.
        tie_band: Perceived gap, in temperatures, within which the answer is a tie.
        rater: The name under which it answers.
    """

    def __init__(self, *, temperature: float = DEFAULT_TEMPERATURE, tie_band: float = DEFAULT_TIE_BAND) -> None:
        if not temperature > 0 or not tie_band >= 0:
            raise ParameterError(f"temperature must be positive and tie_band >= 0; got {temperature}, {tie_band}")
        self.temperature = temperature
        self.tie_band = tie_band
        self.rater = f"bootstrap-listener-{VERSION}"
        # What is known of a song depends on nothing but the song and the units, so keeping it changes no answer.
        self._known: dict[tuple[str, bytes], tuple[Song, Hearing]] = {}

    def hearing(self, song: Song, units: Units) -> Hearing:
        """What is known of the song; computed once per song and grouping."""
        key = (song.track_id, units.unit_id.tobytes())
        known = self._known.get(key)
        if known is None or known[0] is not song:
            known = (song, hear(song, units))
            self._known[key] = known
        return known[1]

    def utility(self, song: Song, edl: EditDecisionList) -> float:
        """How good the edit is, points; 0 is an edit without any fault.

        Raises:
            ParameterError: If the edit is of another song or on another grid of beats.
        """
        if edl.track_id != song.track_id or not np.array_equal(edl.grid.times, song.grid.times):
            raise ParameterError(
                f"the edit is of song {edl.track_id!r} with {edl.grid.n_beats} beats, not of {song.track_id!r} with "
                f"{song.grid.n_beats}; was the song analysed again since?"
            )
        heard = self.hearing(song, edl.units)
        actions = edl.unit_actions
        repeats = np.array(ACTION_REPEATS)[actions]
        order = played_units(actions)
        leave, enter = order[:-1] + 1, order[1:]
        joins = leave != enter
        annoyance = float(heard.annoyance[leave[joins], enter[joins]].sum())
        duration = edl.duration_s
        points = -_JOIN_POINTS * np.log1p(annoyance)

        there = heard.material @ heard.durations
        played = heard.material @ (heard.durations * (repeats > 0))
        enough = np.minimum(np.minimum(there, _ENOUGH_S), np.maximum(there, 1e-9))
        share = np.sqrt(np.clip(played / np.maximum(enough, 1e-9), 0.0, 1.0))
        points -= _COVERAGE_POINTS * (1.0 - float((np.sqrt(there) * share).sum() / np.sqrt(there).sum()))

        points -= _START_POINTS * (order[0] != 0) + _END_POINTS * (order[-1] != len(actions) - 1)
        points -= _STUCK_POINTS * float(np.maximum(repeats - 2, 0).sum())
        density = int(joins.sum()) / (duration / 60.0)
        points -= _DENSITY_POINTS * np.log1p(max(density / _FREE_JOINS_PER_MINUTE - 1.0, 0.0))
        error = max(abs(duration / edl.target_duration_s - 1.0) - _LENGTH_DEAD_ZONE, 0.0)
        points -= _LENGTH_POINTS * (1.0 - np.exp(-error / _LENGTH_SCALE))
        return float(points)

    def gap(self, song: Song, pair: EditPair | Preference) -> float:
        """By how much a is better than b, in temperatures."""
        return (self.utility(song, pair.a) - self.utility(song, pair.b)) / self.temperature

    def prefer(self, song: Song, pair: EditPair, rng: np.random.Generator, round: int = 0) -> Preference:
        """An answer, labelled as one of the bootstrap listener.

        The same state of `rng` gives the same answer with the same id.

        Args:
            song: The song of the pair.
            pair: What is compared.
            rng: Source of the noise.
            round: Which round of asking this is.
        """
        perceived = self.gap(song, pair) + float(rng.logistic())
        is_tie = abs(perceived) <= self.tie_band
        return Preference(
            a=pair.a,
            b=pair.b,
            label=0.5 if is_tie else float(perceived > 0),
            strength=0 if is_tie else 1 + sum(abs(perceived) > step for step in _STRENGTH_STEPS),
            confidence=float(np.tanh(abs(perceived) / 2.0)),
            rater=self.rater,
            source="bootstrap",
            answer_id=f"{self.rater}-{pair.pair_id}-{round}-{int(rng.integers(2**62)):016x}",
            created_at=utc_now(),
            round=round,
        )

    def answers(
        self, songs: Iterable[Song], pairs: Iterable[EditPair], *, seed: int, round: int = 0
    ) -> list[Preference]:
        """Its answers to `pairs`, in their order; the same seed, pair and round give the same answer with the same id.

        Args:
            songs: The songs that the pairs are of.
            pairs: What is compared.
            seed: Of the noise.
            round: Which round of asking this is.
        """
        by_id = {song.track_id: song for song in songs}
        return [
            self.prefer(
                by_id[pair.a.track_id], pair, np.random.default_rng([seed, int(pair.pair_id[:16], 16), round]), round
            )
            for pair in pairs
        ]

    def bayes_ceiling(
        self, songs: Mapping[str, Song] | Iterable[Song], pairs: Iterable[EditPair | Preference]
    ) -> float:
        """Accuracy of the best possible predictor on answers to `pairs` that are no ties.

        Args:
            songs: The songs, by track id or in any order.
            pairs: Pairs or answers; their labels are not looked at.

        Returns:
            Mean of max(P(a), P(b)) / (P(a) + P(b)), weighted by the chance that the answer is no tie; NaN for no pairs.
        """
        known = songs if isinstance(songs, Mapping) else {song.track_id: song for song in songs}
        gaps = np.array([self.gap(known[pair.a.track_id], pair) for pair in pairs])
        if len(gaps) == 0:
            return float("nan")
        prefers_a = 1.0 / (1.0 + np.exp(np.clip(self.tie_band - gaps, -500, 500)))
        prefers_b = 1.0 / (1.0 + np.exp(np.clip(self.tie_band + gaps, -500, 500)))
        return float(np.maximum(prefers_a, prefers_b).sum() / (prefers_a + prefers_b).sum())


def known_ceiling(songs: Iterable[Song]) -> Callable[[Sequence[Preference]], float]:
    """A function of answers: the accuracy of the best possible predictor of those that the listener gave.

    NaN where all answers are by people, whose noise is not known.
    """
    by_id = {song.track_id: song for song in songs}
    listener = BootstrapListener()

    def ceiling(answers: Sequence[Preference]) -> float:
        return listener.bayes_ceiling(by_id, [answer for answer in answers if answer.source == "bootstrap"])

    return ceiling
