"""Tables of the pipeline: one Parquet file per asset, in a local folder or at any address that fsspec supports."""

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from editorbot_core.base.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

_DIGEST = b"editorbot.content"


def _content_digest(table: "pa.Table") -> str:
    """Digest of column names and values, independent of the layout of the file."""
    return hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest()


def encode_table(frame: pd.DataFrame) -> bytes:
    """`frame` as Parquet, with a checksum on every page and a digest of the content in the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    table = table.replace_schema_metadata({_DIGEST: _content_digest(table)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def decode_table(content: bytes, *, source: str) -> pd.DataFrame:
    """The frame that `encode_table` encoded.

    Raises:
        FormatError: If the bytes are damaged or not of such a table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
        stated = (table.schema.metadata or {}).get(_DIGEST, b"").decode()
        found = _content_digest(table)
        frame = table.to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise FormatError(f"{source}: damaged: {error}; make it again") from error
    if stated != found:
        raise FormatError(f"{source}: damaged: the content does not match the stored digest; make it again")
    return frame


def table_version(frame: pd.DataFrame) -> str:
    """Digest of the table's content, 32 hexadecimal digits."""
    import pyarrow as pa

    return _content_digest(pa.Table.from_pandas(frame, preserve_index=False))[:32]


@dataclass(frozen=True)
class TableStore:
    """A store of tables by name.

    Attributes:
        root: A folder, or an address such as `s3://bucket/tables`.
    """

    root: str

    def address(self, name: str) -> str:
        """Address of the table `name`."""
        return f"{self.root.rstrip('/')}/{name}.parquet"

    def exists(self, name: str) -> bool:
        """Whether there is a table `name`."""
        import fsspec

        filesystem, path = fsspec.url_to_fs(self.address(name))
        return bool(filesystem.exists(path))

    def write(self, name: str, frame: pd.DataFrame) -> None:
        """Replace the table `name` in one step; in an object store, a put is atomic."""
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        from editorbot_core.base.files import write_bytes

        content = encode_table(frame)
        filesystem, path = fsspec.url_to_fs(self.address(name))
        if isinstance(filesystem, LocalFileSystem):
            write_bytes(path, content)
        else:
            filesystem.pipe_file(path, content)

    def read(self, name: str) -> pd.DataFrame:
        """The table `name`.

        Raises:
            FormatError: If it is missing or damaged.
        """
        import fsspec

        address = self.address(name)
        filesystem, path = fsspec.url_to_fs(address)
        try:
            content = filesystem.cat_file(path)
        except FileNotFoundError as error:
            raise FormatError(f"{address}: no such table; materialize the asset {name}") from error
        return decode_table(content, source=address)
