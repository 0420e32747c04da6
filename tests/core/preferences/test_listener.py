from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import FEATURE_INDEX, N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, LOOP_4, edl_of
from editorbot_core.preferences.listener import BootstrapListener, chroma_context_distance, hear
from editorbot_core.preferences.preference import EditPair
from tests.core.conftest import make_song

CHROMA = slice(FEATURE_INDEX["chroma_c"], FEATURE_INDEX["chroma_b"] + 1)


def sung(labels="AABBAACC", *, annotated=True, grid_shift_beats=0):
    """Sections of four bars; every bar of a section has chords of its own, equal in sections of equal label."""
    rng = np.random.default_rng(0)
    chords = {label: rng.random((16, 12)) ** 3 for label in sorted(set(labels))}
    values = np.full((16 * len(labels), N_FEATURES), 0.1, dtype=np.float32)
    values[:, CHROMA] = np.concatenate([chords[label] for label in labels])
    even = {"beat_s": 0.5, "jitter": 0.0, "first_s": 0.0, "tail_s": 0.0}
    song = make_song(values=values, labels=labels, annotated=annotated, estimated=True, **even)
    if not grid_shift_beats:
        return song
    grid = BeatGrid(song.grid.times, (song.grid.positions + grid_shift_beats - 1) % 4 + 1, song.duration)
    units = Units.bars(grid)
    return replace(song, features=BeatFeatures(values, grid), units=units, structure=estimate_structure(values, units))


def cut(song, first, last, target_s=None):
    """The edit without units first to last - 1; its target is its duration unless given."""
    actions = np.full(song.units.n_units, KEEP)
    actions[first:last] = CUT
    heard = song.unit_durations[actions == KEEP].sum()
    return edl_of(song, actions, target_duration_s=float(target_s or heard))


@pytest.fixture
def song():
    return sung()


@pytest.fixture
def listener():
    return BootstrapListener()


def test_the_whole_song_for_its_own_length_has_no_fault(song, listener):
    assert listener.utility(song, cut(song, 0, 0)) == 0.0


def test_a_whole_repeated_section_is_the_best_cut(song, listener):
    by_start = [listener.utility(song, cut(song, k, k + 4)) for k in range(1, 27)]
    # The second of two equal sections: the cut is at phrase boundaries, in phase, and nothing is missed.
    assert int(np.argmax(by_start)) + 1 in (4, 12, 20)
    assert sorted(np.argsort(by_start)[-6:] + 1) == [4, 8, 12, 16, 20, 24]


@pytest.mark.parametrize("fault", ["phase", "coverage", "start", "end", "length", "loop", "many joins"])
def test_every_fault_costs(song, listener, fault):
    good = listener.utility(song, cut(song, 4, 8))
    actions = cut(song, 4, 8).unit_actions
    target_s = song.duration - 8.0
    if fault == "phase":
        worse = cut(song, 4, 7, target_s=song.duration - 6.0)
    elif fault == "coverage":
        worse = cut(song, 24, 32)
    elif fault == "start":
        worse = cut(song, 0, 4)
    elif fault == "end":
        worse = cut(song, 28, 32)
    elif fault == "length":
        worse = cut(song, 4, 8, target_s=0.7 * target_s)
    else:
        changed = actions.copy()
        if fault == "loop":
            changed[10] = LOOP_4
            changed[[12, 13, 14]] = CUT
        else:
            changed[4:8] = KEEP
            changed[[5, 10, 15, 20]] = CUT
        worse = edl_of(song, changed, target_duration_s=target_s)
    assert listener.utility(song, worse) < good - 0.2


def flat_chords(labels):
    """A song whose chords never change, so that only bars, phrases and labels tell places apart."""
    song = sung(labels)
    values = np.full_like(song.features.values, 0.1)
    return replace(song, features=BeatFeatures(values, song.grid))


def test_the_place_in_the_phrase_has_to_go_on():
    heard = hear(flat_chords("AABB"), Units.bars(flat_chords("AABB").grid))
    assert heard.annoyance[5, 10] > heard.annoyance[5, 9] + 0.08
    assert heard.annoyance[4, 8] < heard.annoyance[5, 9] - 0.08


def test_material_that_is_never_heard_is_missed(listener):
    song = flat_chords("AABCAADD")
    repeated, unique = (listener.utility(song, cut(song, first, first + 4)) for first in (4, 12))
    assert repeated > unique + 0.3


def test_one_unit_three_times_more_is_worse_than_three_units_once_more(listener):
    song = flat_chords("AABB")

    def utility(**repeated):
        actions = np.full(song.units.n_units, KEEP)
        for unit, action in repeated.items():
            actions[int(unit[1:])] = action
        return listener.utility(song, edl_of(song, actions, target_duration_s=song.duration + 6.0))

    spread, stuck = utility(u5=LOOP_2, u9=LOOP_2, u13=LOOP_2), utility(u5=LOOP_4)
    assert spread < 0 and spread - stuck == pytest.approx(0.8, abs=0.01)


def test_annotated_bars_count_where_the_grid_is_wrong(listener):
    """A grid half a bar off: joins between its 'bars' still continue the true bar, and the listener knows."""
    shifted = sung(grid_shift_beats=2)
    heard = hear(shifted, shifted.units)
    truth = hear(sung(), sung().units)
    assert heard.from_annotation and truth.from_annotation
    # Unit 5 of the shifted grid starts two beats before bar 5; phrase starts are half heard there.
    assert heard.annoyance[5, 9] == pytest.approx(truth.annoyance[5, 9], abs=0.35)
    by_beat = hear(sung(), Units.beats(128))
    assert by_beat.annoyance[17, 34] > by_beat.annoyance[17, 33] + 0.2


def test_without_an_annotation_structure_is_estimated(listener):
    song = sung(annotated=False)
    heard = hear(song, song.units)
    assert not heard.from_annotation
    utilities = [listener.utility(song, cut(song, k, k + 4)) for k in (4, 6)]
    assert utilities[0] > utilities[1]


def test_the_chord_distance_is_zero_where_playback_goes_on(song):
    distance = chroma_context_distance(song.features.values, song.units)
    assert np.allclose(np.diagonal(distance), 0, atol=1e-9)
    assert distance.min() >= 0 and distance.max() <= 1
    # Bars 1 and 5 of a repeated section sound alike on both sides.
    assert distance[1, 5] == pytest.approx(0, abs=1e-6) and distance[1, 9] > 0.2


def test_the_temperature_is_the_bradley_terry_one(song):
    """Answers to one pair are drawn with the probabilities that are documented."""
    listener = BootstrapListener(temperature=1.0, tie_band=0.0)
    pair = EditPair.of(cut(song, 4, 8, 56.0), cut(song, 5, 9, 56.0), origin="test")
    gap = listener.gap(song, pair)
    expected = 1 / (1 + np.exp(-gap))
    rng = np.random.default_rng(0)
    share = np.mean([listener.prefer(song, pair, rng).label for _ in range(600)])
    assert 0.55 < expected < 0.95
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 600))


def test_the_ceiling_is_what_the_best_predictor_reaches(song):
    listener = BootstrapListener(temperature=1.0, tie_band=1.5)
    pairs = [
        EditPair.of(cut(song, a, a + 4, 56.0), cut(song, b, b + 4, 56.0), origin="test")
        for a in range(2, 8)
        for b in range(13, 19)
    ]
    rng = np.random.default_rng(1)
    right = []
    for pair in pairs:
        gap = listener.gap(song, pair)
        answers = [listener.prefer(song, pair, rng) for _ in range(20)]
        right += [(p.label == 1) == (gap > 0) for p in answers if not p.is_tie]
    assert listener.bayes_ceiling([song], pairs) == pytest.approx(np.mean(right), abs=0.04)
    assert np.isnan(listener.bayes_ceiling([song], []))


def test_answers_say_who_gave_them_and_how_sure(song, listener):
    good, bad = cut(song, 4, 8, 56.0), cut(song, 0, 20, 56.0)
    answer = listener.prefer(song, EditPair.of(good, bad, origin="test"), np.random.default_rng(0), round=2)
    assert (answer.source, answer.rater, answer.round) == ("bootstrap", "bootstrap-listener-1", 2)
    assert (answer.label, answer.strength) == (1.0, 3) and answer.confidence > 0.95
    same = listener.prefer(song, EditPair.of(good, good, origin="test"), np.random.default_rng(0))
    assert same.confidence < 0.9


def test_the_same_generator_gives_the_same_answer_and_id(song, listener):
    pair = EditPair.of(cut(song, 4, 8, 56.0), cut(song, 5, 9, 56.0), origin="test")
    first, again, other = (listener.prefer(song, pair, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert replace(first, created_at=again.created_at) == again
    assert first.answer_id != other.answer_id


def test_edits_of_another_song_are_refused(song, listener):
    other = sung("AABB")
    with pytest.raises(ParameterError, match="analysed again"):
        listener.utility(song, cut(other, 4, 8))


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": float("nan")}, {"tie_band": -1.0}])
def test_impossible_listeners_are_refused(settings):
    with pytest.raises(ParameterError, match="temperature must be positive"):
        BootstrapListener(**settings)


def test_answers_depend_on_seed_pair_and_round_alone(song, listener):
    target_s = song.duration - 8.0
    edits = [cut(song, first, last, target_s) for first, last in ((4, 8), (4, 9), (8, 12), (0, 4))]
    pairs = [EditPair(f"{number:032x}", a, b, origin="test") for number, (a, b) in enumerate(combinations(edits, 2), 1)]

    def labels(**options):
        answers = listener.answers([song], options.pop("pairs", pairs), **{"seed": 0, **options})
        return {answer.answer_id: answer.label for answer in answers}

    assert labels() == labels(pairs=pairs[::-1])
    assert labels().items() >= labels(pairs=pairs[2:4]).items()
    assert not labels().keys() & labels(round=1).keys()
    assert not labels().keys() & labels(seed=1).keys()
