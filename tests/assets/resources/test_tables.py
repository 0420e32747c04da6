"""Tables: what is written comes back, whole or not at all, here and in an object store."""

from pathlib import Path

import fsspec
import pandas as pd
import pytest

from assets.resources.tables import TableStore, table_version
from editorbot_core.base.errors import FormatError


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"track_id": ["a", "b"], "beats": [3, 4], "tempo": [120.0, None], "row": [[1, 2], [3]]})


def _same(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    return a.map(lambda cell: list(cell) if hasattr(cell, "__len__") and not isinstance(cell, str) else cell).equals(b)


def test_a_table_comes_back(tmp_path: Path, frame: pd.DataFrame) -> None:
    store = TableStore(str(tmp_path))
    assert not store.exists("songs")
    store.write("songs", frame)
    assert store.exists("songs")
    assert _same(store.read("songs"), frame)
    assert [path.name for path in tmp_path.iterdir()] == ["songs.parquet"]


def test_tables_live_behind_any_address(frame: pd.DataFrame) -> None:
    store = TableStore("memory://bucket/tables/")
    store.write("songs", frame)
    assert _same(store.read("songs"), frame)
    assert fsspec.filesystem("memory").exists("/bucket/tables/songs.parquet")


def test_equal_content_has_one_version_and_other_content_another(frame: pd.DataFrame) -> None:
    assert table_version(frame) == table_version(frame.copy())
    assert table_version(frame) != table_version(frame.assign(beats=[3, 5]))
    assert table_version(frame) != table_version(frame[::-1])


def test_no_flipped_bit_is_read_silently(tmp_path: Path, frame: pd.DataFrame) -> None:
    store = TableStore(str(tmp_path))
    store.write("songs", frame)
    path = tmp_path / "songs.parquet"
    whole = path.read_bytes()
    n_refused = 0
    for i in range(0, 8 * len(whole), 41):
        damaged = bytearray(whole)
        damaged[i // 8] ^= 1 << (i % 8)
        path.write_bytes(bytes(damaged))
        try:
            read = store.read("songs")
        except FormatError:
            n_refused += 1
        else:
            # Bits of the footer that no value depends on, such as the writer's name.
            assert list(read.columns) == list(frame.columns)
            assert _same(read, frame)
    assert n_refused > 20


def test_a_missing_table_says_which_asset_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="materialize the asset songs"):
        TableStore(str(tmp_path)).read("songs")
