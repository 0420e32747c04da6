"""What a stage has to tell about itself, kept in a folder until MLflow has it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from assets.resources.jsonl import append_line
from assets.resources.tables import TableStore
from editorbot_core.base.files import write_bytes, write_json


class Delivered(NamedTuple):
    """Where a stage went.

    Attributes:
        run_id: MLflow run.
        url: Its page in the MLflow UI.
        version: Registered version of the stage's model, or "".
    """

    run_id: str
    url: str
    version: str


@dataclass(frozen=True)
class ModelRecord:
    """A model to be registered.

    Attributes:
        registered_name: Model in the registry.
        kind: `policy` or `reward`.
        weights: File below the stage's artifacts.
        sha256: Digest of that file.
        alias: Alias the new version gets, or "".
        tags: Digests of what it was trained on, gates, versions.
    """

    registered_name: str
    kind: str
    weights: str
    sha256: str
    alias: str
    tags: Mapping[str, str]


@dataclass
class Stage:
    """What one stage has to tell, kept in a folder until MLflow has it."""

    folder: Path
    params: Mapping[str, Any]
    tags: dict[str, str]
    started_ms: int
    status: str = "RUNNING"
    ended_ms: int = 0
    model: ModelRecord | None = None
    delivered: Delivered | None = None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at a step; a value that is not finite is left out."""
        finite = {name: float(value) for name, value in metrics.items() if abs(float(value)) < float("inf")}
        append_line(
            self.folder / "metrics.jsonl", {"step": int(step), "time_ms": int(time.time() * 1000), "metrics": finite}
        )

    def plot(self, name: str, png: bytes) -> None:
        """Keep a plot."""
        write_bytes(self.folder / "artifacts" / "plots" / f"{name}.png", png)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Keep a small table as CSV."""
        write_bytes(self.folder / "artifacts" / "tables" / f"{name}.csv", frame.to_csv(index=False).encode())

    def dataset(self, name: str, frame: pd.DataFrame, version: str, *, context: str = "training") -> None:
        """Name the data that the stage used; only columns of plain values are kept."""
        plain = [name for name in frame.columns if all(isinstance(cell, str | int | float) for cell in frame[name])]
        TableStore(str(self.folder / "datasets")).write(name, frame[plain])
        write_json(self.folder / "datasets" / f"{name}.json", {"version": version, "context": context})

    def weights(
        self,
        path: Path,
        sha256: str,
        *,
        kind: str,
        registered_name: str,
        tags: Mapping[str, str],
        alias: str = "",
    ) -> None:
        """Keep the weights, to be registered as a version of `registered_name`."""
        target = self.folder / "artifacts" / "weights" / path.name
        write_bytes(target, path.read_bytes())
        write_bytes(target.with_name(target.name + ".sha256"), f"{sha256}  {path.name}\n".encode())
        self.model = ModelRecord(registered_name, kind, f"weights/{path.name}", sha256, alias, dict(tags))

    def save(self) -> None:
        """Write what is known so far."""
        document = {
            "params": dict(self.params),
            "tags": self.tags,
            "started_ms": self.started_ms,
            "ended_ms": self.ended_ms,
            "status": self.status,
            "model": asdict(self.model) if self.model else None,
        }
        write_json(self.folder / "stage.json", document)
