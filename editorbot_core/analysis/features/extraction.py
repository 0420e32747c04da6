"""Extraction of the 121 features per beat, from files and from audio in memory.

Row `i` describes the audio from beat `i` to beat `i + 1`: the mean over the frames centred in between; the last row
ends with the audio. The columns are `features.columns.FEATURE_COLUMNS`, described in `docs/features.md`; a change of
their order needs a new `features.table.EXTRACTOR_VERSION`. Values are not standardised; models do that.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from editorbot_core.analysis.beats.grid import MIN_BEATS, BeatGrid
from editorbot_core.analysis.beats.trackers import find_beats, needs_samples
from editorbot_core.analysis.beats.tracking import band_onsets, track_beats
from editorbot_core.analysis.dsp.filterbanks import FRAME_RATE, SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameAnalyser, FrameFeatures, sums_from
from editorbot_core.analysis.dsp.separators import find_stems, separates_samples
from editorbot_core.analysis.dsp.stems import STEM_NAMES, StemFrames, stem_frames
from editorbot_core.analysis.features.context import beat_context
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.names import DEFAULT_SEPARATOR, DEFAULT_TRACKER
from editorbot_core.audio.clip import AudioClip, resample
from editorbot_core.audio.decoder_server import decoder_server
from editorbot_core.audio.files import open_audio
from editorbot_core.base.errors import AudioError, ParameterError
from editorbot_core.base.files import path_to_text

MIN_SONG_S = 4.0
SILENCE_DBFS = -60.0
_NO_POWER = 1e-12


def _per_beat(frames: FrameFeatures, grid: BeatGrid) -> tuple[np.ndarray, np.ndarray]:
    """First frame of every beat, int64 (n_beats,), and the number of frames averaged, (n_beats, 1)."""
    first = np.minimum(np.ceil(grid.times * FRAME_RATE - 1e-6).astype(np.int64), frames.n_frames - 1)
    counts = np.maximum(np.diff(np.append(first, frames.n_frames)), 1)
    return first, counts[:, None]


def _grid_columns(grid: BeatGrid) -> np.ndarray:
    """Columns that describe the grid, (n_beats, 5)."""
    n = grid.n_beats
    phase = ((grid.positions - 1) / grid.metre) % 1.0
    columns = np.zeros((n, 5))
    columns[:, 0] = phase
    columns[:, 1] = np.sin(2 * np.pi * phase)
    columns[:, 2] = np.cos(2 * np.pi * phase)
    columns[:, 4] = 1.0
    if n > 1:
        # No beat follows the last one: its interval counts as that of the beat before.
        intervals = np.diff(grid.times)
        intervals = np.append(intervals, intervals[-1])
        columns[:, 3] = np.log(intervals / np.median(intervals))
        columns[1:, 4] = intervals[1:] / intervals[:-1]
    return columns


def _stem_columns(stems: StemFrames, first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Energy, centroid and energy share of every stem, (n_beats, 12)."""
    power = sums_from(stems.power, first) / counts
    moment = sums_from(stems.centroid_power, first) / counts
    columns = np.zeros((len(first), len(STEM_NAMES), 3))
    columns[:, :, 0] = np.sqrt(np.maximum(power, 0.0))
    columns[:, :, 1] = np.where(power > _NO_POWER, moment / np.maximum(power, _NO_POWER), 0.0)
    columns[:, :, 2] = power / np.maximum(power.sum(axis=1, keepdims=True), _NO_POWER)
    return columns.reshape(len(first), -1)


def mix_columns(frames: FrameFeatures, grid: BeatGrid) -> np.ndarray:
    """The columns that need no stems, float64 (n_beats, 109), in the order of `FEATURE_NAMES`."""
    first, counts = _per_beat(frames, grid)
    per_frame = (
        frames.onset_strength,
        frames.rms,
        frames.centroid,
        frames.zero_crossing_rate,
        frames.rolloff,
        frames.bandwidth,
        frames.flatness,
        frames.contrast,
        frames.mfcc,
        frames.mfcc_delta,
        frames.chroma,
    )
    sums = [sums_from(rows.reshape(len(rows), -1), first) for rows in per_frame]
    spectral = np.concatenate(sums, axis=1) / counts
    return np.concatenate([spectral, np.diff(spectral, axis=0, prepend=spectral[:1]), _grid_columns(grid)], axis=1)


def frames_to_features(
    frames: FrameFeatures, grid: BeatGrid, *, onsets: np.ndarray | None = None, stems: StemFrames | None = None
) -> BeatFeatures:
    """Average frame features over the beats of `grid`.

    Args:
        frames: Frame features of the whole song.
        grid: Its beats.
        onsets: Result of `beats.tracking.band_onsets` for the frames; computed if None.
        stems: Stems of the same frames; None for pseudo-stems.

    Raises:
        ParameterError: If the durations of grid and audio differ by more than 0.1 s.
    """
    if abs(grid.duration - frames.duration_s) > 0.1:
        raise ParameterError(f"the grid covers {grid.duration:.3f} s of audio; this lasts {frames.duration_s:.3f} s")
    stems = stem_frames(frames.mel) if stems is None else stems
    columns = [mix_columns(frames, grid), _stem_columns(stems, *_per_beat(frames, grid))]
    context = beat_context(frames, grid, band_onsets(frames.mel) if onsets is None else onsets)
    return BeatFeatures(np.concatenate(columns, axis=1).astype(np.float32), grid, context)


def _song_frames(analyser: FrameAnalyser, name: str, *, duration_s: float) -> FrameFeatures:
    """The frame features of a whole song; a song that is too short or silent is refused."""
    if duration_s < MIN_SONG_S:
        raise AudioError(f"{name}: lasts {duration_s:.2f} s; a song lasts at least {MIN_SONG_S:g} s")
    frames = analyser.finish(duration_s=duration_s)
    if frames.peak < 10 ** (SILENCE_DBFS / 20):
        raise AudioError(f"{name}: silent: no sample of the mean of its channels reaches {SILENCE_DBFS:g} dBFS")
    return frames


def extract_features(clip: AudioClip, grid: BeatGrid | None = None) -> BeatFeatures:
    """The features of audio in memory.

    Args:
        clip: Any rate and number of channels.
        grid: Its beats; None to track them.

    Raises:
        AudioError: If the clip is shorter than 4 s, silent, or holds values that are not finite.
        ParameterError: If `grid` has another duration.

    Examples:
        Six seconds of noise on a given grid of ten beats: a row per beat.

        >>> noise = np.random.default_rng(0).standard_normal((1, 6 * 22_050)).astype(np.float32) * np.float32(0.1)
        >>> grid = BeatGrid(np.arange(0.5, 5.5, 0.5), np.tile([1, 2], 5), duration=6.0)
        >>> features = extract_features(AudioClip(noise, 22_050), grid)
        >>> features.values.shape, features.context.shape
        ((10, 121), (10, 102))
    """
    if not np.isfinite(clip.samples).all():
        raise AudioError("clip: samples that are not finite numbers")
    analyser = FrameAnalyser()
    mono = clip.samples[0] if clip.n_channels == 1 else clip.samples.mean(axis=0, dtype=np.float32)
    analyser.push(resample(AudioClip(np.ascontiguousarray(mono)[None], clip.sample_rate), SAMPLE_RATE).samples[0])
    frames = _song_frames(analyser, "clip", duration_s=clip.duration_s)
    onsets = band_onsets(frames.mel)
    return frames_to_features(frames, grid or track_beats(frames, onsets=onsets), onsets=onsets)


@dataclass(frozen=True)
class AnalysedSong:
    """The result of `analyse` for one file.

    Attributes:
        features: 121 features per beat, with the grid.
        sha256: Digest of the bytes that were decoded.
        sample_rate: Rate of the file, Hz.
        n_channels: Channels of the file.
        duration_s: Length, s.
        loudness_db: Integrated loudness of the mono mix, LUFS.
    """

    features: BeatFeatures
    sha256: str
    sample_rate: int
    n_channels: int
    duration_s: float
    loudness_db: float


class DecodedSong(NamedTuple):
    """One decoded file: its frame features, and its samples if they were asked for.

    Attributes:
        frames: Frame features of the mono mix at `SAMPLE_RATE`.
        samples: The mono mix at `SAMPLE_RATE`, float32 (n,), or None.
        sha256: Digest of the bytes that were decoded.
        sample_rate: Rate of the file, Hz.
        n_channels: Channels of the file.
    """

    frames: FrameFeatures
    samples: np.ndarray | None
    sha256: str
    sample_rate: int
    n_channels: int


def decode_song(path: Path | str, *, keep_samples: bool = False) -> DecodedSong:
    """Decode a file and compute its frame features in one pass; memory is bounded unless samples are kept.

    Args:
        path: Any readable audio file.
        keep_samples: Whether to keep the mono mix as well.

    Raises:
        AudioError: If the file cannot be decoded, is shorter than 4 s, or is silent.
    """
    analyser = FrameAnalyser()
    kept: list[np.ndarray] = []
    with open_audio(path, mono=True, sample_rate=SAMPLE_RATE) as stream:
        for block in stream:
            analyser.push(block[:, 0])
            if keep_samples:
                kept.append(block[:, 0])
    frames = _song_frames(analyser, path_to_text(path), duration_s=stream.n_samples / stream.sample_rate)
    samples = np.concatenate(kept) if keep_samples else None
    return DecodedSong(frames, samples, stream.sha256, stream.sample_rate, stream.n_channels)


def analyse(
    path: Path | str,
    *,
    grid: BeatGrid | None = None,
    tracker: str = DEFAULT_TRACKER,
    separator: str = DEFAULT_SEPARATOR,
) -> AnalysedSong:
    """Decode a file, find its beats, and extract its features, in one pass and, by default, bounded memory.

    Args:
        path: Any readable audio file.
        grid: Beats to use instead of the tracker's.
        tracker: Which tracker finds them, one of `analysis.names.TRACKERS`.
        separator: What divides the song into stems, one of `analysis.names.SEPARATORS`.

    Raises:
        AudioError: If the file cannot be decoded, is shorter than 4 s, is silent, or has fewer than four beats.
        ParameterError: If `grid` has another duration, or the tracker or separator is unknown or not installed.
    """
    keep_samples = (grid is None and needs_samples(tracker)) or separates_samples(separator)
    song = decode_song(path, keep_samples=keep_samples)
    onsets = band_onsets(song.frames.mel)
    if grid is None:
        grid = find_beats(tracker, song.frames, song.samples, onsets=onsets)
        if grid.n_beats < MIN_BEATS:
            raise AudioError(f"{path_to_text(path)}: {grid.n_beats} beats found; a song has at least {MIN_BEATS}")
    return AnalysedSong(
        features=frames_to_features(
            song.frames, grid, onsets=onsets, stems=find_stems(separator, song.frames, song.samples)
        ),
        sha256=song.sha256,
        sample_rate=song.sample_rate,
        n_channels=song.n_channels,
        duration_s=song.frames.duration_s,
        loudness_db=song.frames.loudness_db,
    )


def warm_up() -> None:
    """Compile every kernel that `analyse` and `extract_features` use, or load it from numba's cache; start decoders."""
    decoder_server()
    noise = np.random.default_rng(0).standard_normal((1, 6 * SAMPLE_RATE)).astype(np.float32) * np.float32(0.1)
    extract_features(AudioClip(noise, SAMPLE_RATE))
