"""Weights that are shipped with the package: small arrays in `trained/`, checked against a digest when loaded."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from editorbot_core.base.errors import FormatError
from editorbot_core.base.files import atomic_path

FOLDER = Path(str(files("editorbot_core.analysis"))) / "trained"
_SUMS = "SHA256SUMS"


def _sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / _SUMS).read_text().splitlines()
    except OSError:
        return {}
    return {name: digest for digest, name in (line.split() for line in lines)}


def save_weights(name: str, arrays: dict[str, np.ndarray], *, folder: Path = FOLDER) -> str:
    """Write `arrays` as `<name>.npz` and its digest to the list beside it; return the digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    sums = _sums(folder) | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    with atomic_path(folder / _SUMS) as temporary:
        temporary.write_text("".join(f"{digest}  {file}\n" for file, digest in sorted(sums.items())))
    return sums[path.name]


def weights_digest(name: str, *, folder: Path = FOLDER) -> str:
    """The digest that `<name>.npz` must have.

    Raises:
        FormatError: If the list of digests has none for it.
    """
    digest = _sums(folder).get(f"{name}.npz")
    if digest is None:
        raise FormatError(f"{folder / _SUMS}: no digest of {name}.npz; install the package again")
    return digest


@cache
def load_weights(name: str, *, folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """The arrays of `<name>.npz`.

    Raises:
        FormatError: If the file is missing, or its digest is not the listed one.
    """
    path = folder / f"{name}.npz"
    expected = weights_digest(name, folder=folder)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}; install the package again") from error
    if found != expected:
        raise FormatError(f"{path}: SHA-256 {found[:16]}, expected {expected[:16]}; install the package again")
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}
