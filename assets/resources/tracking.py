"""MLflow, and the only module that knows it.

Tracking is never on the training path. A stage writes what it has to tell into a folder of its own: parameters,
metrics line by line, plots, data sets, weights. When the stage ends the folder is delivered to MLflow in a few
batches and removed. If MLflow does not answer, training has finished all the same: the folder waits and is delivered
at the start of the next run. Delivering twice changes nothing: a run is found again by the folder's name, a model
version by the digest of its weights.

Nothing is ever unpickled: what is loaded back are the tensors of our own `.pt` files, after checking their digest.
"""

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import pandas as pd
from filelock import FileLock
from pydantic import Field

from assets.resources.jsonl import read_lines
from assets.resources.liveness import is_alive
from assets.resources.registry import registry
from assets.resources.stages import Delivered, ModelRecord, Stage
from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError, StoreError
from editorbot_core.base.files import read_json, sha256_file, write_bytes, write_json
from editorbot_core.base.home import home_folder

if TYPE_CHECKING:
    import torch
    from mlflow import MlflowClient

_FORCED_ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_DEFAULT_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_STAGE_TAG = "editorbot.stage"
_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100


def safe_environment() -> None:
    """Settings that every process of EditorBot has before it imports MLflow."""
    os.environ.update(_FORCED_ENVIRONMENT)
    for name, value in _DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def tracking_uri(home: Path) -> str:
    """Address of MLflow: MLFLOW_TRACKING_URI, else a SQLite file in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


def mlflow_server_command(home: Path, *, host: str, port: int) -> tuple[str, ...]:
    """How the MLflow UI is started on the local store; only this machine's names are answered to."""
    safe_environment()
    return (
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"),
        *("--artifacts-destination", str(home / "mlflow-artifacts")),
        *("--host", host, "--port", str(port), "--workers", "1"),
        *("--allowed-hosts", f"localhost:{port},127.0.0.1:{port}"),
    )


def _client(uri: str) -> "MlflowClient":
    safe_environment()
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri)


def prepare_tracking(home: Path) -> str:
    """Create and migrate the store and the experiment once, under a lock; return the experiment's id.

    Raises:
        StoreError: If MLflow does not answer.
    """
    uri = tracking_uri(home)
    name = registry().experiment
    home.joinpath("state").mkdir(parents=True, exist_ok=True)
    with FileLock(home / "state" / "mlflow.lock", timeout=120), _mlflow_errors(uri):
        client = _client(uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        # A server chooses its own place for artifacts; a bare database would put them into the current folder.
        location = str(home / "mlflow-artifacts") if "://" in uri and not uri.startswith("http") else None
        return client.create_experiment(name, artifact_location=location)


@contextmanager
def _mlflow_errors(uri: str) -> Iterator[None]:
    """MLflow's errors as `StoreError`; its own warnings, about itself and its dependencies, are not shown."""
    import requests
    import sqlalchemy.exc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.exceptions import MlflowException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"MLflow at {uri.split('@')[-1]} did not take part: {reason}") from error


def _find_run(client: "MlflowClient", experiment_id: str, stage: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{_STAGE_TAG}` = '{stage}'", max_results=1)
    return found[0].info.run_id if found else None


def _run_url(uri: str, experiment_id: str, run_id: str) -> str:
    base = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}"


def _log_traced(run_id: str, weights: Path) -> tuple[str, str]:
    """Log the traced reward model; returns its address and id."""
    import mlflow
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from editorbot_core.rewards.export import reward_export

    def spec(tensor: "torch.Tensor", name: str) -> TensorSpec:
        n_free = min(tensor.ndim, 2)
        return TensorSpec(tensor.numpy().dtype, (*[-1] * n_free, *tensor.shape[n_free:]), name=name)

    export = reward_export(weights)
    signature = ModelSignature(
        inputs=Schema([spec(example, name) for name, example in export.examples.items()]),
        outputs=Schema([spec(export.output, "score")]),
    )
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pytorch.log_model(
            export.module,
            name="reward",
            signature=signature,
            input_example=[example.numpy() for example in export.examples.values()],
            pip_requirements=["torch"],
        )
    return logged.model_uri, logged.model_id


def _register(client: "MlflowClient", run_id: str, folder: Path, model: ModelRecord) -> str:
    """The version that holds these weights; made if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.search_model_versions(f"name = '{model.registered_name}' and tags.sha256 = '{model.sha256}'")
    if found:
        return str(found[0].version)
    source, model_id = f"runs:/{run_id}/weights", None
    if model.kind == "reward":
        try:
            source, model_id = _log_traced(run_id, folder / "artifacts" / model.weights)
        except MlflowException:
            raise
        except Exception as error:  # the tracer raises many unrelated types
            raise StoreError(f"the reward model could not be traced: {error}") from error
    try:
        client.get_registered_model(model.registered_name)
    except MlflowException:
        client.create_registered_model(model.registered_name)
    version = client.create_model_version(
        model.registered_name,
        source=source,
        run_id=run_id,
        model_id=model_id,
        tags={**model.tags, "sha256": model.sha256, "weights": model.weights},
    )
    return str(version.version)


def deliver(folder: Path, home: Path) -> Delivered:
    """Send a stage's folder to MLflow and remove it; sending it again changes nothing.

    Raises:
        StoreError: If MLflow does not answer; the folder stays.
    """
    import mlflow
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import Metric, Param, RunTag

    uri = tracking_uri(home)
    experiment_id = prepare_tracking(home)
    record = read_json(folder / "stage.json")
    model = ModelRecord(**record["model"]) if record["model"] else None
    with _mlflow_errors(uri):
        client = _client(uri)
        run_id = _find_run(client, experiment_id, folder.name)
        if run_id is None:
            tags = {**record["tags"], _STAGE_TAG: folder.name}
            name = record["tags"]["dagster.asset_key"]
            created = client.create_run(experiment_id, start_time=record["started_ms"], tags=tags, run_name=name)
            run_id = created.info.run_id
        params = [Param(name, str(value)[:500]) for name, value in sorted(record["params"].items())]
        for i in range(0, len(params), _PARAMS_PER_BATCH):
            client.log_batch(run_id, params=params[i : i + _PARAMS_PER_BATCH])
        metrics = [
            Metric(name, value, line["time_ms"], line["step"])
            for line in read_lines(folder / "metrics.jsonl")
            for name, value in line["metrics"].items()
        ]
        for i in range(0, len(metrics), _METRICS_PER_BATCH):
            client.log_batch(run_id, metrics=metrics[i : i + _METRICS_PER_BATCH])
        if (folder / "artifacts").is_dir():
            client.log_artifacts(run_id, str(folder / "artifacts"))
        for description in sorted((folder / "datasets").glob("*.json")):
            about = read_json(description)
            frame = pd.read_parquet(description.with_suffix(".parquet"))
            data = from_pandas(frame, name=description.stem, digest=about["version"][:32])
            with mlflow.start_run(run_id=run_id):
                mlflow.log_input(data, context=about["context"])
        version = _register(client, run_id, folder, model) if model else ""
        if model and model.alias:
            client.set_registered_model_alias(model.registered_name, model.alias, version)
        client.log_batch(run_id, tags=[RunTag("model_version", version)] if version else [])
        client.set_terminated(run_id, record["status"], record["ended_ms"] or int(time.time() * 1000))
    shutil.rmtree(folder)
    return Delivered(run_id, _run_url(uri, experiment_id, run_id), version)


class RegisteredVersion(NamedTuple):
    """A version in the registry.

    Attributes:
        version: Its number.
        sha256: Digest of its weights.
        tags: What it carries.
        run_id: MLflow run that made it.
    """

    version: str
    sha256: str
    tags: Mapping[str, str]
    run_id: str


class Tracking(dg.ConfigurableResource):
    """Tells MLflow about stages, and reads and moves aliases."""

    folder: str = Field(default="", description="Local results; empty: EDITORBOT_HOME, else .editorbot")

    @property
    def home(self) -> Path:
        """The folder of local results."""
        return Path(self.folder).expanduser().resolve() if self.folder else home_folder()

    @property
    def spool(self) -> Path:
        """Where stages wait."""
        return self.home / "spool"

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Deliver what earlier runs left waiting."""
        if context.run is None:
            return
        for line in self.resend():
            if context.log:
                context.log.warning(line)

    def resend(self) -> list[str]:
        """Deliver the stages that wait; return what could not be delivered, one line each.

        A stage whose process is gone is delivered as KILLED; a stage that still runs is left alone.
        """
        problems = []
        for folder in sorted(path.parent for path in self.spool.glob("*/stage.json")):
            try:
                record = read_json(folder / "stage.json")
                if record["status"] == "RUNNING":
                    if is_alive(self.home, record["tags"]["dagster.run_id"]):
                        continue
                    record.update(status="KILLED", ended_ms=int(time.time() * 1000), model=None)
                    write_json(folder / "stage.json", record)
                deliver(folder, self.home)
            except EditorBotError as error:
                problems.append(f"stage {folder.name} still waits in {self.spool}: {error}")
        return problems

    @contextmanager
    def stage(self, context: dg.AssetExecutionContext, *, inputs: str, params: Mapping[str, Any]) -> Iterator[Stage]:
        """The record of a stage, delivered when the block ends."""
        asset = context.asset_key.path[-1]
        stage = Stage(
            folder=self.spool / f"{asset}-{inputs[:12]}-{context.run.run_id[:8]}",
            params=params,
            tags={
                "dagster.run_id": context.run.run_id,
                "dagster.asset_key": asset,
                "dagster.url": f"http://127.0.0.1:3000/runs/{context.run.run_id}",
                "editorbot.inputs": inputs,
            },
            started_ms=int(time.time() * 1000),
        )
        shutil.rmtree(stage.folder, ignore_errors=True)
        stage.save()
        try:
            yield stage
        except BaseException as error:
            stage.status = "FAILED" if isinstance(error, Exception) else "KILLED"
            stage.model = None
            raise
        else:
            stage.status = "FINISHED"
        finally:
            stage.ended_ms = int(time.time() * 1000)
            stage.save()
            if stage.status != "KILLED":
                try:
                    stage.delivered = deliver(stage.folder, self.home)
                except StoreError as error:
                    context.log.warning(f"{error}; the stage waits in {stage.folder}")

    def metadata(self, stage: Stage) -> dict[str, Any]:
        """Where the stage went, for the materialization."""
        if stage.delivered is None:
            return {"mlflow": "not delivered yet; it is sent at the start of the next run"}
        known: dict[str, Any] = {"mlflow": dg.MetadataValue.url(stage.delivered.url)}
        if stage.delivered.version:
            known["model_version"] = stage.delivered.version
        return known

    def find_version(self, name: str, sha256: str) -> RegisteredVersion | None:
        """The version of `name` that holds the weights of this digest."""
        prepare_tracking(self.home)
        uri = tracking_uri(self.home)
        with _mlflow_errors(uri):
            found = _client(uri).search_model_versions(f"name = '{name}' and tags.sha256 = '{sha256}'")
            return _version(found[0]) if found else None

    def aliased(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version of `name` that has the alias `alias`."""
        prepare_tracking(self.home)
        return _aliased(name, alias, tracking_uri(self.home))

    def set_alias(self, name: str, alias: str, version: str, tags: Mapping[str, str] | None = None) -> None:
        """Give `alias` to a version, after writing `tags` on it."""
        uri = tracking_uri(self.home)
        with _mlflow_errors(uri):
            client = _client(uri)
            for tag, value in (tags or {}).items():
                client.set_model_version_tag(name, version, tag, value)
            client.set_registered_model_alias(name, alias, version)

    def fetch(self, name: str, version: RegisteredVersion) -> Path:
        """The weights of a version as a local file whose digest was checked."""
        return _fetch(self.home, tracking_uri(self.home), name, version)


def _version(found: Any) -> RegisteredVersion:
    tags = dict(found.tags)
    return RegisteredVersion(str(found.version), tags.get("sha256", ""), tags, found.run_id or "")


def _aliased(name: str, alias: str, uri: str) -> RegisteredVersion | None:
    from mlflow.exceptions import MlflowException

    with _mlflow_errors(uri):
        client = _client(uri)
        try:
            return _version(client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def _fetch(home: Path, uri: str, name: str, version: RegisteredVersion) -> Path:
    target = home / "cache" / "models" / f"{name}-{version.version}-{version.sha256[:12]}.pt"
    if not version.sha256:
        raise FormatError(f"{name} version {version.version} carries no digest of its weights; it is not loaded")
    if not (target.is_file() and sha256_file(target) == version.sha256):
        with _mlflow_errors(uri):
            found = Path(_client(uri).download_artifacts(version.run_id, version.tags["weights"]))
            write_bytes(target, found.read_bytes())
        if sha256_file(target) != version.sha256:
            target.unlink()
            raise FormatError(f"{name} version {version.version}: the weights are damaged: their digest is another")
        write_bytes(target.with_name(target.name + ".sha256"), f"{version.sha256}  {target.name}\n".encode())
    return target


def download_registered_weights(model_uri: str) -> Path | None:
    """The weights behind `models:/<name>@<alias>` or `models:/<name>/<version>` as a local file.

    Returns:
        The file, or None if the registry holds no such version.

    Raises:
        ParameterError: If the address is of another form.
        StoreError: If the registry does not answer.
        FormatError: If the weights are damaged.
    """
    prefix, _, rest = model_uri.partition("models:/")
    name, alias = rest.rsplit("@", 1) if "@" in rest else (rest, "")
    number = ""
    if not alias and "/" in rest:
        name, number = rest.rsplit("/", 1)
    if prefix or not name or "/" in name or not (alias or number.isdigit()):
        raise ParameterError(f"{model_uri!r} is no registry address; write models:/NAME@ALIAS or models:/NAME/NUMBER")
    home = home_folder()
    uri = tracking_uri(home)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    prepare_tracking(home)
    if alias:
        version = _aliased(name, alias, uri)
    else:
        with _mlflow_errors(uri):
            found = _client(uri).search_model_versions(f"name = '{name}'")
            version = next((_version(v) for v in found if str(v.version) == number), None)
    return _fetch(home, uri, name, version) if version else None
