"""Features of many songs in few files: shards for reading songs whole, and one memory-mapped array of all rows.

Both are derived from the files that `features.save_features` writes, a file per song, and can be deleted and made again
at any time. A shard is Parquet with a row group per song and the 121 features as one column of vectors, so that a song
is one read of one place. The array is float32 (rows, 121), the songs one after the other, beside an index in JSON.
Songs are named by track id: the stem of their features' file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from editorbot_core.beats import BeatGrid
from editorbot_core.errors import EditorBotError, FormatError, ParameterError
from editorbot_core.features import EXTRACTION, FEATURE_NAMES, N_FEATURES, BeatFeatures, StoredFeatures, read_features
from editorbot_core.files import atomic_path, digest, read_json, sha256_file, write_json

SONGS_PER_SHARD = 100

_SHARD_SCHEMA = "editorbot.feature-shard/1"
_ARRAY_SCHEMA = "editorbot.feature-array/1"
_MAX_SHARD_BYTES = 16 * 2**30
_MAX_BEATS = 200_000
_FIELDS = (
    pa.field("beat_time_s", pa.float64(), nullable=False),
    pa.field("beat_position", pa.int64(), nullable=False),
    pa.field("features", pa.list_(pa.field("element", pa.float32(), nullable=False), N_FEATURES), nullable=False),
)
_DAMAGE = (OSError, KeyError, TypeError, ValueError, IndexError, pa.ArrowException, EditorBotError)


def _write_shard(path: Path, songs: Sequence[tuple[str, StoredFeatures]]) -> None:
    entries = [
        {"track_id": track_id, "n_beats": song.features.n_beats, "metadata": song.metadata} for track_id, song in songs
    ]
    metadata = {
        "schema": _SHARD_SCHEMA,
        "feature_names": json.dumps(FEATURE_NAMES),
        "songs": json.dumps(entries),
        "digest": digest(entries),
    }
    schema = pa.schema(_FIELDS, metadata=metadata)
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, use_dictionary=False, compression="NONE", write_page_checksum=True
        ) as writer,
    ):
        for _, song in songs:
            grid = song.features.grid
            columns = [
                pa.array(grid.times),
                pa.array(grid.positions),
                pa.FixedSizeListArray.from_arrays(pa.array(song.features.values.ravel()), type=_FIELDS[2].type),
            ]
            table = pa.Table.from_arrays(columns, schema=schema)
            writer.write_table(table, row_group_size=table.num_rows)


def compact(paths: Sequence[Path], folder: Path | str, *, songs_per_shard: int = SONGS_PER_SHARD) -> list[Path]:
    """Gather the features of many songs in shards; return their paths, songs in the order of their track ids.

    A shard is named by what it holds, so that one that is there already is kept; shards of `folder` that hold anything
    else are removed when the new ones are complete.

    Args:
        paths: Files that `save_features` wrote, named by track id.
        folder: Created if it does not exist; holds nothing but shards.
        songs_per_shard: Songs in a file.

    Raises:
        FormatError: If a file is not the features of a song.
        ParameterError: If two files have one track id, or `songs_per_shard` is below 1.
    """
    ordered = sorted(paths, key=lambda path: path.stem)
    if len({path.stem for path in ordered}) < len(ordered):
        raise ParameterError("two files of features have one track id; name every song once")
    if songs_per_shard < 1:
        raise ParameterError(f"songs_per_shard must be at least 1; got {songs_per_shard}")
    folder = Path(folder)
    shards = []
    for start in range(0, len(ordered), songs_per_shard):
        songs = [(path.stem, read_features(path)) for path in ordered[start : start + songs_per_shard]]
        held = [[track_id, song.metadata, song.features.n_beats] for track_id, song in songs]
        shards.append(folder / f"{digest([_SHARD_SCHEMA, held])[:16]}.parquet")
        if not shards[-1].exists():
            _write_shard(shards[-1], songs)
    for path in set(folder.glob("*.parquet")) - set(shards):
        path.unlink()
    return shards


class ShardReader:
    """Reads single songs from shards.

    Args:
        paths: The shards.

    Raises:
        FormatError: If a shard is missing, damaged or of another version; here or when a song is read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: list[pq.ParquetFile] = []
        self._places: dict[str, tuple[Path, pq.ParquetFile, int, dict[str, str]]] = {}
        try:
            for path in paths:
                self._open(Path(path))
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path) -> None:
        try:
            if path.stat().st_size > _MAX_SHARD_BYTES:
                raise FormatError(f"larger than {_MAX_SHARD_BYTES} bytes, the most that is read")
            file = pq.ParquetFile(path, page_checksum_verification=True)
            self._files.append(file)
            for row_group, entry in enumerate(_songs_of(file)):
                self._places[entry["track_id"]] = (path, file, row_group, entry["metadata"])
        except _DAMAGE as error:
            raise FormatError(f"{path}: not features of songs: {error}; compact them again") from error

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def track_ids(self) -> list[str]:
        """The songs, in the order in which they are stored."""
        return list(self._places)

    def load(self, track_id: str) -> StoredFeatures:
        """The features of one song.

        Raises:
            ParameterError: If no shard holds the song.
            FormatError: If what is stored is damaged.
        """
        if track_id not in self._places:
            raise ParameterError(f"no shard holds a song {track_id!r}")
        path, file, row_group, metadata = self._places[track_id]
        try:
            table = file.read_row_group(row_group)
            grid = BeatGrid(
                times=table.column("beat_time_s").to_numpy(),
                positions=table.column("beat_position").to_numpy(),
                duration=float(metadata["duration_s"]),
                confidence=float(metadata["confidence"]),
            )
            values = table.column("features").combine_chunks().flatten().to_numpy().reshape(-1, N_FEATURES)
            return StoredFeatures(BeatFeatures(values, grid), dict(metadata))
        except _DAMAGE as error:
            raise FormatError(f"{path}: song {track_id} is damaged: {error}; compact the songs again") from error

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def _songs_of(file: Any) -> list[dict[str, Any]]:
    """Track id and metadata of every row group of a shard whose layout is the right one."""
    schema = file.schema_arrow
    if not schema.equals(pa.schema(_FIELDS)):
        raise FormatError(f"columns are {schema.names}, expected those of {_SHARD_SCHEMA}")
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    if metadata["schema"] != _SHARD_SCHEMA or tuple(json.loads(metadata["feature_names"])) != FEATURE_NAMES:
        raise FormatError("made with other features")
    entries: list[dict[str, Any]] = json.loads(metadata["songs"])
    if metadata["digest"] != digest(entries):
        raise FormatError("the list of songs is damaged")
    if len(entries) != file.metadata.num_row_groups:
        raise FormatError(f"{file.metadata.num_row_groups} row groups of {len(entries)} songs")
    for row_group, entry in enumerate(entries):
        n_beats = file.metadata.row_group(row_group).num_rows
        if n_beats != entry["n_beats"] or not 1 <= n_beats <= _MAX_BEATS:
            raise FormatError(f"{n_beats} beats of song {entry['track_id']}, expected {entry['n_beats']}")
        other = [key for key, value in EXTRACTION.items() if entry["metadata"].get(key) != value]
        if other:
            raise FormatError(f"{other[0]} is {entry['metadata'].get(other[0])!r}, expected {EXTRACTION[other[0]]!r}")
    return entries


def write_array(shards: Sequence[Path], folder: Path | str) -> None:
    """Write the features of all songs of `shards` as one array, `features.f32`, and its index, `features.json`.

    Raises:
        FormatError: If a shard is damaged.
    """
    folder = Path(folder)
    places: dict[str, list[int]] = {}
    with ShardReader(shards) as reader, atomic_path(folder / "features.f32") as temporary:
        n_rows = 0
        with temporary.open("wb") as handle:
            for track_id in reader.track_ids:
                values = reader.load(track_id).features.values
                handle.write(np.ascontiguousarray(values).data)
                places[track_id] = [n_rows, n_rows + len(values)]
                n_rows += len(values)
        sha256 = sha256_file(temporary)
    index = {"schema": _ARRAY_SCHEMA, "extraction": EXTRACTION, "feature_names": FEATURE_NAMES}
    write_json(folder / "features.json", {**index, "sha256": sha256, "songs": places}, indent=None)


class FeatureArray:
    """The memory-mapped features that `write_array` wrote; opening reads them once to check their digest.

    Args:
        folder: Where they are.

    Raises:
        FormatError: If the files are missing, damaged, of another version, or not of each other.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        try:
            index = read_json(folder / "features.json")
            if (index["schema"], index["extraction"]) != (_ARRAY_SCHEMA, EXTRACTION):
                raise FormatError("made by another version")
            if tuple(index["feature_names"]) != FEATURE_NAMES:
                raise FormatError("made with other features")
            if sha256_file(folder / "features.f32") != index["sha256"]:
                raise FormatError("the array is not the one that the index describes")
            self._places = {str(track_id): slice(*place) for track_id, place in index["songs"].items()}
            n_rows = max((place.stop for place in self._places.values()), default=0)
            shape = (n_rows, N_FEATURES)
            self._array: np.ndarray = np.memmap(folder / "features.f32", dtype=np.float32, mode="r", shape=shape)
        except _DAMAGE as error:
            raise FormatError(f"{folder}: not an array of features: {error}; write it again") from error

    @property
    def track_ids(self) -> list[str]:
        """The songs, in the order in which they are stored."""
        return list(self._places)

    @property
    def rows(self) -> np.ndarray:
        """All rows, read-only float32 (rows, 121)."""
        return self._array

    def values(self, track_id: str) -> np.ndarray:
        """The features of one song, read-only float32 (n_beats, 121), not copied.

        Raises:
            ParameterError: If there is no such song.
        """
        if track_id not in self._places:
            raise ParameterError(f"the array holds no song {track_id!r}")
        return self._array[self._places[track_id]]
