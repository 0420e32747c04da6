"""The 121 features of every beat: the container, extraction, Parquet.

Row `i` describes the audio from beat `i` to beat `i + 1`: the mean over the frames centred in between; the last row
ends with the audio. The columns are `feature_columns.FEATURE_COLUMNS`, described in `docs/features.md`; their order
never changes silently. Values are raw: what standardises them belongs to a model.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from editorbot_core.audio import AudioClip, open_audio, path_to_text, resample
from editorbot_core.beats import BeatGrid
from editorbot_core.context import N_CONTEXT, beat_context
from editorbot_core.decoders import decoder_server
from editorbot_core.errors import AudioError, EditorBotError, FormatError, ParameterError
from editorbot_core.feature_columns import FEATURE_INDEX, FEATURE_NAMES, N_FEATURES
from editorbot_core.files import atomic_path
from editorbot_core.filterbanks import FRAME_RATE, HOP_LENGTH, N_FFT, SAMPLE_RATE
from editorbot_core.separators import DEFAULT_SEPARATOR, find_stems, separates_samples
from editorbot_core.spectral import FrameAnalyser, FrameFeatures, sums_from
from editorbot_core.stems import STEM_NAMES, StemFrames, stem_frames
from editorbot_core.trackers import DEFAULT_TRACKER, find_beats, needs_samples
from editorbot_core.tracking import TRACKER, band_onsets, track_beats

__all__ = [
    "EXTRACTION",
    "EXTRACTOR_VERSION",
    "FEATURE_INDEX",
    "FEATURE_NAMES",
    "N_FEATURES",
    "AnalysedSong",
    "BeatFeatures",
    "StoredFeatures",
    "analyse",
    "decode_song",
    "extract_features",
    "frames_to_features",
    "load_features",
    "mix_columns",
    "read_features",
    "save_features",
    "warm_up",
]

EXTRACTOR_VERSION = "2"

MIN_SONG_S = 4.0
MIN_BEATS = 4
SILENCE_DBFS = -60.0

_NO_POWER = 1e-12


@dataclass(frozen=True)
class BeatFeatures:
    """The features of one song.

    Attributes:
        values: float32, shape (n_beats, 121), finite, columns as `FEATURE_NAMES`.
        grid: The beats the rows belong to.
        context: float32, shape (n_beats, 102), finite, what structure is read from (see `context`), or None.
    """

    values: np.ndarray
    grid: BeatGrid
    context: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check width, height and that every value is a number."""
        expected = (self.grid.n_beats, N_FEATURES)
        if self.values.shape != expected or self.values.dtype != np.float32:
            raise ParameterError(f"features must be float32 {expected}; got {self.values.dtype} {self.values.shape}")
        bad = ~np.isfinite(self.values)
        if bad.any():
            names = [FEATURE_NAMES[i] for i in np.flatnonzero(bad.any(axis=0))[:5]]
            raise ParameterError(f"features must be finite; {int(bad.sum())} are not, in {', '.join(names)}")
        if self.context is not None and (
            self.context.shape != (self.grid.n_beats, N_CONTEXT) or not np.isfinite(self.context).all()
        ):
            raise ParameterError(f"context must be finite, {(self.grid.n_beats, N_CONTEXT)}; got {self.context.shape}")

    @property
    def n_beats(self) -> int:
        """Number of beats."""
        return self.grid.n_beats


def _per_beat(frames: FrameFeatures, grid: BeatGrid) -> tuple[np.ndarray, np.ndarray]:
    """First frame of every beat, int64 (n_beats,), and the number of frames averaged, (n_beats, 1)."""
    first = np.minimum(np.ceil(grid.times * FRAME_RATE - 1e-6).astype(np.int64), frames.n_frames - 1)
    counts = np.maximum(np.diff(np.append(first, frames.n_frames)), 1)
    return first, counts[:, None]


def _grid_columns(grid: BeatGrid) -> np.ndarray:
    """Columns that describe the beats themselves, (n_beats, 5)."""
    n = grid.n_beats
    phase = ((grid.positions - 1) / grid.metre) % 1.0
    columns = np.zeros((n, 5))
    columns[:, 0] = phase
    columns[:, 1] = np.sin(2 * np.pi * phase)
    columns[:, 2] = np.cos(2 * np.pi * phase)
    columns[:, 4] = 1.0
    if n > 1:
        # What follows the last beat is not an interval between beats; the one before it stands in.
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
        frames: Of the whole song.
        grid: Its beats.
        onsets: As `tracking.band_onsets`, if they are at hand.
        stems: Of the same frames; None for pseudo-stems.

    Raises:
        ParameterError: If the grid is not of this audio: the durations differ by more than 0.1 s.
    """
    if abs(grid.duration - frames.duration_s) > 0.1:
        raise ParameterError(f"the grid is of {grid.duration:.3f} s of audio; this lasts {frames.duration_s:.3f} s")
    stems = stem_frames(frames.mel) if stems is None else stems
    columns = [mix_columns(frames, grid), _stem_columns(stems, *_per_beat(frames, grid))]
    context = beat_context(frames, grid, band_onsets(frames.mel) if onsets is None else onsets)
    return BeatFeatures(np.concatenate(columns, axis=1).astype(np.float32), grid, context)


def _song_frames(analyser: FrameAnalyser, name: str, *, duration_s: float) -> FrameFeatures:
    """The frames of a whole song, refused if it is too short or silent."""
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
        ParameterError: If `grid` is not of this audio.
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
    """What `analyse` found out about one file.

    Attributes:
        features: 121 features per beat, with the grid.
        sha256: Digest of the bytes that were decoded.
        sample_rate: Of the file, Hz.
        n_channels: Of the file.
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
    """One file, decoded: its frame features, and the audio itself where it was asked for.

    Attributes:
        frames: Of the mono mix at `SAMPLE_RATE`.
        samples: The mono mix, float32 (n,), or None.
        sha256: Digest of the bytes that were decoded.
        sample_rate: Of the file, Hz.
        n_channels: Of the file.
    """

    frames: FrameFeatures
    samples: np.ndarray | None
    sha256: str
    sample_rate: int
    n_channels: int


def decode_song(path: Path | str, *, keep_samples: bool = False) -> DecodedSong:
    """Decode a file and compute its frame features, in one pass and, without the samples, bounded memory.

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
        tracker: Which tracker finds them, see `trackers.TRACKERS`.
        separator: What divides the song into stems, see `separators.SEPARATORS`.

    Raises:
        AudioError: If the file cannot be decoded, is shorter than 4 s, is silent, or has fewer than four beats.
        ParameterError: If `grid` is longer than the audio, or the tracker or separator is unknown or not installed.
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


_GRID_COLUMNS = ("beat_time_s", "beat_position")
_CONTEXT_COLUMN = "context"
_CONTEXT_TYPE = pa.list_(pa.field("item", pa.float16()), N_CONTEXT)
_SCHEMA = "editorbot.features/1"
_MAX_FILE_BYTES = 512 * 2**20
_MAX_BEATS = 200_000
EXTRACTION = {
    "schema": _SCHEMA,
    "extractor_version": EXTRACTOR_VERSION,
    "sample_rate": str(SAMPLE_RATE),
    "hop_length": str(HOP_LENGTH),
    "n_fft": str(N_FFT),
}


def save_features(path: Path | str, features: BeatFeatures, *, metadata: dict[str, str] | None = None) -> None:
    """Write the features of one song as Parquet, a row per beat, in one step.

    Columns are `beat_time_s`, `beat_position`, `FEATURE_NAMES`, and `context`, a list per beat (half precision). The
    schema's metadata holds how they were made, the duration and confidence of the grid (of the whole and, as a JSON
    list, of its regions), and `metadata`.

    Args:
        path: File to write.
        features: Features and grid.
        metadata: More to keep with them, for example `sha256`; text that is not valid Unicode is refused.
    """
    grid = features.grid
    kept = {
        **EXTRACTION,
        "tracker": TRACKER,
        "separator": DEFAULT_SEPARATOR,
        "duration_s": repr(float(grid.duration)),
        "confidence": repr(float(grid.confidence)),
        **(metadata or {}),
    }
    if grid.region_confidence is not None:
        kept["region_confidence"] = json.dumps([round(float(value), 4) for value in grid.region_confidence])
    columns = [pa.array(grid.times), pa.array(grid.positions)]
    columns += [pa.array(np.ascontiguousarray(features.values[:, i])) for i in range(N_FEATURES)]
    fields = [
        pa.field("beat_time_s", pa.float64(), nullable=False),
        pa.field("beat_position", pa.int64(), nullable=False),
    ]
    fields += [pa.field(name, pa.float32(), nullable=False) for name in FEATURE_NAMES]
    if features.context is not None:
        flat = pa.array(features.context.astype(np.float16).ravel())
        columns.append(pa.FixedSizeListArray.from_arrays(flat, N_CONTEXT))
        fields.append(pa.field(_CONTEXT_COLUMN, _CONTEXT_TYPE, nullable=False))
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=kept))
    with atomic_path(path) as temporary:
        pq.write_table(
            table,
            temporary,
            use_dictionary=False,
            compression="NONE",
            write_page_checksum=True,
            row_group_size=max(table.num_rows, 1),
        )


def load_features(path: Path | str) -> BeatFeatures:
    """Read what `save_features` wrote.

    Raises:
        FormatError: If the file is missing, damaged, or its columns are not `FEATURE_NAMES`.
    """
    return read_features(path).features


@dataclass(frozen=True)
class StoredFeatures:
    """Features from a file, and the metadata that was kept with them."""

    features: BeatFeatures
    metadata: dict[str, str]


def read_features(path: Path | str) -> StoredFeatures:
    """Read what `save_features` wrote, with its metadata.

    Raises:
        FormatError: If the file is missing, damaged, or its columns are not `FEATURE_NAMES`.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise FormatError(f"{path.stat().st_size} bytes; at most {_MAX_FILE_BYTES} are read as features")
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = _check_layout(file)
            table = file.read()
        grid = BeatGrid(
            times=table.column("beat_time_s").to_numpy(),
            positions=table.column("beat_position").to_numpy(),
            duration=float(metadata["duration_s"]),
            confidence=float(metadata["confidence"]),
            region_confidence=json.loads(metadata.get("region_confidence", "null")),
        )
        values = np.stack([table.column(name).to_numpy() for name in FEATURE_NAMES], axis=1)
        context = None
        if _CONTEXT_COLUMN in table.column_names:
            flat = table.column(_CONTEXT_COLUMN).combine_chunks().flatten().to_numpy()
            context = flat.reshape(-1, N_CONTEXT).astype(np.float32)
        return StoredFeatures(BeatFeatures(values, grid, context), metadata)
    except (OSError, KeyError, TypeError, ValueError, RecursionError, pa.ArrowException, EditorBotError) as error:
        raise FormatError(f"{path}: not the features of a song: {error}; ingest the songs again") from error


def _check_layout(file: Any) -> dict[str, str]:
    """The metadata of a file whose columns, types and size are those of features."""
    schema = file.schema_arrow
    expected = [*_GRID_COLUMNS, *FEATURE_NAMES]
    types = [pa.float64(), pa.int64(), *[pa.float32()] * N_FEATURES]
    if schema.names[len(expected) :] == [_CONTEXT_COLUMN]:
        expected.append(_CONTEXT_COLUMN)
        types.append(_CONTEXT_TYPE)
    if schema.names != expected:
        different = [i for i, (a, b) in enumerate(zip(schema.names, expected, strict=False)) if a != b]
        where = f"; column {different[0]} is {schema.names[different[0]]!r}" if different else ""
        raise FormatError(f"{len(schema.names)} columns, expected {len(expected)} (2 of the grid, 121 features){where}")
    if schema.types != types:
        raise FormatError("columns are not float64, int64, 121 times float32 and the context")
    if not 1 <= file.metadata.num_rows <= _MAX_BEATS:
        raise FormatError(f"{file.metadata.num_rows} rows; 1-{_MAX_BEATS} are read")
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    for key, value in EXTRACTION.items():
        if metadata.get(key) != value:
            raise FormatError(f"{key} is {metadata.get(key)!r}, expected {value!r}")
    return metadata
