"""MLflow: what a stage tells arrives once, whole, and never stops training."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import torch

from assets.resources.stages import Stage
from assets.resources.tracking import (
    Tracking,
    deliver,
    download_registered_weights,
    mlflow_server_command,
    prepare_tracking,
    safe_environment,
    tracking_uri,
)
from editorbot_core.base.errors import FormatError, ParameterError, StoreError
from editorbot_core.base.files import write_bytes
from editorbot_core.base.tensors import load_tensors, save_tensors


def _client(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri(home))


def _runs(home: Path) -> list[Any]:
    return _client(home).search_runs([prepare_tracking(home)])


def _train(home: Path, body: Callable[[Stage], None], instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """One asset with a stage around `body`."""

    @dg.asset
    def trained(context: dg.AssetExecutionContext, tracking: Tracking) -> dg.MaterializeResult:
        with tracking.stage(context, inputs="abc123", params={"ppo.n_steps": 7}) as stage:
            body(stage)
        return dg.MaterializeResult(metadata=tracking.metadata(stage))

    return dg.materialize(
        [trained], instance=instance, resources={"tracking": Tracking(folder=str(home))}, raise_on_error=False
    )


def _weights(stage: Stage, folder: Path, *, name: str = "p", value: float = 1.0, alias: str = "") -> str:
    path = folder / f"{name}.pt"
    sha256 = save_tensors(path, {"w": torch.tensor([value])})
    stage.weights(
        path, sha256, kind="policy", registered_name="editorbot-policy", tags={"reward_model": "r7"}, alias=alias
    )
    return sha256


def test_a_stage_arrives_with_everything_it_told(home: Path, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    def body(stage: Stage) -> None:
        for step in range(1500):
            stage.log({"ppo/kl": 0.5 * step, "ppo/bad": float("nan")}, step)
        stage.plot("curve", b"png")
        stage.table("summary", pd.DataFrame({"a": [1]}))
        stage.dataset("preferences", pd.DataFrame({"label": [1.0], "actions": [[1, 2]]}), "v1" * 10)
        _weights(stage, tmp_path, alias="challenger")

    result = _train(home, body, instance)
    assert result.success
    (run,) = _runs(home)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"ppo.n_steps": "7"}
    assert run.data.metrics == {"ppo/kl": 749.5}
    assert run.data.tags["dagster.run_id"] == result.run_id
    assert run.data.tags["dagster.asset_key"] == "trained"
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["preferences"]
    assert len(_client(home).get_metric_history(run.info.run_id, "ppo/kl")) == 1500
    found = {
        item.path for folder in ("plots", "weights") for item in _client(home).list_artifacts(run.info.run_id, folder)
    }
    assert found == {"plots/curve.png", "weights/p.pt", "weights/p.pt.sha256"}
    version = _client(home).get_model_version_by_alias("editorbot-policy", "challenger")
    assert (version.tags["reward_model"], version.run_id) == ("r7", run.info.run_id)
    (made,) = result.asset_materializations_for_node("trained")
    assert run.info.run_id in made.metadata["mlflow"].value
    assert made.metadata["model_version"].value == str(version.version) == "1"
    assert not list((home / "spool").iterdir())


def test_delivering_twice_changes_nothing(
    home: Path, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(stage: Stage) -> None:
        stage.log({"loss": 1.0}, 0)
        _weights(stage, tmp_path)

    monkeypatch.setattr("assets.resources.tracking.shutil.rmtree", lambda *_, **__: None)
    _train(home, body, instance)
    (folder,) = (home / "spool").iterdir()
    first = deliver(folder, home)
    assert deliver(folder, home) == first
    assert len(_runs(home)) == 1
    assert len(_client(home).search_model_versions("name = 'editorbot-policy'")) == 1
    assert len(_client(home).get_metric_history(first.run_id, "loss")) == 1


def test_training_ends_well_without_mlflow_and_the_next_run_delivers(
    home: Path, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    result = _train(home, lambda stage: stage.log({"loss": 1.0}, 0), instance)
    assert result.success
    assert time.monotonic() - started < 60
    (made,) = result.asset_materializations_for_node("trained")
    assert "not delivered yet" in made.metadata["mlflow"].value
    assert Tracking(folder=str(home)).resend()[0].startswith("stage trained-abc123-")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert Tracking(folder=str(home)).resend() == []
    (run,) = _runs(home)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})


def test_a_stage_that_raises_is_marked_as_failed(home: Path, instance: dg.DagsterInstance) -> None:
    def body(stage: Stage) -> None:
        stage.log({"loss": 1.0}, 0)
        raise RuntimeError("out of luck")

    assert not _train(home, body, instance).success
    (run,) = _runs(home)
    assert (run.info.status, run.data.metrics) == ("FAILED", {"loss": 1.0})


def test_a_stage_whose_process_is_gone_is_delivered_as_killed(home: Path, instance: dg.DagsterInstance) -> None:
    stage = Stage(
        folder=home / "spool" / "ppo_policy-abc-1",
        params={},
        tags={"dagster.run_id": "gone", "dagster.asset_key": "ppo_policy"},
        started_ms=1,
    )
    stage.save()
    stage.log({"loss": 2.0}, 3)
    assert Tracking(folder=str(home)).resend() == []
    (run,) = _runs(home)
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 2.0})


def test_registered_weights_come_back_and_damaged_ones_do_not(
    home: Path, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITORBOT_HOME", str(home))
    _train(home, lambda stage: _weights(stage, tmp_path, alias="champion") and None, instance)
    path = download_registered_weights("models:/editorbot-policy@champion")
    assert path is not None
    assert torch.equal(load_tensors(path)["w"], torch.tensor([1.0]))
    assert download_registered_weights("models:/editorbot-policy/1") == path
    assert download_registered_weights("models:/editorbot-policy/2") is None
    assert download_registered_weights("models:/editorbot-policy@nobody") is None
    assert download_registered_weights("models:/another@champion") is None
    path.unlink()
    (artifact,) = (home / "mlflow-artifacts").rglob("p.pt")
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    write_bytes(artifact, bytes(content))
    with pytest.raises(FormatError, match="damaged"):
        download_registered_weights("models:/editorbot-policy@champion")


def test_nothing_is_created_for_a_registry_that_does_not_exist(tmp_path: Path) -> None:
    assert download_registered_weights("models:/editorbot-policy@champion") is None
    assert not (tmp_path / "home" / "mlflow.db").exists()


@pytest.mark.parametrize(
    "address", ["editorbot-policy@champion", "models:/", "models:/a", "models:/a/b/c", "runs:/a@b"]
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ParameterError, match="models:/NAME@ALIAS"):
        download_registered_weights(address)


@pytest.mark.slow
def test_several_processes_make_one_store(tmp_path: Path) -> None:
    script = "import sys, pathlib, assets.resources.tracking as r; print(r.prepare_tracking(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1] != ""


def test_every_process_has_the_safe_settings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    import os

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    safe_environment()
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    command = mlflow_server_command(home, host="127.0.0.1", port=5000)
    assert command[command.index("--allowed-hosts") + 1] == "localhost:5000,127.0.0.1:5000"


@pytest.mark.slow
def test_a_reward_model_is_registered_with_a_function_to_serve(
    home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    from editorbot_core.rewards.config import RewardConfig
    from editorbot_core.rewards.learned import RewardEnsemble

    torch.manual_seed(0)
    config = RewardConfig(hidden=16, n_layers=1, n_heads=2, n_convs=1, n_members=1, unit_channels=4, join_channels=4)
    ensemble = RewardEnsemble(config).eval()
    sha256 = ensemble.save(tmp_path / "reward.pt")

    def body(stage: Stage) -> None:
        stage.weights(
            tmp_path / "reward.pt", sha256, kind="reward", registered_name="editorbot-reward", tags={"a": "b"}
        )

    result = _train(home, body, instance)
    (made,) = result.asset_materializations_for_node("trained")
    assert made.metadata["model_version"].value == "1", made.metadata
    version = _client(home).get_model_version("editorbot-reward", "1")
    assert version.tags["sha256"] == sha256
    archives = list((home / "mlflow-artifacts").rglob("model.pt2"))
    assert len(archives) == 1
    from mlflow.pytorch import load_model

    from editorbot_core.rewards.export import reward_export

    export = reward_export(tmp_path / "reward.pt")
    served = load_model("models:/editorbot-reward/1")
    torch.testing.assert_close(served(*export.examples.values()), export.output)


@pytest.mark.slow
def test_a_server_that_hangs_does_not_hold_up_training(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    accepting = threading.Thread(target=lambda: [listener.accept() for _ in range(20)], daemon=True)
    accepting.start()
    started = time.monotonic()
    assert _train(home, lambda stage: stage.log({"loss": 1.0}, 0), instance).success
    assert time.monotonic() - started < 60
    with pytest.raises(StoreError, match="did not take part"):
        prepare_tracking(home)
    listener.close()
