import numpy as np
import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.demo.composition import Phrase, compose_score, parse_form
from editorbot_core.songs.demo.synthesis import DRUMS, INSTRUMENTS, PARTS

FORMS = [("i4 A8 A8 B8 A8 o2", 4), ("i2 A6 B5 c3 A6 X5 B5 o3", 4), ("A8 B8 c2 A8 o4", 3)]


def score_of(form="i2 A4 B4 A4 o2", beats_per_bar=4, seed=0, pickup_beats=0):
    return compose_score(form, beats_per_bar=beats_per_bar, pickup_beats=pickup_beats, rng=np.random.default_rng(seed))


def test_a_form_is_read_as_phrases():
    assert parse_form("i4 A8 o2") == (Phrase("i", 4, 0), Phrase("A", 8, 4), Phrase("o", 2, 12))


@pytest.mark.parametrize("form", ["", "A", "8", "A0", "A8 ?4"])
def test_other_words_are_no_form(form):
    with pytest.raises(ParameterError):
        parse_form(form)


@pytest.mark.parametrize(("form", "beats_per_bar"), FORMS)
@pytest.mark.parametrize("seed", range(8))
def test_every_event_is_playable_and_within_the_song(form, beats_per_bar, seed):
    score = score_of(form, beats_per_bar, seed, pickup_beats=2)
    end = score.n_bars * beats_per_bar
    assert all(-2 <= event.beat <= end + 0.1 for event in score.events)
    assert all(event.part in PARTS and event.gain > 0 for event in score.events)
    assert all(event.instrument in (DRUMS if event.part == "drums" else INSTRUMENTS) for event in score.events)
    assert all(event.beats > 0 and 28 <= event.pitch <= 100 for event in score.events if event.part != "drums")
    assert {event.part for event in score.events} == set(PARTS)


@pytest.mark.parametrize(("form", "beats_per_bar"), FORMS)
@pytest.mark.parametrize("seed", range(8))
def test_different_letters_differ_in_chords_melody_and_accompaniment(form, beats_per_bar, seed):
    materials = list(score_of(form, beats_per_bar, seed).materials.values())
    for i, a in enumerate(materials):
        for b in materials[:i]:
            if min(len(a.chords), len(b.chords)) > 3:
                assert [bar[0] for bar in a.chords[:3]] != [bar[0] for bar in b.chords[:3]]
            assert a.melody != b.melody or a.melody == ()
            assert (a.comp, a.bass) != (b.comp, b.bass)


def test_every_bar_has_chords_and_every_phrase_its_length():
    score = score_of("i2 A6 B5 c3 A6 X5 B5 o3")
    assert score.n_bars == 35
    assert {label: len(m.chords) for label, m in score.materials.items()} == {
        "i": 2, "A": 6, "B": 5, "c": 3, "X": 5, "o": 3,
    }  # fmt: skip


def test_small_letters_have_no_melody():
    score = score_of("i2 A4 c4 A4 o2")
    assert score.materials["A"].melody
    assert all(score.materials[label].melody == () for label in "ico")


@pytest.mark.parametrize("seed", range(5))
def test_a_repeat_is_the_same_music_with_small_changes(seed):
    score = score_of("A8 A8", seed=seed)
    first, second = (
        {
            (e.beat - 32 * k, e.pitch)
            for e in score.events
            if e.part in ("bass", "other") and 32 * k <= e.beat < 32 * (k + 1)
        }
        for k in range(2)
    )
    assert first == second
    melody = [
        {(e.beat - 32 * k, e.pitch) for e in score.events if e.part == "vocals" and 32 * k <= e.beat < 32 * (k + 1)}
        for k in range(2)
    ]
    assert len(melody[0] & melody[1]) >= 0.6 * len(melody[0])


def test_one_note_in_ten_of_a_returning_melody_is_changed():
    kept, total = 0, 0
    for seed in range(20):
        first, second = (
            {
                (e.beat - 32 * k, e.beats, e.pitch)
                for e in score_of("A8 A8", seed=seed).events
                if e.part == "vocals" and 32 * k <= e.beat < 32 * (k + 1)
            }
            for k in range(2)
        )
        kept += len(first & second)
        total += len(first)
    assert 0.85 < kept / total < 0.99


def test_repeats_are_not_all_the_same():
    drums = [
        {(e.beat - 32 * k, e.instrument) for e in score_of("A8 A8").events if e.part == "drums" and e.beat // 32 == k}
        for k in range(2)
    ]
    assert drums[0] != drums[1]


def test_melodies_stay_in_the_key():
    score = score_of("A8 B8 C8", seed=4)
    for material in score.materials.values():
        assert {pitch % 12 for _, _, pitch in material.melody} <= material.key.pitch_classes


@pytest.mark.parametrize("seed", range(5))
def test_bridges_leave_the_key(seed):
    score = score_of("A8 B8 C8", seed=seed)
    assert score.materials["C"].key.tonic != score.materials["A"].key.tonic


def test_pickup_strokes_come_before_the_first_downbeat():
    assert min(e.beat for e in score_of(pickup_beats=2).events) == -2
    assert min(e.beat for e in score_of(pickup_beats=0).events) == 0


def test_the_song_ends_on_the_tonic():
    score = score_of(seed=2)
    home = score.materials["i"].key
    final = {e.pitch % 12 for e in score.events if e.beat >= score.n_bars * 4 and e.part != "drums"}
    assert final == set(home.chord("I" if home.mode == "major" else "i").pitch_classes)
