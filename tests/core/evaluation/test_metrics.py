"""Every kind of edit is told apart by the metric that was made for it."""

from dataclasses import replace

import numpy as np
import pytest

from editorbot_core.analysis.beats.annotations import Section
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.baselines import keep_all, random_edit
from editorbot_core.evaluation.metrics import (
    JOINS_PER_MINUTE_FREE,
    QUALITY_WEIGHTS,
    annotated_reference,
    bar_position_continues,
    coverage,
    edit_metrics,
    estimated_reference,
    find_joins,
    four_bar_continues,
    joins_on_downbeat,
    nearest_beats,
    percentiles_at_joins,
    phrase_both_sides,
    smoothness,
)
from tests.core.evaluation.conftest import bar_s, cut_edl, phrased_song


def test_the_whole_song_at_its_own_length_is_perfect():
    song = phrased_song()
    metrics = edit_metrics(keep_all(song, song.duration), song)
    assert metrics.quality == pytest.approx(100.0)
    assert (metrics.n_joins, metrics.coverage, metrics.length_error) == (0, 1.0, 0.0)
    assert metrics.start_kept
    assert metrics.end_kept
    assert metrics.bar_position_continues is None
    assert metrics.clicks is None


def test_the_whole_song_at_half_its_length_is_worth_nothing():
    song = phrased_song()
    assert edit_metrics(keep_all(song, song.duration / 2), song).quality == 0.0


def test_cutting_a_verse_and_a_chorus_at_phrases_continues_everything():
    song = phrased_song()
    metrics = edit_metrics(cut_edl(song, bar_s(8), bar_s(24)), song)
    assert metrics.joins_on_downbeat == 1.0
    assert metrics.bar_position_continues == 1.0
    assert metrics.four_bar_continues == 1.0
    assert metrics.phrase_both_sides == 1.0
    assert metrics.coverage == 1.0
    assert metrics.n_joins == 1
    assert metrics.joins_per_minute == pytest.approx(60 / metrics.duration_s)


@pytest.mark.parametrize(
    ("exit_bar", "entry_bar", "downbeat", "bar", "four", "phrase"),
    [
        (8, 24, 1, 1, 1, 1),
        (8, 16, 1, 1, 1, 1),
        (12, 20, 1, 1, 1, 0),  # in the middle of both phrases
        (8, 20, 1, 1, 1, 0),  # leaves at a phrase end, enters in the middle
        (12, 24, 1, 1, 1, 0),
        (9, 24, 1, 1, 0, 0),  # one bar late
        (10, 24, 1, 1, 0, 0),  # two bars late
        (10.5, 22.5, 0, 1, 1, 0),  # on the third beat, which continues
        (8, 24.25, 0, 0, 0, 0),  # a beat late
        (8, 24.5, 0, 0, 0, 0),
        (8.25, 24, 0, 0, 0, 0),  # leaves a beat late
        (8.1, 24.1, 0, 0, 0, 1),  # 0.2 s from any beat on both sides
    ],
)
def test_every_kind_of_cut_is_told_apart(exit_bar, entry_bar, downbeat, bar, four, phrase):
    song = phrased_song()
    metrics = edit_metrics(cut_edl(song, bar_s(exit_bar), bar_s(entry_bar)), song)
    assert (
        metrics.joins_on_downbeat,
        metrics.bar_position_continues,
        metrics.four_bar_continues,
        metrics.phrase_both_sides,
    ) == (downbeat, bar, four, phrase)


@pytest.mark.parametrize(("shift_s", "continues"), [(0.06, 1.0), (-0.06, 1.0), (0.08, 0.0), (-0.08, 0.0)])
def test_joins_are_mapped_to_beats_with_a_tolerance_of_70_ms(shift_s, continues):
    song = phrased_song()
    metrics = edit_metrics(cut_edl(song, bar_s(8), bar_s(24) + shift_s), song)
    assert metrics.bar_position_continues == continues
    assert metrics.joins_on_downbeat == continues
    np.testing.assert_array_equal(nearest_beats(song.grid, np.array([bar_s(8) + shift_s])), 32 if continues else -1)


def test_either_annotator_may_agree_with_a_join():
    song = phrased_song()
    annotation = song.annotation
    halves = tuple(
        Section(s.start_s + offset, s.start_s + offset + 10.0 + 4 * (offset > 0) - 4.0, s.label)
        for s in annotation.sections
        for offset in (0.0, 6.0)
    )
    edl = cut_edl(song, bar_s(11), bar_s(24))
    assert edit_metrics(edl, song).phrase_both_sides == 0.0
    assert edit_metrics(edl, song).four_bar_continues == 0.0
    both = replace(annotation, sections_alt=halves)
    # The second annotator begins phrases at bars 0, 3, 8, 11, 16, ...
    assert edit_metrics(edl, both).phrase_both_sides == 1.0
    assert edit_metrics(edl, both).four_bar_continues == 1.0
    # One side by each of them is not enough.
    only_alt = replace(annotation, sections=annotation.sections[:1], sections_alt=halves[1:2])
    assert edit_metrics(cut_edl(song, bar_s(8), bar_s(24)), only_alt).phrase_both_sides == 0.0


def test_coverage_counts_labels_heard_to_half_in_one_occurrence():
    song = phrased_song()
    reference = annotated_reference(song.annotation)
    everything = [Segment(0.0, song.duration)]
    assert coverage(reference, everything) == 1.0
    # Intro, and half of the first verse.
    assert coverage(reference, [Segment(0.0, bar_s(12))]) == 2 / 4
    assert coverage(reference, [Segment(0.0, bar_s(12) - 0.1)]) == 1 / 4
    # A third of both verses is not half of one; the same third twice neither.
    assert coverage(reference, [Segment(bar_s(8), bar_s(11)), Segment(bar_s(24), bar_s(27))]) == 0.0
    assert coverage(reference, [Segment(bar_s(8), bar_s(11))] * 2) == 0.0
    # Two parts of one occurrence add up, in any order, overlapping or not.
    parts = [Segment(bar_s(13), bar_s(15)), Segment(bar_s(8), bar_s(10)), Segment(bar_s(9), bar_s(10))]
    assert coverage(reference, parts) == 1 / 4


def test_a_join_like_a_step_of_the_song_has_the_percentile_of_that_step():
    song = phrased_song()
    # All columns are alike, so steps are as large as those of one column, however columns are standardised.
    level = np.random.default_rng(1).normal(size=song.grid.n_beats)
    # Around bars 8 and 24 the same is heard, so the join is a step of the song itself.
    level[95:97] = level[31:33]
    song = replace(song, features=BeatFeatures(np.tile(level[:, None], N_FEATURES).astype(np.float32), song.grid))
    own = np.abs(np.diff(level))
    (percentile,) = percentiles_at_joins(song.features, find_joins(cut_edl(song, bar_s(8), bar_s(24)).segments))
    assert percentile == np.mean(own < own[31])
    moved = find_joins(cut_edl(song, bar_s(8), bar_s(24) - 0.012).segments)
    assert percentiles_at_joins(song.features, moved)[0] == percentile


def test_the_units_of_the_features_do_not_matter():
    song = phrased_song()
    rng = np.random.default_rng(2)
    scaled = song.features.values * rng.uniform(0.01, 100, N_FEATURES) + rng.uniform(-9, 9, N_FEATURES)
    joins = find_joins([Segment(bar_s(2 * i), bar_s(2 * i + 1)) for i in range(24)])
    in_other_units = percentiles_at_joins(BeatFeatures(scaled.astype(np.float32), song.grid), joins)
    np.testing.assert_allclose(percentiles_at_joins(song.features, joins), in_other_units, atol=2 / song.grid.n_beats)


def test_smoothness_falls_from_the_ninetieth_percentile_on():
    np.testing.assert_allclose(smoothness(np.array([0.0, 0.9, 0.95, 1.0])), [1.0, 1.0, 0.5, 0.0], atol=1e-9)


def test_a_step_larger_than_any_of_the_song_is_at_the_hundredth_percentile():
    song = phrased_song()
    values = np.repeat(np.linspace(0, 1, song.grid.n_beats)[:, None], N_FEATURES, axis=1).astype(np.float32)
    song = replace(song, features=BeatFeatures(values, song.grid))
    metrics = edit_metrics(cut_edl(song, bar_s(8), bar_s(24)), song)
    assert (metrics.step_percentile, metrics.smoothness) == (1.0, 0.0)


def test_starts_and_ends_that_are_not_the_songs_own_count_as_failed_seams():
    song = phrased_song()
    ends_on_phrase = replace(keep_all(song, bar_s(24)), segments=(Segment(0.0, bar_s(24)),))
    metrics = edit_metrics(ends_on_phrase, song)
    assert (metrics.start_kept, metrics.end_kept, metrics.n_joins) == (True, False, 0)
    kept = (
        QUALITY_WEIGHTS["phrase_both_sides"] + 0.75 * QUALITY_WEIGHTS["coverage"] + QUALITY_WEIGHTS["joins_per_minute"]
    )
    assert metrics.quality == pytest.approx(100 * kept)
    elsewhere = replace(ends_on_phrase, segments=(Segment(0.0, bar_s(22)),), target_duration_s=bar_s(22))
    assert edit_metrics(elsewhere, song).quality == pytest.approx(100 * (kept - QUALITY_WEIGHTS["phrase_both_sides"]))
    late = replace(ends_on_phrase, segments=(Segment(2.0, song.duration),), target_duration_s=song.duration - 2.0)
    assert not edit_metrics(late, song).start_kept
    assert edit_metrics(late, song).quality < 60


@pytest.mark.parametrize(("error", "factor"), [(0.0, 1.0), (0.02, 1.0), (0.11, 0.5), (0.2, 0.0), (0.5, 0.0)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_length_error_scales_quality(error, factor, sign):
    song = phrased_song()
    edl = cut_edl(song, bar_s(8), bar_s(24))
    missed = replace(edl, target_duration_s=edl.duration_s / (1 + sign * error))
    best = edit_metrics(edl, song).quality
    assert edit_metrics(missed, song).length_error == pytest.approx(error)
    assert edit_metrics(missed, song).quality == pytest.approx(factor * best, abs=1e-6)


def test_weights_sum_to_one_and_name_metrics():
    assert sum(QUALITY_WEIGHTS.values()) == pytest.approx(1.0)
    assert set(QUALITY_WEIGHTS) <= set(
        edit_metrics(keep_all(phrased_song(), 50.0), phrased_song()).__dataclass_fields__
    )


def test_many_joins_cost_quality():
    song = phrased_song()

    def metrics_of(n_joins):
        # The verse again and again: every join is from the end of a phrase to the start of one.
        again = (Segment(bar_s(8), bar_s(16)),) * n_joins
        segments = (Segment(0.0, bar_s(16)), *again, Segment(bar_s(16), song.duration))
        edl = replace(keep_all(song, sum(s.duration_s for s in segments)), segments=segments)
        return edit_metrics(edl, song.annotation)

    few, *many = (metrics_of(n_joins) for n_joins in (1, 10, 20, 40))
    assert few.joins_per_minute < JOINS_PER_MINUTE_FREE
    assert few.quality == pytest.approx(100.0)
    assert [metrics.n_joins for metrics in many] == [10, 20, 40]
    assert few.quality > many[0].quality > many[1].quality > many[2].quality
    # Nothing else is worse.
    for metrics in many:
        same = replace(
            metrics, n_joins=1, joins_per_minute=few.joins_per_minute, duration_s=few.duration_s, quality=100.0
        )
        assert same == replace(few, quality=100.0)


def test_without_an_annotation_the_estimates_stand_in_and_the_result_says_so():
    song, annotated = phrased_song(annotated=False), phrased_song()
    edl = cut_edl(song, bar_s(8), bar_s(24))
    by_estimate, by_annotation = edit_metrics(edl, song), edit_metrics(edl, annotated)
    assert (by_estimate.reference, by_annotation.reference) == ("estimated", "annotation")
    assert replace(by_estimate, reference="annotation") == by_annotation
    reference = estimated_reference(song)
    assert [s.start_s for s in reference.sections[0]] == pytest.approx([bar_s(8 * i) for i in range(6)])
    assert len({s.label for s in reference.sections[0]}) == 4
    # Either evidence alone is enough: likely starts, or a change of material.
    structure = song.structure
    for part in (
        replace(structure, cluster=np.zeros_like(structure.cluster)),
        replace(structure, phrase_start=np.zeros_like(structure.phrase_start)),
    ):
        assert len(estimated_reference(replace(song, structure=part)).sections[0]) == 6


def test_an_annotation_alone_judges_everything_but_smoothness():
    song = phrased_song()
    edl = cut_edl(song, bar_s(8), bar_s(24))
    metrics = edit_metrics(edl, song.annotation)
    assert metrics.smoothness is None
    assert metrics.quality == pytest.approx(100.0)
    assert edit_metrics(edl, song.annotation, features=song.features) == edit_metrics(edl, song)


def test_clicks_are_counted_in_rendered_audio():
    song = phrased_song()
    rate = 8000
    t = np.arange(int(song.duration * rate)) / rate
    clip = AudioClip(np.sin(2 * np.pi * 110.0 * t).astype(np.float32)[None], rate)
    edl = cut_edl(song, bar_s(8), bar_s(24))
    assert edit_metrics(edl, song, rendered=clip).clicks == 0
    broken = clip.samples.copy()
    broken[:, int(edl.segments[0].duration_s * rate) :] *= -1
    broken += 0.3 * np.sign(np.arange(broken.shape[1]) - edl.segments[0].duration_s * rate).astype(np.float32)
    assert edit_metrics(edl, song, rendered=AudioClip(broken, rate)).clicks == 1


def test_edits_of_another_song_are_refused():
    song, other = phrased_song(), phrased_song(n_phrases=4)
    with pytest.raises(ParameterError, match="same song"):
        edit_metrics(keep_all(other, 50.0), song)
    with pytest.raises(ParameterError, match="section"):
        edit_metrics(keep_all(song, 50.0), replace(song.annotation, sections=()))
    with pytest.raises(ParameterError, match="segments"):
        edit_metrics(replace(keep_all(song, 50.0), segments=()), song)


# One value per join; what is computed from the features takes them from the song.
PER_JOIN = {
    "joins_on_downbeat": lambda song, joins: joins_on_downbeat(annotated_reference(song.annotation), joins),
    "bar_position_continues": lambda song, joins: bar_position_continues(annotated_reference(song.annotation), joins),
    "four_bar_continues": lambda song, joins: four_bar_continues(annotated_reference(song.annotation), joins),
    "phrase_both_sides": lambda song, joins: phrase_both_sides(annotated_reference(song.annotation), joins),
    "step_percentile": lambda song, joins: percentiles_at_joins(song.features, joins),
    "smoothness": lambda song, joins: smoothness(percentiles_at_joins(song.features, joins)),
}
# (what is perfect, what is worst)
PER_EDIT = {
    **dict.fromkeys(PER_JOIN, (1.0, 0.0)),
    "step_percentile": (0.0, 1.0),
    "start_kept": (True, False),
    "end_kept": (True, False),
    "coverage": (1.0, 0.0),
    "length_error": (0.0, 0.5),
    "quality": (100.0, 0.0),
}


def song_of_levels(**levels):
    """A song whose features are one level per beat, rising by 1 except where another level is given."""
    song = phrased_song()
    level = np.arange(1.0, song.grid.n_beats + 1.0)
    for beat, value in levels.items():
        level[int(beat[1:])] = value
    return replace(song, features=BeatFeatures(np.tile(level[:, None], N_FEATURES).astype(np.float32), song.grid))


@pytest.mark.parametrize("metric", PER_JOIN)
def test_no_joins_have_no_values_and_a_share_of_none_is_none(metric):
    song = phrased_song()
    assert PER_JOIN[metric](song, find_joins([Segment(0.0, song.duration)])).shape == (0,)
    assert getattr(edit_metrics(keep_all(song, song.duration), song), metric) is None


@pytest.mark.parametrize("metric", PER_EDIT)
def test_an_edit_that_nothing_can_be_heard_of_is_perfect(metric):
    # Verse and chorus go; around the join, and nowhere else, the level stays as it is.
    song = song_of_levels(b31=40.0, b32=40.0, b95=40.0, b96=40.0)
    value = getattr(edit_metrics(cut_edl(song, bar_s(8), bar_s(24)), song), metric)
    assert value == pytest.approx(PER_EDIT[metric][0], abs=0.02)


@pytest.mark.parametrize("metric", PER_EDIT)
def test_an_edit_that_is_wrong_in_everything_is_worst(metric):
    # From the middle of one phrase, off the beat, to the middle of another, at the largest step of the song.
    song = song_of_levels(b48=-900.0, b110=900.0)
    segments = (Segment(bar_s(12.1), bar_s(12.15)), Segment(bar_s(27.6), bar_s(27.7)))
    duration_s = sum(s.duration_s for s in segments)
    edl = replace(keep_all(song, 2 * duration_s), segments=segments)
    assert getattr(edit_metrics(edl, song), metric) == pytest.approx(PER_EDIT[metric][1])


@pytest.mark.parametrize("metric", PER_EDIT)
def test_every_metric_stays_in_its_range_for_any_edit(metric):
    low, high = sorted(map(float, PER_EDIT[metric]))
    if metric == "length_error":
        high = np.inf
    for seed in range(12):
        song, rng = phrased_song(seed=seed, annotated=bool(seed % 2)), np.random.default_rng(seed)
        edl = random_edit(song, float(rng.uniform(0.1, 1.5)) * song.duration, rng=rng)
        value = getattr(edit_metrics(edl, song), metric)
        assert value is None or low <= value <= high
