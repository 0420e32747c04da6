"""Audio to measure with: demo songs, joined and repeated."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from editorbot_core.songs.demo.songs import compose_song

SAMPLE_RATE = 44_100


@cache
def _medley() -> np.ndarray:
    """Three stereo demo songs one after the other, int16 (n, 2) at 44.1 kHz, a little over three minutes."""
    songs = [compose_song(index, seed=0).clip for index in (2, 6, 10)]
    joined = np.concatenate([song.samples.T for song in songs])
    return np.round(np.clip(joined, -1.0, 1.0) * 32_767).astype(np.int16)


def _blocks(n_samples: int) -> Iterator[np.ndarray]:
    medley = _medley()
    while n_samples > 0:
        yield medley[:n_samples]
        n_samples -= len(medley)


def write_song(path: Path, duration_s: float) -> Path:
    """Write stereo WAV of 16 bit at 44.1 kHz, any length, in bounded memory."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, subtype="PCM_16") as sound:
        for block in _blocks(round(duration_s * SAMPLE_RATE)):
            sound.write(block)
    return path
