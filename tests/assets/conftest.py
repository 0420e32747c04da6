"""A home of one's own, with MLflow's store ready in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.resources import prepare_tracking, safe_environment

safe_environment()


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database, migrated once: it takes seconds."""
    import warnings

    home = tmp_path_factory.mktemp("migrated")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare_tracking(home)
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, migrated_store: Path) -> Path:
    """An empty home with a store."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copyfile(migrated_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
