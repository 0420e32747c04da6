"""Atomic writes, JSON, digests, and paths as text.

A file appears under its final name only when it is complete: it is written beside its target under a temporary name,
flushed to disk, and renamed. A process that is killed at any point leaves the old file or the new one.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from editorbot_core.base.errors import FormatError

# A file name's undecodable bytes 0x80-0xFF: lone surrogates in Python, private-use characters in text that is stored.
_SURROGATES_TO_PRIVATE = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_PRIVATE_TO_SURROGATES = {private: surrogate for surrogate, private in _SURROGATES_TO_PRIVATE.items()}


def path_to_text(path: Path | str) -> str:
    """A path as valid Unicode that can be stored and shown; it differs from the path only in undecodable bytes."""
    return str(path).translate(_SURROGATES_TO_PRIVATE)


def text_to_path(text: Path | str) -> Path:
    """The path that `path_to_text` turned into `text`."""
    path = Path(text)
    if any(ord(character) in _PRIVATE_TO_SURROGATES for character in str(text)) and not path.exists():
        return Path(str(text).translate(_PRIVATE_TO_SURROGATES))
    return path


_TEMPORARY_SUFFIX = ".editorbot-part"
_STALE_AFTER_S = 24 * 3600.0


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """A temporary path beside `target` that replaces it when the block ends without an error.

    The temporary name keeps the target's last suffix, for writers that choose a format by it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem[:80]}-", suffix=f"{_TEMPORARY_SUFFIX}{target.suffix}"
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
        _fsync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path | str, content: bytes) -> None:
    """Write `content` to `target` in one step."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path | str, content: str) -> None:
    """Write `content` to `target` as UTF-8 in one step."""
    write_bytes(target, content.encode("utf-8"))


def write_json(target: Path | str, value: Any, *, indent: int | None = 1) -> None:
    """Write `value` to `target` as strict JSON in one step; NaN and infinities raise a `ValueError`."""
    write_text(target, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path | str, *, max_bytes: int = 64 * 2**20) -> Any:
    """Parse the JSON file at `path`.

    Raises:
        FormatError: If the file is missing, larger than `max_bytes`, or not strict JSON.
    """
    path = Path(path)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number in JSON")

    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise FormatError(f"{path}: {size} bytes; at most {max_bytes} are read as JSON")
        return json.loads(path.read_bytes(), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not readable as JSON: {error}") from error


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of the file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON-serialisable value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def source_files(*packages: ModuleType) -> list[Path]:
    """Every Python file of the packages and of the packages below them, sorted."""
    return sorted(path for package in packages for root in package.__path__ for path in Path(root).rglob("*.py"))


def source_digest(*packages: ModuleType) -> str:
    """Digest of the source of the packages, 16 hexadecimal digits; every file counts, with its name and place."""
    roots = [Path(root).parent for package in packages for root in package.__path__]
    total = hashlib.sha256()
    for source in source_files(*packages):
        place = next(source.relative_to(root) for root in roots if source.is_relative_to(root))
        total.update(place.as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def sweep_temporaries(folder: Path | str, *, older_than_s: float = _STALE_AFTER_S) -> int:
    """Remove temporary files that a killed process left below `folder`; return how many."""
    removed = 0
    for path in Path(folder).rglob(f".*{_TEMPORARY_SUFFIX}*"):
        try:
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
