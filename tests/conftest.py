"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# Chosen before numerical libraries start their threads; tests run beside each other on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own EDITORBOT_HOME, and none of the user's addresses."""
    monkeypatch.setenv("EDITORBOT_HOME", str(tmp_path / "home"))
    for name in (
        "MLFLOW_TRACKING_URI",
        "EDITORBOT_DATABASE_URL",
        "EDITORBOT_STORAGE",
        "EDITORBOT_SONGS",
        "DAGSTER_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
