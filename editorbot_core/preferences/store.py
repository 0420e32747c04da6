"""The store of answers: an append-only database, SQLite or PostgreSQL."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.dialects import postgresql, sqlite

from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError, StoreError
from editorbot_core.base.files import digest
from editorbot_core.editing.interchange import edl_from_dict, edl_to_dict
from editorbot_core.preferences.preference import MAX_NAME, SOURCES, Preference

SCHEMA_VERSION = 1
_LOCK_TIMEOUT_S = 60.0
_BUSY_TIMEOUT_MS = 30_000
_ROWS_AT_ONCE = 200

# Key of the lock under which tables are made in PostgreSQL; any constant serves.
_POSTGRES_LOCK = 7_305_911_624_583_211
_METADATA = sa.MetaData()
_VERSION = sa.Table("editorbot_schema", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
_ANSWERS = sa.Table(
    "preferences",
    _METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("answer_id", sa.String(MAX_NAME), nullable=False, unique=True),
    sa.Column("track_id", sa.String(MAX_NAME), nullable=False, index=True),
    sa.Column("target_duration_s", sa.Float(53), nullable=False),
    sa.Column("a", sa.Text, nullable=False),
    sa.Column("b", sa.Text, nullable=False),
    sa.Column("label", sa.Float(53), nullable=False),
    sa.Column("strength", sa.Integer, nullable=False),
    sa.Column("confidence", sa.Float(53), nullable=False),
    sa.Column("rater", sa.String(MAX_NAME), nullable=False),
    sa.Column("source", sa.String(16), nullable=False, index=True),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("created_at", sa.String(40), nullable=False),
    sa.Column("content_sha256", sa.String(64), nullable=False),
)

# The time of an answer is not part of its content: a retry may carry a later one.
_CONTENT = tuple(c.name for c in _ANSWERS.columns if c.name not in ("seq", "created_at", "content_sha256"))


def _row(preference: Preference) -> dict[str, Any]:
    row: dict[str, Any] = {
        "answer_id": preference.answer_id,
        "track_id": preference.track_id,
        "target_duration_s": float(preference.a.target_duration_s),
        "label": preference.label,
        "strength": preference.strength,
        "confidence": preference.confidence,
        "rater": preference.rater,
        "source": preference.source,
        "round": preference.round,
        "created_at": preference.created_at,
    }
    for side, edl in (("a", preference.a), ("b", preference.b)):
        row[side] = json.dumps(edl_to_dict(edl), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    row["content_sha256"] = digest([row[name] for name in _CONTENT])
    return row


def _preference(row: Any) -> Preference:
    if digest([row[name] for name in _CONTENT]) != row["content_sha256"]:
        raise StoreError(f"answer {row['answer_id']!r} is damaged: its content does not match the stored digest")
    try:
        return Preference(
            a=edl_from_dict(json.loads(row["a"])),
            b=edl_from_dict(json.loads(row["b"])),
            **{
                name: row[name]
                for name in ("label", "strength", "confidence", "rater", "source", "answer_id", "created_at", "round")
            },
        )
    except (ValueError, ParameterError, FormatError) as error:
        raise StoreError(f"answer {row['answer_id']!r} cannot be read: {error}") from error


def _database_url(address: str | Path) -> sa.URL:
    """The URL of a path or an address, with the driver that this package depends on."""
    if isinstance(address, Path) or "://" not in address:
        return sa.URL.create("sqlite", database=str(Path(address).expanduser().resolve()))
    try:
        url = sa.make_url(address)
    except sa.exc.ArgumentError as error:
        raise ParameterError("the database address is not a URL such as postgresql://user@host/name") from error
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url
    if url.get_backend_name() != "sqlite":
        raise ParameterError(f"preferences are kept in SQLite or PostgreSQL; got {url.get_backend_name()!r}")
    if not url.database or url.database == ":memory:":
        raise ParameterError("preferences need a file; an SQLite database in memory would lose them")
    return url.set(database=str(Path(url.database).expanduser().resolve()))


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    # A connection per transaction: it costs a fraction of a millisecond and survives forks and threads.
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A writer takes the lock at once; upgrading from a read would fail where it could have waited.
        mode = connection.get_execution_options().get("editorbot_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


class PreferenceStore:
    """Answers in a database: SQLite at a path or `sqlite:///` address, or PostgreSQL by address. Append-only.

    Use it as a context manager, or call `close`. Every error of the database is a `StoreError`.
    """

    def __init__(self, url: str | Path) -> None:
        """Open the store, making its tables if there are none (under a lock, so that several processes may).

        Raises:
            ParameterError: If the address is not one of SQLite or PostgreSQL.
            StoreError: If the database cannot be reached or was written by a newer version.
        """
        address = _database_url(url)
        self._is_sqlite = address.get_backend_name() == "sqlite"
        self.name = address.render_as_string(hide_password=True)
        try:
            if self._is_sqlite:
                path = Path(str(address.database))
                path.parent.mkdir(parents=True, exist_ok=True)
                self._engine = _sqlite_engine(address)
                with FileLock(str(path) + ".lock", timeout=_LOCK_TIMEOUT_S):
                    self._migrate()
            else:
                self._engine = sa.create_engine(address, pool_pre_ping=True)
                self._migrate()
        except (sa.exc.SQLAlchemyError, Timeout, OSError, ImportError) as error:
            self._dispose()
            raise self._failure("open", error) from error
        except EditorBotError:
            self._dispose()
            raise

    def __enter__(self) -> "PreferenceStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release every connection; using the store afterwards connects again."""
        self._engine.dispose()

    def _dispose(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.dispose()

    def _failure(self, what: str, error: Exception) -> StoreError:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        return StoreError(f"{self.name}: cannot {what} preferences: {reason}")

    def _migrate(self) -> None:
        with self._engine.begin() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
            _METADATA.create_all(connection)
            version = connection.execute(sa.select(sa.func.max(_VERSION.c.version))).scalar()
            if version is None:
                connection.execute(_VERSION.insert().values(version=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise StoreError(f"{self.name}: tables of version {version}; this program knows {SCHEMA_VERSION}")

    def add(self, preference: Preference) -> bool:
        """Store one answer; True if it was new, False if it was stored already.

        Raises:
            StoreError: If another answer has this id, or the database cannot be written.
        """
        return self.add_many([preference]) == 1

    def add_many(self, preferences: Iterable[Preference]) -> int:
        """Store answers in one transaction, all or none; return how many were new.

        Raises:
            StoreError: If another answer has one of the ids, or the database cannot be written.
        """
        rows = [_row(preference) for preference in preferences]
        insert = (sqlite.insert if self._is_sqlite else postgresql.insert)(_ANSWERS)
        statement = insert.on_conflict_do_nothing(index_elements=["answer_id"]).returning(_ANSWERS.c.seq)
        stored = sa.select(_ANSWERS.c.content_sha256).where(_ANSWERS.c.answer_id == sa.bindparam("id"))
        n_new = 0
        try:
            with self._engine.begin() as connection:
                for row in rows:
                    if connection.execute(statement, row).first() is not None:
                        n_new += 1
                    elif connection.execute(stored, {"id": row["answer_id"]}).scalar() != row["content_sha256"]:
                        raise StoreError(
                            f"answer {row['answer_id']!r} is stored with other content; answers are never changed"
                        )
        except sa.exc.SQLAlchemyError as error:
            raise self._failure("write", error) from error
        return n_new

    def __iter__(self) -> Iterator[Preference]:
        return self.stream()

    def stream(self, *, source: str | None = None) -> Iterator[Preference]:
        """Answers in the order in which they were stored, a few in memory at a time; only those of `source` if given.

        Raises:
            StoreError: If the database cannot be read, or an answer does not match its stored digest.
        """
        query = sa.select(_ANSWERS).order_by(_ANSWERS.c.seq).limit(_ROWS_AT_ONCE)
        if source is not None:
            query = query.where(_ANSWERS.c.source == source)
        seen = 0
        while rows := self._read(query.where(_ANSWERS.c.seq > seen)):
            for row in rows:
                yield _preference(row)
            seen = rows[-1]["seq"]

    def all(self, *, source: str | None = None) -> list[Preference]:
        """Every answer, in the order in which they were stored; only those of `source` if given."""
        return list(self.stream(source=source))

    def count(self, source: str | None = None) -> int:
        """Number of stored answers; only those of `source` if given."""
        counts = self.counts()
        return sum(counts.values()) if source is None else counts.get(source, 0)

    def counts(self) -> dict[str, int]:
        """Number of stored answers per source, 0 included."""
        rows = self._read(sa.select(_ANSWERS.c.source, sa.func.count().label("n")).group_by(_ANSWERS.c.source))
        found = Counter({row["source"]: int(row["n"]) for row in rows})
        return {source: found[source] for source in SOURCES}

    def digest(self) -> str:
        """SHA-256 of the content of all answers, without order and times: equal digests mean equal training data."""
        total = hashlib.sha256()
        for row in self._read(sa.select(_ANSWERS.c.content_sha256).order_by(_ANSWERS.c.content_sha256)):
            total.update(bytes.fromhex(row["content_sha256"]))
        return total.hexdigest()

    def _read(self, query: sa.Select[Any]) -> list[Any]:
        try:
            with self._engine.connect().execution_options(editorbot_begin="DEFERRED") as connection:
                return list(connection.execute(query).mappings().all())
        except sa.exc.SQLAlchemyError as error:
            raise self._failure("read", error) from error
