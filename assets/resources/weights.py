"""Local weights of model assets: their path and digest."""

from pathlib import Path
from typing import NamedTuple

import dagster as dg

from assets.resources.memo import Memo, latest_materialization, metadata_value
from editorbot_core.base.errors import StoreError
from editorbot_core.base.files import sha256_file


class Weights(NamedTuple):
    """A `.pt` file and the SHA-256 it must have."""

    path: Path
    sha256: str


def weights_of(instance: dg.DagsterInstance, name: str) -> Weights:
    """The latest weights of the model asset `name`.

    Raises:
        StoreError: If it was never materialized, or the file is gone or damaged.
    """
    made = latest_materialization(instance, name)
    path, sha256 = metadata_value(made, "weights"), metadata_value(made, "sha256")
    if not path or not sha256:
        raise StoreError(f"the asset {name} has not been materialized; materialize it first")
    if not Path(path).is_file() or sha256_file(path) != sha256:
        raise StoreError(f"{path}: missing or damaged; materialize the asset {name} again")
    return Weights(Path(path), sha256)


def still_there(memo: Memo) -> bool:
    """Whether the weights of the last materialization exist and are undamaged."""
    path, sha256 = memo.recall("weights"), memo.recall("sha256")
    return bool(path) and Path(path).is_file() and sha256_file(path) == sha256
