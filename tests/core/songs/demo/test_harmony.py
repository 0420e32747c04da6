"""Chords are those of the key, and phrases close as they should."""

import numpy as np

from editorbot_core.songs.demo.harmony import Chord, Key, harmonise


def test_numerals_are_chords_of_the_key():
    assert Key(0, "major").chord("vi") == Chord(9, "min")
    assert Key(9, "minor").chord("VI") == Chord(5, "maj")
    assert Key(7, "major").chord("V").label == "D:maj"
    assert Chord(0, "maj").voiced(60) == (55, 60, 64)


def test_phrases_close_on_the_tonic_or_lead_on():
    rng = np.random.default_rng(0)
    key = Key(2, "major")
    assert harmonise(key, "I V vi IV", 5, ends_at_home=True, rng=rng)[-1][-1] == key.chord("I")
    assert harmonise(key, "I V vi IV", 5, ends_at_home=False, rng=rng)[-1][-1] == key.chord("V")
    assert [bar[0] for bar in harmonise(key, "I V vi IV", 3, ends_at_home=True, rng=rng)[:2]] == [
        key.chord("I"),
        key.chord("V"),
    ]
