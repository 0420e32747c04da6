"""The features of one song as a table: a row per beat, a named column per feature, stored as Parquet.

Values are not standardised. A file of another extractor version is refused, and its song is analysed again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from editorbot_core.analysis.beats.grid import MAX_BEATS, BeatGrid
from editorbot_core.analysis.beats.tracking import TRACKER
from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, N_FFT, SAMPLE_RATE
from editorbot_core.analysis.features.columns import FEATURE_NAMES, N_FEATURES
from editorbot_core.analysis.features.context import N_CONTEXT
from editorbot_core.analysis.names import DEFAULT_SEPARATOR
from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError
from editorbot_core.base.files import atomic_path

EXTRACTOR_VERSION = "2"


@dataclass(frozen=True)
class BeatFeatures:
    """The features of one song.

    Attributes:
        values: float32, shape (n_beats, 121), finite, columns as `FEATURE_NAMES`.
        grid: The beats the rows belong to.
        context: float32, shape (n_beats, 102), finite, for the structure model (`analysis.features.context`), or None.
    """

    values: np.ndarray
    grid: BeatGrid
    context: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check shape and type, and that every value is finite."""
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


_GRID_COLUMNS = ("beat_time_s", "beat_position")
_CONTEXT_COLUMN = "context"
_CONTEXT_TYPE = pa.list_(pa.field("item", pa.float16()), N_CONTEXT)
_SCHEMA = "editorbot.features/1"
_MAX_FILE_BYTES = 512 * 2**20
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
        metadata: Further entries, for example `sha256`; values must be valid Unicode.
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


@dataclass(frozen=True)
class StoredFeatures:
    """Features from a file, with the metadata stored with them."""

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
    """The metadata of the file, if its columns, types and size are those of features.

    Raises:
        FormatError: If they are not.
    """
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
    if not 1 <= file.metadata.num_rows <= MAX_BEATS:
        raise FormatError(f"{file.metadata.num_rows} rows; 1-{MAX_BEATS} are read")
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    for key, value in EXTRACTION.items():
        if metadata.get(key) != value:
            raise FormatError(f"{key} is {metadata.get(key)!r}, expected {value!r}")
    return metadata
