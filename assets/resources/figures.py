"""Plots and tables as metadata for the Dagster UI: small PNG files inside Markdown, and rounded numbers."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from editorbot_core.base.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BYTES = 100_000


def png(figure: "Figure", *, dpi: int = 80) -> bytes:
    """The figure as PNG of less than 100 kB.

    Raises:
        ParameterError: If it is too large even at a quarter of the resolution.
    """
    for resolution in (dpi, dpi // 2, dpi // 4):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=resolution)
        if buffer.tell() < MAX_BYTES:
            return buffer.getvalue()
    raise ParameterError(f"a plot of {buffer.tell()} bytes is too large to show; at most {MAX_BYTES}")


def shown(images: Mapping[str, bytes]) -> dict[str, dg.MetadataValue]:
    """Images as metadata of a materialization, by name."""
    return {
        f"plot_{name}": dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(image).decode()})")
        for name, image in images.items()
    }


def table_metadata(records: Sequence[Mapping[Any, Any]]) -> dg.TableMetadataValue:
    """A small table as metadata; numbers are rounded to four decimals."""

    def cell(value: Any) -> str | int | float:
        if isinstance(value, float):
            return round(value, 4) if value == value else "-"
        return value if isinstance(value, int) else str(value)

    rows = [{str(name): cell(value) for name, value in record.items()} for record in records]
    names = list(rows[0]) if rows else []
    kinds = {name: "string" if any(isinstance(row[name], str) for row in rows) else "float" for name in names}
    rows = [{name: str(row[name]) if kinds[name] == "string" else float(row[name]) for name in names} for row in rows]
    return dg.MetadataValue.table(
        records=[dg.TableRecord(row) for row in rows],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, kinds[name]) for name in names]),
    )
