"""Rules that compose a song: form, melody, accompaniment and drums.

Time is counted in beats from the first downbeat, pitches are MIDI note numbers.
A form is a string such as `i4 A8 A8 B8 A8 o4`: phrases with their lengths in bars. The same letter is the same
`Material`; every time it is played the notes are varied a little.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.demo.harmony import PROGRESSIONS, Chord, Key, harmonise

# Onsets in beats within a bar, by beats per bar and density.
_RHYTHMS: Mapping[int, tuple[tuple[tuple[float, ...], ...], ...]] = {
    4: (
        ((0, 2), (0, 3), (0, 1.5), (1, 2)),
        ((0, 1, 2, 3), (0, 1.5, 2, 3), (0.5, 1, 2, 3), (0, 1, 2.5, 3)),
        ((0, 0.5, 1, 2, 2.5, 3), (0, 0.5, 1.5, 2, 3, 3.5), (0, 0.75, 1.5, 2, 2.75, 3.5), (0.5, 1, 1.5, 2, 3, 3.5)),
    ),
    3: (
        ((0,), (0, 2), (0, 1.5)),
        ((0, 1, 2), (0, 1.5, 2), (0, 2, 2.5)),
        ((0, 0.5, 1, 2), (0, 1, 1.5, 2, 2.5), (0, 0.5, 1, 1.5, 2)),
    ),
}
_COMP_PATTERNS: Mapping[int, Mapping[str, tuple[tuple[float, float], ...]]] = {
    4: {
        "sustained": ((0, 4),),
        "halves": ((0, 2), (2, 2)),
        "offbeats": ((0.5, 0.4), (1.5, 0.4), (2.5, 0.4), (3.5, 0.4)),
        "strummed": ((0, 0.9), (1, 0.45), (1.5, 0.9), (2.5, 0.45), (3, 0.9)),
        "broken": tuple((0.5 * i, 0.6) for i in range(8)),
    },
    3: {
        "sustained": ((0, 3),),
        "halves": ((0, 1.5), (1.5, 1.5)),
        "offbeats": ((1, 0.6), (2, 0.6)),
        "strummed": ((0, 0.9), (1, 0.45), (1.5, 0.45), (2, 0.9)),
        "broken": tuple((0.5 * i, 0.6) for i in range(6)),
    },
}
_BASS_PATTERNS: Mapping[int, Mapping[str, tuple[tuple[float, float, int], ...]]] = {
    4: {
        "held": ((0, 3.8, 0),),
        "halves": ((0, 1.8, 0), (2, 1.8, 7)),
        "eighths": tuple((0.5 * i, 0.45, 12 if i == 7 else 0) for i in range(8)),
        "syncopated": ((0, 1.4, 0), (1.5, 0.9, 0), (2.5, 0.9, 7), (3.5, 0.4, 12)),
        "walking": ((0, 0.9, 0), (1, 0.9, 7), (2, 0.9, 12), (3, 0.9, 7)),
    },
    3: {
        "held": ((0, 2.8, 0),),
        "halves": ((0, 1.9, 0), (2, 0.9, 7)),
        "eighths": tuple((0.5 * i, 0.45, 0) for i in range(6)),
        "syncopated": ((0, 1.4, 0), (1.5, 1.4, 7)),
        "walking": ((0, 0.9, 0), (1, 0.9, 7), (2, 0.9, 12)),
    },
}
_KICKS = {4: ((0, 2), (0, 1.5, 2), (0, 2.5), (0, 0.75, 2.5), (0, 1, 2, 3)), 3: ((0,), (0, 2.5))}
_BACKBEATS = {4: (1, 3), 3: (1, 2)}
_COMP_INSTRUMENTS = ("electric_piano", "pad", "organ", "guitar")
_BASS_INSTRUMENTS = ("picked_bass", "round_bass", "saw_bass")
_LEAD_INSTRUMENTS = ("voice", "flute", "reed", "bell", "pluck_lead")


class Phrase(NamedTuple):
    """One phrase of a form: its letter, length in bars and first bar."""

    label: str
    bars: int
    start_bar: int


class Event(NamedTuple):
    """A note of the score; times and lengths in beats. `pitch` is 0 for drums."""

    beat: float
    beats: float
    pitch: int
    gain: float
    instrument: str
    part: str
    pan: float = 0.0


@dataclass(frozen=True)
class Material:
    """The music of one letter of the form.

    Attributes:
        key: Key of the phrase.
        chords: One or two chords per bar.
        melody: (beat, beats, pitch) of the lead, beats from the start of the phrase; empty without a lead.
        lead: Instrument of the melody.
        comp: Instrument and pattern of the chords, and their central pitch.
        bass: Instrument and pattern of the bass.
        kick: Beats of the bass drum.
        drum_level: 0 for a shaker alone, 1 light, 2 full.
        gain_db: Loudness relative to the loudest phrase.
    """

    key: Key
    chords: tuple[tuple[Chord, ...], ...]
    melody: tuple[tuple[float, float, int], ...]
    lead: str
    comp: tuple[str, str, int]
    bass: tuple[str, str]
    kick: tuple[float, ...]
    drum_level: int
    gain_db: float


@dataclass(frozen=True)
class Score:
    """A composed song.

    Attributes:
        beats_per_bar: 3 or 4.
        phrases: The form; it ends on the downbeat of the final chord.
        pickup_beats: Beats that sound before the first downbeat.
        materials: Material of every letter.
        events: All notes, in no particular order.
    """

    beats_per_bar: int
    phrases: tuple[Phrase, ...]
    pickup_beats: int
    materials: Mapping[str, Material]
    events: tuple[Event, ...]

    @property
    def n_bars(self) -> int:
        """Bars before the final chord."""
        return self.phrases[-1].start_bar + self.phrases[-1].bars


def parse_form(form: str) -> tuple[Phrase, ...]:
    """Phrases of a form such as `i4 A8 o2`.

    Raises:
        ParameterError: If a word is not a letter and a number of bars.
    """
    phrases: list[Phrase] = []
    for word in form.split():
        if not (word[:1].isalpha() and word[1:].isdigit() and int(word[1:]) > 0):
            raise ParameterError(f"a phrase is a letter and a number of bars, such as A8; got {word!r} in {form!r}")
        start = phrases[-1].start_bar + phrases[-1].bars if phrases else 0
        phrases.append(Phrase(word[0], int(word[1:]), start))
    if not phrases:
        raise ParameterError("a form needs at least one phrase")
    return tuple(phrases)


def phrase_role(label: str) -> str:
    """The role of a letter in the song: intro, verse, chorus, bridge, interlude or outro."""
    named = {"i": "intro", "o": "outro", "A": "verse", "B": "chorus"}
    return named.get(label, "bridge" if label.isupper() else "interlude")


def compose_score(form: str, *, beats_per_bar: int, pickup_beats: int, rng: np.random.Generator) -> Score:
    """Compose a song of the given form in a key, mode and line-up that `rng` draws."""
    phrases = parse_form(form)
    materials = _compose_materials(phrases, beats_per_bar, rng)
    heard: dict[str, int] = {}
    events: list[Event] = []
    for i, phrase in enumerate(phrases):
        nth = heard.get(phrase.label, 0)
        heard[phrase.label] = nth + 1
        events += _play_phrase(
            materials[phrase.label], phrase, beats_per_bar, first=i == 0, last=i == len(phrases) - 1, nth=nth, rng=rng
        )
    end = (phrases[-1].start_bar + phrases[-1].bars) * beats_per_bar
    home = materials[phrases[0].label].key
    events += _final_chord(materials[phrases[-1].label], home, end)
    events += [Event(-i - 1, 0.5, 0, 0.5, "rim", "drums", 0.1) for i in range(pickup_beats)]
    return Score(beats_per_bar, phrases, pickup_beats, materials, tuple(events))


def _compose_materials(
    phrases: tuple[Phrase, ...], beats_per_bar: int, rng: np.random.Generator
) -> dict[str, Material]:
    """One material per letter, each with its own chords, register, groove and loudness."""
    home = Key(int(rng.integers(12)), "major" if rng.random() < 0.6 else "minor")
    comps = rng.permutation(_COMP_INSTRUMENTS)
    leads = rng.permutation(_LEAD_INSTRUMENTS)
    bass = str(rng.choice(_BASS_INSTRUMENTS))
    comp_patterns = rng.permutation(["sustained", "halves", "offbeats", "strummed", "broken"])
    bass_patterns = rng.permutation(["held", "halves", "eighths", "syncopated", "walking"])
    kicks = _KICKS[beats_per_bar]
    kick_order = rng.permutation(len(kicks))
    # Density of the lead, drum level, loudness and register of each role; some songs swap verse and chorus.
    traits = {
        "intro": (0, int(rng.integers(2)), -4.5, 66),
        "verse": (1, 1, -2.5, 65),
        "chorus": (2, 2, 0.0, 74),
        "bridge": (0, int(rng.integers(2)), -4.0, 70),
        "interlude": (0, 2, -1.5, 67),
        "outro": (0, 1, -3.5, 67),
    }
    if rng.random() < 0.25:
        traits["verse"], traits["chorus"] = (2, 1, -1.5, 72), (1, 2, 0.0, 66)
    used: set[str] = set()
    materials: dict[str, Material] = {}
    lengths = {phrase.label: phrase.bars for phrase in phrases}
    for i, (label, bars) in enumerate(lengths.items()):
        role = phrase_role(label)
        density, drum_level, gain_db, centre = traits[role]
        key = _key_of_role(home, role, rng)
        kind = {"intro": "verse", "outro": "chorus"}.get(role, role)
        unused = [p for p in PROGRESSIONS[key.mode][kind] if p not in used]
        numerals = str(rng.choice(unused or list(PROGRESSIONS[key.mode][kind])))
        used.add(numerals)
        chords = harmonise(key, numerals, bars, ends_at_home=role in ("chorus", "outro"), rng=rng)
        has_lead = label.isupper()
        materials[label] = Material(
            key=key,
            chords=chords,
            melody=_compose_melody(key, chords, beats_per_bar, centre, density, rng) if has_lead else (),
            lead=str(leads[1 if role == "bridge" else 0]),
            comp=(str(comps[i % 2 if role != "bridge" else 2]), str(comp_patterns[i % 5]), 54 + 2 * (i % 4)),
            bass=(bass, str(bass_patterns[i % 5])),
            kick=tuple(float(b) for b in kicks[kick_order[i % len(kicks)]]),
            drum_level=drum_level,
            gain_db=gain_db,
        )
    return materials


def _key_of_role(home: Key, role: str, rng: np.random.Generator) -> Key:
    """Bridges leave the key; choruses sometimes do."""
    if role == "bridge":
        return Key((home.tonic + int(rng.choice([3, 5, 8, 2]))) % 12, home.mode)
    if role == "chorus" and rng.random() < 0.35:
        return Key((home.tonic + 9) % 12, "minor") if home.mode == "major" else Key((home.tonic + 3) % 12, "major")
    return home


def _compose_melody(
    key: Key,
    chords: tuple[tuple[Chord, ...], ...],
    beats_per_bar: int,
    centre: int,
    density: int,
    rng: np.random.Generator,
) -> tuple[tuple[float, float, int], ...]:
    """A line of two or three motifs that follow the chords: chord tones on strong beats, scale steps between."""
    scale = [p for p in range(centre - 9, centre + 11) if p % 12 in key.pitch_classes]
    rhythms = _RHYTHMS[beats_per_bar][density]
    order = rng.permutation(len(rhythms))
    motifs = {
        letter: (rhythms[order[i % len(rhythms)]], rng.choice([-2, -1, -1, 1, 1, 2, 3, -3], size=8))
        for i, letter in enumerate("abc")
    }
    plan = ("abac" * 4)[: len(chords)]
    notes: list[tuple[float, float, int]] = []
    place = int(np.argmin([abs(p - centre) for p in scale]))
    for bar, letter in enumerate(plan):
        onsets, contour = motifs[letter]
        if bar == len(chords) - 1:
            onsets = onsets[:1] if density == 0 else (0, 1)
        for i, onset in enumerate(onsets):
            chord = chords[bar][int(onset * len(chords[bar]) / beats_per_bar)]
            place = place + int(contour[i])
            if abs(scale[min(max(place, 0), len(scale) - 1)] - centre) > 7:
                place -= 2 * int(contour[i])
            place = min(max(place, 0), len(scale) - 1)
            if onset % 2 == 0 or i == 0:
                tones = [j for j, p in enumerate(scale) if p % 12 in chord.pitch_classes] or [place]
                place = min(tones, key=lambda j: abs(j - place))
            until = onsets[i + 1] if i + 1 < len(onsets) else beats_per_bar - 0.25
            notes.append((bar * beats_per_bar + onset, 0.92 * max(until - onset, 0.25), scale[place]))
    return tuple(notes)


def _vary_melody(material: Material, rng: np.random.Generator) -> list[tuple[float, float, int]]:
    """The melody when it returns: some notes are left out, split in two or moved to a neighbouring pitch."""
    out: list[tuple[float, float, int]] = []
    for beat, beats, pitch in material.melody:
        chance = rng.random()
        if chance < 0.04 and beat % 1 != 0:
            continue
        if chance < 0.10 and beats > 0.8:
            neighbour = pitch + (1 if (pitch + 1) % 12 in material.key.pitch_classes else 2)
            out += [(beat, beats / 2, pitch), (beat + beats / 2, beats / 2, neighbour)]
        else:
            out.append((beat, beats, pitch))
    return out


def _play_phrase(
    material: Material,
    phrase: Phrase,
    beats_per_bar: int,
    *,
    first: bool,
    last: bool,
    nth: int,
    rng: np.random.Generator,
) -> list[Event]:
    """All notes of a phrase when it is played for the `nth` time, from 0."""
    origin = phrase.start_bar * beats_per_bar
    level = 10 ** (material.gain_db / 20)
    melody = list(material.melody) if nth == 0 else _vary_melody(material, rng)
    events = [Event(origin + b, n, p, 0.75 * level, material.lead, "vocals", -0.05) for b, n, p in melody]
    for bar, chords in enumerate(material.chords):
        start = origin + bar * beats_per_bar
        events += _play_chords(material, chords, start, beats_per_bar, level, rng)
        events += _play_bass(material, chords, start, beats_per_bar, level)
        fill = material.drum_level > 0 and rng.random() < (0.6 if bar == phrase.bars - 1 and not last else 0.06)
        crash_chance = 0.0 if first or material.drum_level == 0 else 0.4 if bar == 0 else 0.02
        crash = rng.random() < crash_chance
        events += _play_drums(material, start, beats_per_bar, level, fill=fill, crash=crash, rng=rng)
    return events


def _chord_at(chords: tuple[Chord, ...], beat: float, beats_per_bar: int) -> Chord:
    return chords[min(int(beat * len(chords) / beats_per_bar), len(chords) - 1)]


def _play_chords(
    material: Material,
    chords: tuple[Chord, ...],
    start: float,
    beats_per_bar: int,
    level: float,
    rng: np.random.Generator,
) -> list[Event]:
    instrument, pattern, centre = material.comp
    strokes = _COMP_PATTERNS[beats_per_bar][pattern]
    if len(chords) == 2 and pattern == "sustained":
        strokes = _COMP_PATTERNS[beats_per_bar]["halves"]
    events = []
    for i, (beat, beats) in enumerate(strokes):
        tones = _chord_at(chords, beat, beats_per_bar).voiced(centre)
        if pattern == "broken":
            order = (0, 1, 2, 1)
            events.append(
                Event(
                    start + beat, beats, tones[order[i % 4]] + 12 * (i % 8 == 6), 0.55 * level, instrument, "other", 0.3
                )
            )
            continue
        accent = 1.0 if beat == 0 else 0.85
        for j, pitch in enumerate(tones):
            # A strum takes 10 ms from string to string.
            late = 0.02 * j * (instrument == "guitar")
            gain = 0.34 * accent * level * float(rng.uniform(0.92, 1.08))
            events.append(Event(start + beat + late, beats, pitch, gain, instrument, "other", 0.35 - 0.3 * j))
    return events


def _play_bass(
    material: Material, chords: tuple[Chord, ...], start: float, beats_per_bar: int, level: float
) -> list[Event]:
    instrument, pattern = material.bass
    events = []
    for beat, beats, interval in _BASS_PATTERNS[beats_per_bar][pattern]:
        root = 33 + (_chord_at(chords, beat, beats_per_bar).root - 33) % 12
        held = min(beats, beats_per_bar / len(chords)) if len(chords) > 1 else beats
        events.append(Event(start + beat, held, root + interval, 0.7 * level, instrument, "bass"))
    return events


def _play_drums(
    material: Material,
    start: float,
    beats_per_bar: int,
    level: float,
    *,
    fill: bool,
    crash: bool,
    rng: np.random.Generator,
) -> list[Event]:
    strokes: list[tuple[float, str, float, float]] = []
    fill_from = beats_per_bar - (2.0 if rng.random() < 0.4 and beats_per_bar == 4 else 1.0)
    if material.drum_level == 0:
        strokes += [(0.5 * i, "shaker", 0.22 if i % 2 else 0.4, 0.3) for i in range(2 * beats_per_bar)]
        strokes.append((0, "kick", 0.5, 0.0))
    else:
        full = material.drum_level == 2
        strokes += [(beat, "kick", 0.95 if beat == 0 else 0.8, 0.0) for beat in material.kick]
        backbeat = "snare" if full else "rim"
        strokes += [(beat, backbeat, 0.75 if full else 0.5, 0.05) for beat in _BACKBEATS[beats_per_bar]]
        for i in range(2 * beats_per_bar):
            opened = full and i == 2 * beats_per_bar - 1 and rng.random() < 0.25
            strokes.append((0.5 * i, "open_hat" if opened else "closed_hat", 0.2 if i % 2 else 0.3, 0.25))
        if full and rng.random() < 0.3:
            strokes.append((beats_per_bar - 0.75, "snare", 0.18, 0.05))
    if fill:
        strokes = [stroke for stroke in strokes if stroke[0] < fill_from or stroke[1] == "kick"]
        sixteenths = np.arange(fill_from, beats_per_bar, 0.25)
        drums = ("snare", "snare", "high_tom", "low_tom")
        for i, beat in enumerate(sixteenths):
            if i == 0 or rng.random() < 0.8:
                drum = drums[min(4 * i // len(sixteenths), 3)]
                strokes.append((float(beat), drum, 0.45 + 0.3 * i / len(sixteenths), 0.3 - 0.2 * i / len(sixteenths)))
    if crash:
        strokes.append((0, "crash", 0.45, -0.3))
    # Drums follow the loudness of the phrase half way; their level carries the rest.
    return [Event(start + beat, 0.0, 0, gain * level**0.5, drum, "drums", pan) for beat, drum, gain, pan in strokes]


def _final_chord(material: Material, home: Key, beat: float) -> list[Event]:
    """The final chord: the tonic, held by all instruments."""
    tonic = home.chord("I" if home.mode == "major" else "i")
    events = [
        Event(beat, 8.0, p, 0.4, material.comp[0], "other", 0.2 * i - 0.2) for i, p in enumerate(tonic.voiced(57))
    ]
    events.append(Event(beat, 8.0, 33 + (tonic.root - 33) % 12, 0.7, material.bass[0], "bass"))
    events.append(Event(beat, 8.0, tonic.voiced(69)[-1], 0.5, material.lead, "vocals"))
    return [*events, Event(beat, 0.0, 0, 0.8, "kick", "drums"), Event(beat, 0.0, 0, 0.35, "crash", "drums", -0.3)]
