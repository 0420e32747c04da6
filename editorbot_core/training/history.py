"""What training writes down: a history of lists of equal length, and a text log with a line per update."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editorbot_core.base.errors import FormatError
from editorbot_core.base.files import write_json

# These stand in every row; what one algorithm does not have is None there.
ALWAYS = (
    "episode",
    "step",
    "total_reward",
    "learned_reward",
    "dense_reward",
    "policy_loss",
    "value_loss",
    "kl",
    "entropy",
)


class TrainingHistory:
    """Rows of metrics, kept as columns of equal length."""

    def __init__(self, columns: Mapping[str, list[float | int | None]] | None = None) -> None:
        self._columns: dict[str, list[float | int | None]] = {name: [] for name in ALWAYS}
        for name, values in (columns or {}).items():
            self._columns[name] = list(values)
        lengths = {len(values) for values in self._columns.values()}
        if len(lengths) > 1:
            raise FormatError(f"the columns of a training history must be equally long; got lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self._columns["step"])

    def append(self, row: Mapping[str, float | int]) -> None:
        """Add a row; a metric that is new or absent is None elsewhere."""
        n = len(self)
        for name in row:
            self._columns.setdefault(name, [None] * n)
        for name, values in self._columns.items():
            values.append(row.get(name))

    def columns(self) -> dict[str, list[float | int | None]]:
        """A list per metric, all of one length."""
        return {name: list(values) for name, values in self._columns.items()}

    def save(self, path: Path | str) -> None:
        """Write the columns as JSON, in one step."""
        write_json(path, self.columns(), indent=None)


def open_log(path: Path | None, *, level: str) -> logging.Logger:
    """The training log at `path` (appended to) and on standard error, from `level` upwards; silent without a path.

    Raises:
        FormatError: If the file cannot be written.
    """
    logger = logging.getLogger(f"editorbot.training.{path.resolve() if path else 'silent'}")
    close_log(logger)
    logger.setLevel(getattr(logging, level))
    logger.propagate = False
    if path is None:
        logger.addHandler(logging.NullHandler())
        return logger
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file_handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: the training log cannot be written: {error}") from error
    for handler in (file_handler, logging.StreamHandler()):
        handler.setFormatter(form)
        logger.addHandler(handler)
    return logger


def close_log(logger: logging.Logger) -> None:
    """Close the files of `logger`."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def line(metrics: Mapping[str, Any], names: tuple[str, ...] = ALWAYS) -> str:
    """One line of the log: `name value` of the metrics that are there."""
    parts = []
    for name in names:
        value = metrics.get(name)
        if value is not None:
            parts.append(f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}")
    return "  ".join(parts)
