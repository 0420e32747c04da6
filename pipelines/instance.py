"""The home folder and Dagster's instance in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from assets.resources.tracking import prepare_tracking, safe_environment
from editorbot_core.base.files import write_bytes

_TEMPLATE = Path(__file__).parent / "dagster.yaml"


def prepare_home(home: Path) -> None:
    """Create the folders, Dagster's settings and MLflow's store, whatever of them is missing."""
    safe_environment()
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    settings = dagster_home / "dagster.yaml"
    if not settings.is_file():
        write_bytes(settings, _TEMPLATE.read_bytes())
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        prepare_tracking(home)


@contextmanager
def dagster_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance whose runs the UI shows: the one in DAGSTER_HOME, else in the home."""
    folder = os.environ.get("DAGSTER_HOME") or str(home / "dagster")
    previous = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = folder
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    finally:
        if previous is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = previous
