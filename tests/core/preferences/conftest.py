"""Songs, edits and answers about them."""

import itertools
from pathlib import Path

import numpy as np

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.base.files import sha256_file
from editorbot_core.editing.edits import CUT, KEEP, EditDecisionList
from editorbot_core.preferences.preference import EditPair, Preference

GRID = BeatGrid(times=0.5 * np.arange(16), positions=np.arange(16) % 4 + 1, duration=8.0)
UNITS = Units.bars(GRID)


def edl(*actions, track_id="song", target_s=4.0):
    return EditDecisionList.from_unit_actions(
        np.array(actions), grid=GRID, units=UNITS, track_id=track_id, target_duration_s=target_s
    )


A, B = edl(KEEP, CUT, CUT, KEEP), edl(KEEP, KEEP, CUT, CUT)


def answer(answer_id="1", **changes):
    fields = {
        "a": A,
        "b": B,
        "label": 1.0,
        "strength": 2,
        "confidence": 0.75,
        "rater": "ann",
        "source": "person",
        "answer_id": answer_id,
        "created_at": "2026-01-01T12:00:00+00:00",
    }
    return Preference(**(fields | changes))


SAMPLE_RATE = 8_000
N_BARS = 8


def write_song(folder: Path, *, name: str = "song", seed: int = 0) -> EditDecisionList:
    """Eight bars at 240 BPM, a tone per bar, as the edit that keeps everything."""
    rng = np.random.default_rng(seed)
    times = np.arange(N_BARS * SAMPLE_RATE) / SAMPLE_RATE
    pitch = np.repeat(rng.uniform(200, 900, N_BARS), SAMPLE_RATE)
    samples = 0.4 * np.sin(2 * np.pi * pitch * times) + 0.01 * rng.standard_normal(len(times))
    path = folder / f"{name}.wav"
    write_audio(path, AudioClip(samples[None].astype(np.float32), SAMPLE_RATE))
    n_beats = 4 * N_BARS
    grid = BeatGrid(np.arange(n_beats) * 0.25, np.arange(n_beats) % 4 + 1, float(N_BARS))
    return EditDecisionList.keep_all(grid, track_id=name, source_path=str(path), source_sha256=sha256_file(path))


def cut(song: EditDecisionList, *bars: int) -> EditDecisionList:
    actions = np.zeros(N_BARS, dtype=np.int64)
    actions[list(bars)] = CUT
    return EditDecisionList.from_unit_actions(
        actions,
        grid=song.grid,
        units=Units.bars(song.grid),
        track_id=song.track_id,
        source_path=song.source_path,
        source_sha256=song.source_sha256,
        target_duration_s=6.0,
    )


def make_pairs(song: EditDecisionList, n_pairs: int) -> list[EditPair]:
    edits = [cut(song, *bars) for bars in itertools.combinations(range(1, N_BARS - 1), 2)]
    return [EditPair.of(edits[i], edits[i + 1], origin="test") for i in range(n_pairs)]
