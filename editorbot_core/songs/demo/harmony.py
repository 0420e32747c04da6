"""Keys, chords and the chord progressions of the demo songs. Pitch classes count semitones from C."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

PITCH_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_TRIADS = {"maj": (0, 4, 7), "min": (0, 3, 7)}
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")

PROGRESSIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "major": {
        "verse": ("I V vi IV", "I vi IV V", "I iii IV V", "I IV I V", "vi I IV V"),
        "chorus": ("IV V iii vi", "IV I V vi", "ii V I vi", "IV vi V I"),
        "bridge": ("ii IV vi V", "vi iii IV V", "iii vi ii V"),
        "interlude": ("IV I IV V", "I ii IV I", "vi V IV V"),
    },
    "minor": {
        "verse": ("i VI III VII", "i iv VII III", "i VII VI VII", "i v iv V"),
        "chorus": ("VI VII i III", "iv VII III VI", "III VII iv i", "VI III VII i"),
        "bridge": ("iv i VI V", "VI III iv V", "v i iv VI"),
        "interlude": ("i iv i V", "VI i VII i", "iv i iv V"),
    },
}


class Key(NamedTuple):
    """Tonic as a pitch class, and mode `major` or `minor`."""

    tonic: int
    mode: str

    @property
    def pitch_classes(self) -> frozenset[int]:
        """Pitch classes of the scale."""
        return frozenset((self.tonic + step) % 12 for step in _SCALES[self.mode])

    def chord(self, numeral: str) -> "Chord":
        """The triad of a Roman numeral, upper case major and lower case minor, on the key's own scale."""
        step = _SCALES[self.mode][_NUMERALS.index(numeral.upper())]
        return Chord((self.tonic + step) % 12, "maj" if numeral.isupper() else "min")


class Chord(NamedTuple):
    """A triad: root as a pitch class, quality `maj` or `min`."""

    root: int
    quality: str

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Root, third and fifth."""
        return tuple((self.root + step) % 12 for step in _TRIADS[self.quality])

    @property
    def label(self) -> str:
        """`root:quality`, as in annotations."""
        return f"{PITCH_NAMES[self.root]}:{self.quality}"

    def voiced(self, centre: int) -> tuple[int, ...]:
        """The three tones, each in the octave nearest to `centre`, low to high."""
        return tuple(sorted(centre - 6 + (pc - centre + 6) % 12 for pc in self.pitch_classes))


def harmonise(
    key: Key, numerals: str, bars: int, *, ends_at_home: bool, rng: np.random.Generator
) -> tuple[tuple[Chord, ...], ...]:
    """Chords per bar: those of the progression in turn; the last bar closes on the tonic or leads on by the fifth."""
    cycle = [key.chord(numeral) for numeral in numerals.split()]
    tonic = key.chord("I" if key.mode == "major" else "i")
    chords = [(cycle[i % 4],) for i in range(bars)]
    out: list[tuple[Chord, ...]] = list(chords)
    close = tonic if ends_at_home else key.chord("V")
    out[-1] = (cycle[(bars - 1) % 4], close) if bars > 1 and rng.random() < 0.5 else (close,)
    if bars >= 6 and rng.random() < 0.6:
        out[bars // 2 - 1] = (chords[bars // 2 - 1][0], key.chord("V"))
    return tuple(out)
