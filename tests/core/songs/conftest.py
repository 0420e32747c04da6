"""A folder of songs and of files that are none."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.songs.library import ingest


def write_song(path: Path, *, bpm: float = 120.0, duration_s: float = 24.0, seed: int = 0) -> Path:
    """A song of bass, chords and noise bursts with the chord and a strong bass note on the first of four beats."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    beat = np.floor(t * bpm / 60).astype(int)
    since = t - beat * 60 / bpm
    roots = 2.0 ** (rng.integers(0, 12, size=beat.max() // 4 + 1) / 12)
    chord = 220 * roots[beat // 4]
    mix = sum(0.1 * np.sin(2 * np.pi * np.cumsum(chord * ratio) / SAMPLE_RATE) for ratio in (1.0, 1.25, 1.5))
    mix = mix * np.exp(-0.5 * (t % (240 / bpm)))
    mix += np.where(beat % 4 == 0, 0.5, 0.1) * np.sin(2 * np.pi * 60 * t) * np.exp(-8 * since)
    mix += 0.2 * rng.standard_normal(len(t)) * np.exp(-50 * since)
    write_audio(path, AudioClip(mix[None].astype(np.float32), SAMPLE_RATE))
    return path


def annotate(path: Path, *, bpm: float = 120.0, duration_s: float = 24.0) -> None:
    beats = np.arange(0.0, duration_s - 0.01, 60 / bpm)
    document = {
        "schema": "editorbot.annotation/1",
        "id": path.stem,
        "duration_s": duration_s,
        "beats": beats.tolist(),
        "beat_in_bar": (np.arange(len(beats)) % 4 + 1).tolist(),
        "sections": [{"start_s": 0.0, "end_s": duration_s, "label": "A"}],
    }
    path.with_suffix(".json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two songs, one annotated, a copy, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("music")
    write_song(folder / "one.flac", bpm=120)
    annotate(folder / "one.flac")
    write_song(folder / os.fsdecode(b"tw\xf6.wav"), bpm=90, seed=1)
    shutil.copy(folder / "one.flac", folder / "zcopy.mp3")
    (folder / "broken.wav").write_bytes(b"no audio at all" * 100)
    (folder / "empty.mp3").touch()
    write_song(folder / "short.wav", duration_s=2.0)
    write_audio(folder / "silent.wav", AudioClip(np.zeros((1, 8 * SAMPLE_RATE), dtype=np.float32), SAMPLE_RATE))
    return folder


@pytest.fixture(scope="module")
def store(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    ingest(music, store, n_processes=1)
    return store
