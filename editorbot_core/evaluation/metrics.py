"""Metrics of one edit.

Conventions
    The reference comes first: the annotated beats, bar positions and phrases, or, without an annotation, the estimated
    grid and structure; the result says which (`reference`). A *join* is a time of the edit at which the source does not
    play on: its *exit* is the time in the source at which the part before the join ends, its *entry* the time at which
    the part after it begins, both in s. Exits and entries are mapped to the nearest reference beat; if none is within
    70 ms, neither the bar nor the phrase continues there. A *seam* is a join, a start that is not the song's start, or
    an end that is not its end. Shares are in [0, 1]; a share of no joins is None. No reward contains any of these
    quantities, but the cost that `editing.search` minimises contains the percentile of the feature step.

Quality
    `quality` is 100 x duration factor x weighted mean of the terms in `QUALITY_WEIGHTS`. The duration factor is 1 up to
    2 % of length error and falls linearly to 0 at 20 %. The first four terms are shares over the seams: bar position
    continues, four-bar position continues, phrase boundary on both sides, and smoothness, which is 1 for a feature step
    up to the 90th percentile of the song's own steps and falls linearly to 0 at the largest of them. A start or end
    that is not the song's own counts 0 in all four, except that an end at a phrase end counts for the phrase term. An
    edit without seams has 1 in all four. Coverage is taken unchanged. The term of joins per minute is 1 up to 2 joins
    and falls linearly to 0 at 20. Terms that cannot be computed (smoothness without features) are left out of the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.render import count_clicks, join_times
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.editing.joins import sound_of_beats, step_percentiles
from editorbot_core.songs.song import Song

BEAT_TOLERANCE_S = 0.07
QUALITY_WEIGHTS = MappingProxyType(
    {
        "bar_position_continues": 0.30,
        "four_bar_continues": 0.15,
        "phrase_both_sides": 0.10,
        "smoothness": 0.20,
        "coverage": 0.15,
        "joins_per_minute": 0.10,
    }
)
LENGTH_ERROR_FREE, LENGTH_ERROR_FATAL = 0.02, 0.20
JOINS_PER_MINUTE_FREE, JOINS_PER_MINUTE_FATAL = 2.0, 20.0
ROUGH_FROM_PERCENTILE = 0.9

# Columns that describe sound; those of the grid repeat every bar and say nothing about a join.


class Joins(NamedTuple):
    """The joins of an edit, in seconds from the start of the source.

    Attributes:
        exits: float64 (n_joins,).
        entries: float64 (n_joins,).
    """

    exits: np.ndarray
    entries: np.ndarray


class Reference(NamedTuple):
    """The truth, or the estimate, that an edit is judged against.

    Attributes:
        grid: Beats and bar positions.
        sections: Phrases by each annotator, never empty; coverage counts the labels of the first.
        origin: `annotation` or `estimated`.
    """

    grid: BeatGrid
    sections: tuple[tuple[Section, ...], ...]
    origin: str


@dataclass(frozen=True)
class EditMetrics:
    """One field per metric; see the functions of the same names.

    Attributes:
        reference: `annotation` or `estimated`.
        n_joins: Joins in the edit.
        joins_per_minute: Joins per minute of the edit.
        joins_on_downbeat: Share of joins whose exit and entry are both on a downbeat.
        bar_position_continues: Share of joins at which beat k of a bar is followed by beat k + 1.
        four_bar_continues: Share of joins at which the beat and the bar's place mod 4 in its phrase continue.
        phrase_both_sides: Share of joins that leave at a phrase end and enter at a phrase start.
        step_percentile: Mean over the joins of the feature step's percentile among the song's own steps, in [0, 1].
        smoothness: Mean over the joins of `smoothness`.
        start_kept: Whether the edit starts as the song does.
        end_kept: Whether the edit ends as the song does.
        coverage: Share of the section labels with an occurrence of which at least half is played.
        length_error: Absolute error of the length over the target length.
        duration_s: Length of the edit, s.
        clicks: Joins at which the waveform is discontinuous; None if nothing was rendered.
        quality: In [0, 100], defined in the docstring of the module.
    """

    reference: str
    n_joins: int
    joins_per_minute: float
    joins_on_downbeat: float | None
    bar_position_continues: float | None
    four_bar_continues: float | None
    phrase_both_sides: float | None
    step_percentile: float | None
    smoothness: float | None
    start_kept: bool
    end_kept: bool
    coverage: float
    length_error: float
    duration_s: float
    clicks: int | None
    quality: float


def validate(edl: EditDecisionList, reference: Reference) -> None:
    """Check that the edit and the reference are of one song.

    Raises:
        ParameterError: If there are no segments or no sections, or the durations differ by more than a second.
    """
    if not edl.segments:
        raise ParameterError("an edit without segments cannot be judged")
    if not reference.sections or not all(reference.sections):
        raise ParameterError("a reference needs at least one section; is the annotation empty?")
    if abs(edl.grid.duration - reference.grid.duration) > 1.0:
        raise ParameterError(
            f"the edit's song lasts {edl.grid.duration:.2f} s and the reference's {reference.grid.duration:.2f} s; "
            "are they the same song?"
        )


def annotated_reference(annotation: Annotation) -> Reference:
    """The reference of an annotation."""
    sections = tuple(rows for rows in (annotation.sections, annotation.sections_alt) if rows)
    return Reference(annotation.grid, sections, "annotation")


def estimated_reference(song: Song) -> Reference:
    """The song's own estimates as reference: phrases start where that is likely (0.5) or the material changes."""
    structure = song.structure
    starts = (structure.phrase_start >= 0.5) | (np.diff(structure.cluster, prepend=-1) != 0)
    starts[0] = True
    first = np.flatnonzero(starts)
    bounds = song.units.bounds(song.grid)
    # A phrase starts on its first beat: the lead-in belongs to the first unit but not to the first phrase.
    at = song.grid.times[song.units.first_beats[first]]
    ends = np.append(at[1:], bounds[-1])
    sections = tuple(
        Section(float(start), float(end), str(structure.cluster[unit]))
        for unit, start, end in zip(first, at, ends, strict=True)
    )
    return Reference(song.grid, (sections,), "estimated")


def find_joins(segments: Sequence[Segment]) -> Joins:
    """Exits and entries of the joins of an edit.

    Examples:
        >>> find_joins([Segment(0.0, 4.0), Segment(4.0, 6.0), Segment(12.0, 16.0)])
        Joins(exits=array([6.]), entries=array([12.]))
    """
    pairs = [(a.end_s, b.start_s) for a, b in pairwise(segments) if abs(b.start_s - a.end_s) > 1e-6]
    both = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return Joins(both[:, 0], both[:, 1])


def nearest_beats(reference_grid: BeatGrid, times_s: np.ndarray) -> np.ndarray:
    """Index of the reference beat within 70 ms of each time, or -1, int64 (n,).

    Examples:
        >>> grid = BeatGrid(np.array([0.5, 1.0, 1.5]), np.array([1, 2, 3]), duration=2.0)
        >>> nearest_beats(grid, np.array([0.52, 0.8, 1.45]))
        array([ 0, -1,  2])
    """
    times = reference_grid.times
    after = np.clip(np.searchsorted(times, times_s), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(times[before] - times_s) < np.abs(times[after] - times_s), before, after)
    return np.where(np.abs(times[nearest] - times_s) <= BEAT_TOLERANCE_S, nearest, -1)


def joins_on_downbeat(reference: Reference, joins: Joins) -> np.ndarray:
    """Whether exit and entry are both on a downbeat, bool (n_joins,)."""
    exits, entries = (nearest_beats(reference.grid, times) for times in joins)
    positions = reference.grid.positions
    return (exits >= 0) & (entries >= 0) & (positions[exits] == 1) & (positions[entries] == 1)


def bar_position_continues(reference: Reference, joins: Joins) -> np.ndarray:
    """Whether the entry has the bar position that the beat after the exit would have had, bool (n_joins,)."""
    exits, entries = (nearest_beats(reference.grid, times) for times in joins)
    positions = reference.grid.positions
    return (exits >= 0) & (entries >= 0) & (positions[exits] == positions[entries])


def _bars_in_phrase(grid: BeatGrid, sections: Sequence[Section]) -> np.ndarray:
    """Bars since the phrase of each beat began, int64 (n_beats,); a pick-up counts into the bar before it."""
    bars = np.cumsum(grid.positions == 1)
    starts = np.array([section.start_s for section in sections]) - BEAT_TOLERANCE_S
    phrase = np.searchsorted(starts, grid.times, side="right")
    # Before the first phrase, bars count from the first downbeat.
    first_beat = np.append(0, np.minimum(np.searchsorted(grid.times, starts), grid.n_beats - 1))
    first_bar = np.append(1, bars[first_beat[1:]])
    return bars - first_bar[phrase]


def four_bar_continues(reference: Reference, joins: Joins) -> np.ndarray:
    """Whether the bar position and the bar's position mod 4 in its phrase continue, for either annotator.

    Bool (n_joins,). The position expected after an exit is that of the beat that would have followed.
    """
    exits, entries = (nearest_beats(reference.grid, times) for times in joins)
    agree = np.zeros(len(exits), dtype=bool)
    for sections in reference.sections:
        bars = _bars_in_phrase(reference.grid, sections)
        agree |= (bars[exits] - bars[entries]) % 4 == 0
    return agree & bar_position_continues(reference, joins)


def _near(times_s: np.ndarray, marks_s: np.ndarray, tolerance_s: float) -> np.ndarray:
    return (np.abs(times_s[:, None] - marks_s[None]) <= tolerance_s).any(axis=1)


def _half_beat(grid: BeatGrid) -> float:
    return 30.0 / grid.tempo if grid.tempo else BEAT_TOLERANCE_S


def phrase_both_sides(reference: Reference, joins: Joins) -> np.ndarray:
    """Whether a phrase ends at the exit and a phrase starts at the entry, for either annotator, bool (n_joins,).

    Both to within half a beat.
    """
    tolerance_s = _half_beat(reference.grid)
    agree = np.zeros(len(joins.exits), dtype=bool)
    for sections in reference.sections:
        ends = np.array([section.end_s for section in sections])
        starts = np.array([section.start_s for section in sections])
        agree |= _near(joins.exits, ends, tolerance_s) & _near(joins.entries, starts, tolerance_s)
    return agree


def percentiles_at_joins(features: BeatFeatures, joins: Joins) -> np.ndarray:
    """Share of the song's own beat-to-beat feature steps that are smaller than the step at each join, (n_joins,).

    A step is the Euclidean distance from the last beat heard before the join to the first one after it, as
    `editing.joins.step_percentiles` measures it; the search minimises the same quantity at bounds of units.
    """
    sound = sound_of_beats(features.values)
    # A moved join still belongs to the beats on either side of it.
    bounds, slack_s = features.grid.bounds, 0.5 * BEAT_TOLERANCE_S
    last = np.clip(np.searchsorted(bounds, joins.exits - slack_s, side="right") - 1, 0, features.n_beats - 1)
    first = np.clip(np.searchsorted(bounds, joins.entries + slack_s, side="right") - 1, 0, features.n_beats - 1)
    return step_percentiles(sound, np.linalg.norm(sound[last] - sound[first], axis=1))


def smoothness(percentiles: np.ndarray) -> np.ndarray:
    """1 up to the 90th percentile of the song's own steps, falling linearly to 0 at the largest, (n_joins,).

    Examples:
        >>> smoothness(np.array([0.2, 0.9, 0.95, 1.0])).round(2)
        array([1. , 1. , 0.5, 0. ])
    """
    return 1.0 - np.clip((percentiles - ROUGH_FROM_PERCENTILE) / (1.0 - ROUGH_FROM_PERCENTILE), 0.0, 1.0)


def start_kept(segments: Sequence[Segment]) -> bool:
    """Whether the edit begins within 70 ms of the start of the file."""
    return segments[0].start_s <= BEAT_TOLERANCE_S


def end_kept(segments: Sequence[Segment], duration_s: float) -> bool:
    """Whether the edit ends within 70 ms of the end of the file."""
    return segments[-1].end_s >= duration_s - BEAT_TOLERANCE_S


def coverage(reference: Reference, segments: Sequence[Segment]) -> float:
    """Share of the first annotator's labels with an occurrence of which at least half is played.

    Examples:
        Half of the first phrase is enough, a quarter of the second is not:

        >>> grid = BeatGrid(np.arange(0.0, 16.0, 0.5), np.tile([1, 2, 3, 4], 8), duration=16.0)
        >>> reference = Reference(grid, ((Section(0.0, 8.0, "A"), Section(8.0, 16.0, "B")),), "annotation")
        >>> coverage(reference, [Segment(0.0, 4.0), Segment(14.0, 16.0)])
        0.5
    """
    starts = np.array([segment.start_s for segment in segments])
    order = np.argsort(starts)
    starts, ends = starts[order], np.array([segment.end_s for segment in segments])[order]
    # Parts that are played twice count once.
    starts = np.maximum(starts, np.maximum.accumulate(np.append(0.0, ends[:-1])))
    heard: dict[str, bool] = {}
    for section in reference.sections[0]:
        overlap = np.minimum(ends, section.end_s) - np.maximum(starts, section.start_s)
        share = np.maximum(overlap, 0.0).sum() / (section.end_s - section.start_s)
        heard[section.label] = heard.get(section.label, False) or bool(share >= 0.5 - 1e-9)
    return sum(heard.values()) / len(heard)


def length_error(edl: EditDecisionList) -> float:
    """Absolute difference of the edit's duration and its target, over the target."""
    return abs(edl.duration_s - edl.target_duration_s) / edl.target_duration_s


def _falling(value: float, free: float, fatal: float) -> float:
    """1 up to `free`, 0 from `fatal` on, linear between."""
    return float(np.clip((fatal - value) / (fatal - free), 0.0, 1.0))


def quality(metrics: EditMetrics, *, end_on_phrase: bool) -> float:
    """The quality of an edit with these metrics, 0-100; defined in the module's docstring.

    Args:
        metrics: All other metrics; the field `quality` is ignored.
        end_on_phrase: Whether the last segment ends at a phrase end.
    """
    n_false_ends = (not metrics.start_kept) + (not metrics.end_kept)
    n_seams = metrics.n_joins + n_false_ends
    terms: dict[str, float] = {}
    for name in ("bar_position_continues", "four_bar_continues", "phrase_both_sides", "smoothness"):
        share = getattr(metrics, name)
        if share is None and metrics.n_joins:
            continue
        credit = (share or 0.0) * metrics.n_joins
        if name == "phrase_both_sides" and not metrics.end_kept and end_on_phrase:
            credit += 1.0
        terms[name] = credit / n_seams if n_seams else 1.0
    terms["coverage"] = metrics.coverage
    terms["joins_per_minute"] = _falling(metrics.joins_per_minute, JOINS_PER_MINUTE_FREE, JOINS_PER_MINUTE_FATAL)
    weight = sum(QUALITY_WEIGHTS[name] for name in terms)
    mean = sum(QUALITY_WEIGHTS[name] * value for name, value in terms.items()) / weight
    return 100.0 * _falling(metrics.length_error, LENGTH_ERROR_FREE, LENGTH_ERROR_FATAL) * mean


def edit_metrics(
    edl: EditDecisionList,
    reference: Song | Annotation,
    *,
    features: BeatFeatures | None = None,
    rendered: AudioClip | None = None,
) -> EditMetrics:
    """All metrics of one edit.

    Args:
        edl: The edit.
        reference: The song, whose annotation is used if it has one and whose estimates otherwise; or an annotation.
        features: The song's features, for the feature step at joins; by default those of the song, if it is given.
        rendered: The edit's audio, to count clicks in.

    Raises:
        ParameterError: If the edit and the reference are not of one song.

    Examples:
        Eight bars, two phrases of four; the edit skips from the third bar of A to the third bar of B. Bars and four-bar
        positions continue and half of every phrase is played, but the join is in the middle of both phrases.

        >>> from editorbot_core.analysis.beats.grid import Units
        >>> grid = BeatGrid(np.arange(0.0, 16.0, 0.5), np.tile([1, 2, 3, 4], 8), duration=16.0)
        >>> truth = Annotation("song", grid, (Section(0.0, 8.0, "A"), Section(8.0, 16.0, "B")))
        >>> keep, cut = 0, 1
        >>> edl = EditDecisionList.from_unit_actions(
        ...     np.array([keep, keep, cut, cut, cut, cut, keep, keep]), grid=grid, units=Units.bars(grid)
        ... )
        >>> metrics = edit_metrics(edl, truth)
        >>> metrics.bar_position_continues, metrics.four_bar_continues, metrics.phrase_both_sides, metrics.coverage
        (1.0, 1.0, 0.0, 1.0)
        >>> metrics.joins_per_minute, round(metrics.quality, 1)
        (7.5, 83.7)
    """
    if isinstance(reference, Song):
        features = reference.features if features is None else features
        annotation = reference.annotation
        facts = annotated_reference(annotation) if annotation else estimated_reference(reference)
    else:
        facts = annotated_reference(reference)
    validate(edl, facts)
    joins = find_joins(edl.segments)
    n_joins = len(joins.exits)

    def share(values: np.ndarray) -> float | None:
        return float(values.mean()) if n_joins else None

    percentiles = None if features is None else percentiles_at_joins(features, joins)
    phrase_ends = np.array([section.end_s for rows in facts.sections for section in rows])
    metrics = EditMetrics(
        reference=facts.origin,
        n_joins=n_joins,
        joins_per_minute=60.0 * n_joins / edl.duration_s,
        joins_on_downbeat=share(joins_on_downbeat(facts, joins)),
        bar_position_continues=share(bar_position_continues(facts, joins)),
        four_bar_continues=share(four_bar_continues(facts, joins)),
        phrase_both_sides=share(phrase_both_sides(facts, joins)),
        step_percentile=None if percentiles is None else share(percentiles),
        smoothness=None if percentiles is None else share(smoothness(percentiles)),
        start_kept=start_kept(edl.segments),
        end_kept=end_kept(edl.segments, edl.grid.duration),
        coverage=coverage(facts, edl.segments),
        length_error=length_error(edl),
        duration_s=edl.duration_s,
        clicks=None if rendered is None else count_clicks(rendered, join_times(edl.segments)),
        quality=0.0,
    )
    last_end = np.array([edl.segments[-1].end_s])
    end_on_phrase = bool(_near(last_end, phrase_ends, _half_beat(facts.grid))[0])
    return replace(metrics, quality=quality(metrics, end_on_phrase=end_on_phrase))
