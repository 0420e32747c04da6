"""What Dagster is told: names, groups, checks, jobs, settings, and how quickly it loads."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from pipelines.definitions import defs
from pipelines.instance import dagster_instance

ROOT = Path(__file__).resolve().parents[2]

GROUPS = {
    "song_library": "ingestion",
    "beat_features": "features",
    "reference_policy": "models",
    "edit_pairs": "preferences",
    "preferences": "preferences",
    "reward_model": "models",
    "ppo_policy": "models",
    "dpo_policy": "models",
    "iterated_policy": "models",
    "policy_evaluation": "evaluation",
    "champion": "evaluation",
    "edited_songs": "evaluation",
}
_LOAD = """
import sys
import pipelines.definitions
print(*sorted({"torch", "librosa", "mlflow", "matplotlib", "scipy", "numba", "sqlalchemy"} & set(sys.modules)))
"""


def _assets(job: str) -> set[str]:
    return {key.path[-1] for key in defs.resolve_job_def(job).asset_layer.selected_asset_keys}


def test_loading_is_light_and_without_a_warning() -> None:
    command = [sys.executable, "-W", "error", "-c", _LOAD]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == []


def test_every_asset_has_its_name_group_and_description() -> None:
    specs = {spec.key.path[-1]: spec for spec in defs.resolve_all_asset_specs()}
    assert {name: spec.group_name for name, spec in specs.items()} == GROUPS
    assert all(spec.description for spec in specs.values())


def test_each_stage_comes_after_what_it_needs() -> None:
    graph = defs.resolve_asset_graph()
    order = [key.path[-1] for level in graph.toposorted_asset_keys_by_level for key in sorted(level)]
    needed = ["song_library", "beat_features", "reference_policy", "edit_pairs", "preferences", "reward_model"]
    for chain in ([*needed, "ppo_policy", "policy_evaluation", "champion", "edited_songs"], [*needed, "dpo_policy"]):
        assert [name for name in order if name in chain] == chain


def test_checks_stand_between_the_stages() -> None:
    graph = defs.resolve_asset_graph()
    blocking = {key.asset_key.path[-1] for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == set(GROUPS) - {"edit_pairs", "iterated_policy", "policy_evaluation", "edited_songs"}
    advisory = {key.asset_key.path[-1] for key in graph.asset_check_keys} - blocking
    assert advisory == {"policy_evaluation"}


def test_the_jobs_hold_what_their_names_say() -> None:
    assert _assets("main_job") == set(GROUPS) - {"iterated_policy"}
    assert _assets("rounds_job") == {"song_library", "beat_features", "iterated_policy"}
    assert _assets("ingest_job") == {"song_library", "beat_features"}
    assert _assets("retrain_job") == {
        *("preferences", "reward_model", "ppo_policy", "dpo_policy", "policy_evaluation", "champion", "edited_songs")
    }
    assert defs.resolve_job_def("main_job").executor_def.name == "in_process"


def test_nothing_starts_by_itself() -> None:
    repository = defs.get_repository_def()
    assert {schedule.default_status for schedule in repository.schedule_defs} == {dg.DefaultScheduleStatus.STOPPED}
    assert {sensor.default_status for sensor in repository.sensor_defs} == {dg.DefaultSensorStatus.STOPPED}


def test_the_home_has_quiet_safe_settings(tmp_path: Path) -> None:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_bytes((ROOT / "pipelines" / "dagster.yaml").read_bytes())
    with dagster_instance(tmp_path) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.get_concurrency_config().run_queue_config is not None
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 1
        assert Path(instance.root_directory) == folder


def test_the_configuration_folder_of_mlflow_holds_no_python() -> None:
    """With a module in it, `import mlflow` would find the folder instead of the package."""
    assert list((ROOT / "mlflow").rglob("*.py")) == []
    assert list((ROOT / "mlflow").rglob("__pycache__")) == []


def test_entry_points_call_installed_commands_with_flags_they_know() -> None:
    project = yaml.safe_load((ROOT / "mlflow" / "MLproject").read_text(encoding="utf-8"))
    assert set(project["entry_points"]) == {"main", "pipeline", "train", "evaluate"}
    for name, entry in project["entry_points"].items():
        command = shlex.split(entry["command"])
        used = set(re.findall(r"{(\w+)}", entry["command"]))
        assert used == set(entry.get("parameters", {})), name
        flags = [word for word in command if word.startswith("--")]
        start = ["-m", "pipelines.cli", "run"] if command[0] == "editorbot" else command[1:3]
        answer = subprocess.run(
            [sys.executable, *start, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert answer.returncode == 0, answer.stderr
        assert all(flag in answer.stdout for flag in flags), (name, flags)


def test_the_server_file_has_the_settings_of_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from assets.resources.tracking import safe_environment

    lines = (ROOT / "mlflow" / "server.env").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    monkeypatch.setattr(os, "environ", dict.fromkeys([*os.environ, *settings], "the user's own"))
    safe_environment()
    # What is forced upon every process, whatever its user set.
    forced = {name: value for name, value in os.environ.items() if value != "the user's own"}
    assert forced
    assert settings.items() >= forced.items()


_LOADERS = {
    "dagster": ["dagster", "definitions", "validate", "-w", "workspace.yaml"],
    "dg": ["dagster_dg_cli.cli", "check", "defs"],
}


@pytest.mark.slow
@pytest.mark.parametrize("loader", sorted(_LOADERS))
def test_dagster_loads_the_workspace(loader: str, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    answer = subprocess.run(
        [sys.executable, "-m", *_LOADERS[loader]],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": path, "HOME": str(tmp_path), "EDITORBOT_HOME": str(tmp_path)},
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
