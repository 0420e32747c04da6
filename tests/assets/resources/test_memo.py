"""Assets whose inputs have not changed are not made again."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets.resources.home import Home
from assets.resources.memo import Memo, latest_materialization, metadata_value
from assets.resources.tables import table_version
from pipelines.io_managers import ParquetTables


class Toy:
    """Two assets: a table, and something made of it and one setting."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance = folder, instance
        self.rows = [1, 2]
        self.made: list[str] = []

        @dg.asset(io_manager_key="tables")
        def table(context: dg.AssetExecutionContext, home: Home) -> dg.MaterializeResult[pd.DataFrame]:
            memo = Memo(context, home, other={"rows": self.rows})
            if memo.unchanged and home.tables.exists("table"):
                return memo.again(value=home.tables.read("table"))
            self.made.append("table")
            frame = pd.DataFrame({"row": self.rows})
            return memo.made(table_version(frame), {"n": len(frame)}, value=frame)

        @dg.asset
        def total(context: dg.AssetExecutionContext, home: Home, table: pd.DataFrame) -> dg.MaterializeResult:
            memo = Memo(context, home, settings=("seed",))
            if memo.unchanged:
                return memo.again()
            self.made.append("total")
            return memo.made(str(table["row"].sum()), {"sum": int(table["row"].sum())})

        self.assets = [table, total]

    def run(self, **settings: str) -> list[str]:
        self.made.clear()
        home = Home(folder=str(self.folder), settings=settings)
        resources = {"home": home, "tables": ParquetTables(folder=str(self.folder))}
        assert dg.materialize(self.assets, instance=self.instance, resources=resources).success
        return list(self.made)


@pytest.fixture
def toy(tmp_path: Path, instance: dg.DagsterInstance) -> Toy:
    return Toy(tmp_path, instance)


def test_the_second_run_makes_nothing_and_says_so(toy: Toy) -> None:
    assert toy.run() == ["table", "total"]
    first = latest_materialization(toy.instance, "total")
    assert toy.run() == []
    second = latest_materialization(toy.instance, "total")
    assert (metadata_value(first, "reused"), metadata_value(second, "reused")) == (False, True)
    assert metadata_value(second, "sum") == metadata_value(first, "sum") == 3
    assert first is not None and second is not None
    assert second.tags["dagster/data_version"] == first.tags["dagster/data_version"] == "3"
    # What was reused twice is still what was made.
    assert toy.run() == []


def test_only_what_a_change_reaches_is_made_again(toy: Toy) -> None:
    toy.run()
    assert toy.run(seed="1") == ["total"]
    toy.rows = [3]
    assert toy.run(seed="1") == ["table", "total"]
    toy.rows = [1, 2]
    assert toy.run(seed="1") == ["table", "total"]


def test_a_lost_table_is_made_again_and_what_follows_is_not(toy: Toy) -> None:
    toy.run()
    (toy.folder / "tables" / "table.parquet").unlink()
    assert toy.run() == ["table"]


def test_other_code_makes_everything_again(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.run()
    monkeypatch.setattr("assets.resources.memo.code_version", lambda: "other")
    assert toy.run() == ["table", "total"]


def test_the_table_shows_its_rows_columns_and_a_preview(toy: Toy) -> None:
    toy.run()
    made = latest_materialization(toy.instance, "table")
    assert metadata_value(made, "dagster/row_count") == 2
    assert [column.name for column in metadata_value(made, "dagster/column_schema").columns] == ["row"]
    assert made is not None
    preview = made.metadata["preview"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert [record.data for record in preview.records] == [{"row": "1"}, {"row": "2"}]
