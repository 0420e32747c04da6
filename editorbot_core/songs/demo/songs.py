"""Demo songs: composed by rule and synthesised, with a complete annotation.

Every song comes as a FLAC file and an annotation beside it (schema `editorbot.annotation/1`): beats, bars, sections,
chords. A song depends only on the seed and its number; the same seed gives the same samples.
"""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from editorbot_core.analysis.beats.annotations import SCHEMA
from editorbot_core.audio.clip import AudioClip
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.files import atomic_path, read_json, sha256_file, write_json
from editorbot_core.base.progress import Progress
from editorbot_core.songs.demo.composition import Score, compose_score
from editorbot_core.songs.demo.synthesis import Note, add_room, finish, mix_stems, perform

DEMO_VERSION = 1
LEVEL_DB = -17.0

# A song takes the form at its number modulo twelve; the eighth is a waltz.
_FORMS = (
    "i4 A8 A8 B8 A8 o2",
    "i2 A4 A4 B4 A4 B4 o2",
    "i4 A4 B4 A4 B4 X5 A4 B4 o3",
    "A8 B8 A8 B8 c4 B8 o2",
    "i4 A4 A4 B5 A4 o3",
    "i4 A8 B8 A8 C8 B8 o4",
    "A4 A4 B4 c2 A4 B4 o2",
    "waltz",
    "i4 A4 A4 B8 A4 B8 o2",
    "i2 A6 B4 A6 B4 o2",
    "A8 A8 B8 A8 o3",
    "i4 A4 A4 B4 c2 A4 B4 X5 B4 o3",
)
_WALTZES = ("i4 A8 A8 B8 A8 o4", "i4 A8 B8 c4 A8 B8 o2")
_TEMPO_RANGE = (70.0, 160.0)
_MUSIC_RANGE_S = (45.0, 82.0)
_TAIL_S = 3.2
_STEREO_RATE = 44100
_MONO_RATE = 22050
# Level of each part against the others, dB, and its share of room.
_PART_MIX = {"drums": (-1.0, 0.10), "bass": (0.0, 0.0), "vocals": (0.5, 0.25), "other": (0.5, 0.22)}


@dataclass(frozen=True)
class DemoSong:
    """A composed song with its stems and its annotation.

    Attributes:
        clip: The mix, float32, stereo at 44.1 kHz or mono at 22.05 kHz.
        parts: True stems drums, bass, vocals (the lead melody) and other; they sum to the mix.
        annotation: The document of schema `editorbot.annotation/1`.
    """

    clip: AudioClip
    parts: Mapping[str, AudioClip]
    annotation: Mapping[str, Any]


def compose_song(index: int, *, seed: int) -> DemoSong:
    """Song number `index` (from 0) of the series `seed`.

    Raises:
        ParameterError: If `index` or `seed` is negative.
    """
    if index < 0 or seed < 0:
        raise ParameterError(f"index and seed must be 0 or more; got index={index}, seed={seed}")
    score_rng, performance_rng = np.random.default_rng([DEMO_VERSION, seed, index]).spawn(2)
    form, beats_per_bar = _form_of(index)
    pickup_beats = int(score_rng.choice([0, 0, 0, 1, 2]))
    score = compose_score(form, beats_per_bar=beats_per_bar, pickup_beats=pickup_beats, rng=score_rng)
    tempo = _draw_tempo(score, score_rng)
    # Beat i of the song sounds at beat_times[i]; the pick-up comes first, the final chord last.
    beat_times = _beat_times(score, tempo, performance_rng)
    stereo = index % 4 == 2
    clip, parts = _play(score, beat_times, stereo=stereo, rng=performance_rng)
    annotation = {
        "schema": SCHEMA,
        "id": f"demo-{index:02d}",
        "source": {
            "music": "composed by editorbot_core.demo",
            "seed": seed,
            "index": index,
            "version": DEMO_VERSION,
            "form": form,
            "key": _key_label(score),
        },
        "license": "MIT",
        "duration_s": round(clip.duration_s, 6),
        "tempo": round(60.0 / float(np.median(np.diff(beat_times))), 3),
        "time_signature": f"{beats_per_bar}/4",
        **_annotate(score, beat_times),
    }
    return DemoSong(clip=clip, parts=parts, annotation=annotation)


def compose_demo_songs(
    folder: Path | str, *, n_songs: int = 24, seed: int = 0, n_processes: int = 2, progress: Progress | None = None
) -> list[Path]:
    """Write `n_songs` demo songs and their annotations to `folder`; return the audio files in order.

    Songs that exist already, complete and of the same seed and version, are kept. File names do not contain the seed,
    so a folder holds one series, and another seed replaces it.

    Args:
        folder: Created if it does not exist.
        n_songs: Number of songs.
        seed: Seed of the series.
        n_processes: Processes that compose; 1 composes in this process.
        progress: Called as progress("compose demo songs", done, total).

    Raises:
        ParameterError: If `n_songs` or `n_processes` is below 1, or `seed` is negative.
    """
    if n_songs < 1 or n_processes < 1 or seed < 0:
        raise ParameterError(f"expected n_songs, n_processes >= 1, seed >= 0; got {n_songs}, {n_processes}, {seed}")
    folder = Path(folder)
    paths = [folder / f"demo-{index:02d}.flac" for index in range(n_songs)]
    missing = [index for index, path in enumerate(paths) if not _is_written(path, index, seed)]
    done = n_songs - len(missing)

    def report() -> None:
        if progress is not None:
            progress("compose demo songs", done, n_songs)

    report()
    if n_processes == 1 or len(missing) <= 1:
        for index in missing:
            _write_song(paths[index], index, seed)
            done += 1
            report()
        return paths
    # Spawned workers share nothing with this process, which may hold threads and a GPU.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(n_processes, len(missing)), mp_context=context) as pool:
        futures = [pool.submit(_write_song, paths[index], index, seed) for index in missing]
        for future in as_completed(futures):
            future.result()
            done += 1
            report()
    return paths


def _write_song(path: Path, index: int, seed: int) -> None:
    """Write song and annotation; the audio appears last, and the annotation names its digest."""
    song = compose_song(index, seed=seed)
    with atomic_path(path) as temporary:
        soundfile.write(temporary, song.clip.samples.T, song.clip.sample_rate, format="FLAC", subtype="PCM_16")
        audio = {
            "file": path.name,
            "sample_rate": song.clip.sample_rate,
            "channels": song.clip.n_channels,
            "sha256": sha256_file(temporary),
        }
        write_json(path.with_suffix(".json"), {**song.annotation, "audio": {"mix": audio}})


def _is_written(path: Path, index: int, seed: int) -> bool:
    """True if `path` is exactly the song that `_write_song` would write."""
    annotation_path = path.with_suffix(".json")
    if not (path.is_file() and annotation_path.is_file()):
        return False
    try:
        document = read_json(annotation_path)
        source = document["source"]
        wanted = (seed, index, DEMO_VERSION)
        if (source["seed"], source["index"], source["version"]) != wanted:
            return False
        return bool(document["audio"]["mix"]["sha256"] == sha256_file(path))
    except (FormatError, KeyError, TypeError):
        return False


def _form_of(index: int) -> tuple[str, int]:
    """Form and beats per bar of song number `index`."""
    form = _FORMS[index % len(_FORMS)]
    if form == "waltz":
        return _WALTZES[index // len(_FORMS) % len(_WALTZES)], 3
    return form, 4


def _draw_tempo(score: Score, rng: np.random.Generator) -> float:
    """A tempo between 70 and 160 beats per minute at which the song lasts as long as it should."""
    n_beats = score.n_bars * score.beats_per_bar
    low = max(_TEMPO_RANGE[0], 60.0 * n_beats / _MUSIC_RANGE_S[1])
    high = min(_TEMPO_RANGE[1], 60.0 * n_beats / _MUSIC_RANGE_S[0])
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _beat_times(score: Score, tempo: float, rng: np.random.Generator) -> np.ndarray:
    """Times of the beats from the pick-up to the final chord, s; in one song in three the tempo drifts slightly."""
    n_beats = score.pickup_beats + score.n_bars * score.beats_per_bar
    drift = np.zeros(n_beats)
    if rng.random() < 1 / 3:
        bars = np.cumsum(rng.standard_normal(n_beats // score.beats_per_bar + 2)) * 0.004
        drift = np.repeat(np.clip(bars, -0.015, 0.015), score.beats_per_bar)[:n_beats]
    lead_in = rng.uniform(0.3, 0.9)
    return np.round(lead_in + np.concatenate([[0.0], np.cumsum(60.0 / tempo * (1 + drift))]), 4)


def _play(
    score: Score, beat_times: np.ndarray, *, stereo: bool, rng: np.random.Generator
) -> tuple[AudioClip, dict[str, AudioClip]]:
    """Play the score on a beat grid, with the small deviations in time and loudness of a human player."""
    beat = np.arange(len(beat_times)) - score.pickup_beats
    beat_length = float(np.median(np.diff(beat_times)))

    def seconds(at: float) -> float:
        beyond = max(at - beat[-1], 0.0) * beat_length
        return float(np.interp(at, beat, beat_times)) + beyond

    swing = rng.uniform(0.05, 0.12) if rng.random() < 0.2 else 0.0
    notes = []
    for event in score.events:
        # Swing delays the second eighth of a beat.
        late = swing if event.beat % 1 == 0.5 else 0.0
        spread_s = 0.002 if event.part == "drums" else 0.005
        start_s = seconds(event.beat + late) + spread_s * float(np.clip(rng.standard_normal(), -2, 2))
        gain = event.gain * float(np.exp(0.1 * rng.standard_normal()))
        duration_s = max(seconds(event.beat + event.beats) - seconds(event.beat), 0.05)
        notes.append(Note(start_s, duration_s, event.pitch, gain, event.instrument, event.part, event.pan))
    sample_rate = _STEREO_RATE if stereo else _MONO_RATE
    duration_s = float(beat_times[-1]) + _TAIL_S + float(rng.uniform(0.0, 0.5))
    stems = perform(notes, duration_s=duration_s, sample_rate=sample_rate, n_channels=2 if stereo else 1, rng=rng)
    decay_s = float(rng.uniform(0.7, 1.6))
    for part, (level_db, wet) in _PART_MIX.items():
        stem = add_room(stems[part], sample_rate=sample_rate, wet=wet, decay_s=decay_s, rng=rng)
        level = 10 ** ((level_db + float(rng.uniform(-1.0, 1.0))) / 20)
        stems[part] = stem * np.float32(level / np.sqrt(np.mean(stem**2)))
    finished = finish(stems, level_db=LEVEL_DB, ending_s=_TAIL_S - 0.5, sample_rate=sample_rate)
    mix = mix_stems(finished)
    parts = {part: AudioClip(stem, sample_rate) for part, stem in finished.items()}
    return AudioClip(mix, sample_rate), parts


def _annotate(score: Score, beat_times: np.ndarray) -> dict[str, Any]:
    """Beats, sections and chords of a score, in seconds."""
    n_beats, first = len(beat_times), score.pickup_beats
    beat_in_bar = (np.arange(n_beats) - first) % score.beats_per_bar + 1

    def downbeat(bar: int) -> float:
        return float(beat_times[first + bar * score.beats_per_bar])

    sections = [
        {
            "start_s": downbeat(phrase.start_bar),
            "end_s": downbeat(phrase.start_bar + phrase.bars),
            "label": phrase.label,
            "kind": _kind(phrase.label),
            "start_bar": phrase.start_bar,
            "bars": phrase.bars,
        }
        for phrase in score.phrases
    ]
    spans: list[tuple[float, str]] = []
    for phrase in score.phrases:
        for bar, chords in enumerate(score.materials[phrase.label].chords):
            start = first + (phrase.start_bar + bar) * score.beats_per_bar
            for i, chord in enumerate(chords):
                at = start + i * score.beats_per_bar / len(chords)
                time = float(np.interp(at, np.arange(n_beats), beat_times))
                if not spans or spans[-1][1] != chord.label:
                    spans.append((round(time, 4), chord.label))
    ends = [start for start, _ in spans[1:]] + [downbeat(score.n_bars)]
    return {
        "beats": beat_times.tolist(),
        "beat_in_bar": beat_in_bar.tolist(),
        "downbeats": beat_times[beat_in_bar == 1].tolist(),
        "sections": sections,
        "sections_alt": [],
        "section_text": ["".join(f"{phrase.label}{phrase.bars}" for phrase in score.phrases)],
        "chords": [
            {"start_s": start, "end_s": end, "label": label} for (start, label), end in zip(spans, ends, strict=True)
        ],
    }


def _kind(label: str) -> str:
    """Kind of the section of a letter, as in annotations."""
    special = {"i": "intro", "o": "outro", "X": "extra_vocal", "x": "extra_instrumental"}
    return special.get(label, "vocal" if label.isupper() else "instrumental")


def _key_label(score: Score) -> str:
    key = score.materials[score.phrases[0].label].key
    return f"{key.chord('I').label.split(':')[0]} {key.mode}"
