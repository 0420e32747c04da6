"""A home of one's own, with MLflow's store ready in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.resources.tracking import safe_environment

safe_environment()


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database, migrated once, without an experiment: it takes seconds."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


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
