"""Storage of tables between assets: Parquet in a `TableStore`, with rows, columns and a preview in the UI."""

import dagster as dg
import pandas as pd
from pydantic import Field

from assets.resources.home import Home
from assets.resources.tables import TableStore

_PREVIEW_ROWS = 5
_PREVIEW_WIDTH = 60


class ParquetTables(dg.ConfigurableIOManager):
    """Stores the data frame of an asset under the asset's name."""

    folder: str = Field(default="", description="Local results; empty: EDITORBOT_HOME, else .editorbot")

    def _store(self) -> TableStore:
        return Home(folder=self.folder).tables

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Write the frame, and report rows, columns and a preview."""
        name = context.asset_key.path[-1]
        self._store().write(name, obj)
        columns = [dg.TableColumn(str(column), str(kind)) for column, kind in obj.dtypes.items()]
        preview = obj.head(_PREVIEW_ROWS).map(lambda cell: str(cell)[:_PREVIEW_WIDTH])
        context.add_output_metadata(
            {
                "dagster/row_count": len(obj),
                "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns=columns)),
                "dagster/uri": self._store().address(name),
                "preview": dg.MetadataValue.table(
                    records=[
                        dg.TableRecord({str(k): str(v) for k, v in row.items()}) for row in preview.to_dict("records")
                    ],
                    schema=dg.TableSchema(columns=[dg.TableColumn(str(column), "string") for column in obj.columns]),
                ),
            }
        )

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Read the frame of the upstream asset."""
        return self._store().read(context.asset_key.path[-1])
