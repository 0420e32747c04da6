"""A table of features comes back as it was saved, or not at all."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from editorbot_core.analysis.features.columns import FEATURE_NAMES
from editorbot_core.analysis.features.table import BeatFeatures, read_features, save_features
from editorbot_core.base.errors import FormatError, ParameterError
from tests.core.analysis.features.conftest import beat_grid


def test_a_container_checks_its_values() -> None:
    grid = beat_grid(2.0)
    with pytest.raises(ParameterError, match=re.escape("float32 (4, 121)")):
        BeatFeatures(np.zeros((4, 125), dtype=np.float32), grid)
    values = np.zeros((4, 121), dtype=np.float32)
    values[2, 1] = np.nan
    with pytest.raises(ParameterError, match="1 are not, in rms"):
        BeatFeatures(values, grid)


def test_loading_gives_back_what_was_saved(tmp_path: Path, features: BeatFeatures) -> None:
    save_features(tmp_path / "a.parquet", features, metadata={"sha256": "ab"})
    stored = read_features(tmp_path / "a.parquet")
    np.testing.assert_array_equal(stored.features.values, features.values)
    np.testing.assert_array_equal(stored.features.grid.times, features.grid.times)
    np.testing.assert_array_equal(stored.features.grid.positions, features.grid.positions)
    assert stored.features.grid.duration == features.grid.duration
    assert stored.features.grid.confidence == features.grid.confidence
    assert stored.metadata["sha256"] == "ab"
    assert stored.features.grid.region_confidence is None
    regions = replace(features, grid=replace(features.grid, region_confidence=[0.25]))
    save_features(tmp_path / "b.parquet", regions)
    np.testing.assert_array_equal(read_features(tmp_path / "b.parquet").features.grid.region_confidence, [0.25])
    assert {"extractor_version", "tracker", "sample_rate", "hop_length", "n_fft"} <= stored.metadata.keys()
    np.testing.assert_array_equal(read_features(tmp_path / "a.parquet").features.values, features.values)


def test_other_programs_read_named_columns(tmp_path: Path, features: BeatFeatures) -> None:
    save_features(tmp_path / "a.parquet", features)
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert list(frame.columns) == ["beat_time_s", "beat_position", *FEATURE_NAMES, "context"]
    assert len(frame) == features.n_beats


def test_damaged_files_are_refused(tmp_path: Path, features: BeatFeatures) -> None:
    path = tmp_path / "a.parquet"
    save_features(path, features)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    silent = 0
    for _ in range(60):
        place, bit = int(rng.integers(len(content))), int(rng.integers(8))
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(bytes(damaged))
        try:
            again = read_features(path).features
        except FormatError:
            continue
        # A flipped bit in what only describes the file may leave every value as it was.
        same = np.array_equal(again.values, features.values) and np.array_equal(again.grid.times, features.grid.times)
        silent += not same
    assert silent == 0
    for length in (0, 4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match="ingest the songs again"):
            read_features(path)


def _change_table(path: Path, change: str) -> None:
    table = pq.read_table(path)
    if change == "width":
        table = table.drop_columns(["other_energy_share"])
    elif change == "order":
        table = table.select([*table.column_names[:-2], *table.column_names[:-3:-1]])
    elif change == "type":
        table = table.set_column(5, table.column_names[5], table.column(5).cast(pa.float64()))
    elif change == "no rows":
        table = table.slice(0, 0)
    elif change == "not finite":
        table = table.set_column(5, table.column_names[5], pa.array(np.full(len(table), np.nan, dtype=np.float32)))
    elif change == "another version":
        table = table.replace_schema_metadata({**table.schema.metadata, b"extractor_version": b"0"})
    elif change == "regions":
        table = table.replace_schema_metadata({**table.schema.metadata, b"region_confidence": b'{"a": 1}'})
    elif change == "no metadata":
        table = table.replace_schema_metadata(None)
    pq.write_table(table, path)


@pytest.mark.parametrize(
    "change", ["width", "order", "type", "no rows", "not finite", "another version", "regions", "no metadata"]
)
def test_files_of_another_layout_are_refused(tmp_path: Path, features: BeatFeatures, change: str) -> None:
    save_features(tmp_path / "a.parquet", features)
    _change_table(tmp_path / "a.parquet", change)
    with pytest.raises(FormatError, match=r"a\.parquet"):
        read_features(tmp_path / "a.parquet")


def test_a_missing_file_is_an_error_of_format(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        read_features(tmp_path / "none.parquet")
