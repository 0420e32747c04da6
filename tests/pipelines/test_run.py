"""The whole pipeline on a few demo songs: from audio to a champion and edited songs, gates, reuse, recovery."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import soundfile

from assets.checks import champion_is_in_the_registry
from assets.resources.home import Home
from assets.resources.jsonl import read_lines
from assets.resources.ledger import ledger_path
from assets.resources.memo import latest_materialization
from assets.resources.registry import registry
from assets.resources.tracking import Tracking
from editorbot_core.base.errors import GateError, ParameterError
from editorbot_core.base.home import champion_path, champion_reward_path
from editorbot_core.editing.interchange import read_edl
from editorbot_core.policy.files import load_policy
from editorbot_core.preferences.pair_files import pairs_path, read_pairs
from editorbot_core.preferences.store import PreferenceStore
from editorbot_core.songs.demo.songs import compose_demo_songs
from pipelines import cli
from pipelines.definitions import build_definitions
from pipelines.instance import dagster_instance
from pipelines.run import PipelineResult, report, run_main_job, run_pipeline

pytestmark = pytest.mark.slow

N_SONGS = 6
SMALL = {
    "n_pairs": "60",
    "total_steps": "4000",
    "reward.hidden": "32",
    "reward.n_layers": "1",
    "reward.n_members": "1",
    "reward.epochs": "4",
    "policy.width": "32",
    "policy.n_layers": "1",
    "warm_start.n_steps": "30",
    "warm_start.edits_per_song": "8",
    "ppo.n_steps": "2000",
    "ppo.samples_per_song": "4",
    "ppo.whitening_edits": "16",
    "ppo.evaluate_every": "2",
}


def _gates(**changes: Any) -> Any:
    """The repository's registry settings with other gates."""
    settings = registry()
    return lambda: replace(settings, gates=replace(settings.gates, **changes))


# Networks this small learn too little for the real gates.
LENIENT = {"min_pairs": 20, "min_reward_accuracy": 0.0, "max_kl_ref_unit": 100.0, "max_target_abs_err": 1.0}


class Runs:
    """A home in which the main job ran twice: stopped by a gate first, to its end then."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.home, self.songs = folder / "home", folder / "songs"
        compose_demo_songs(self.songs, n_songs=N_SONGS, seed=0)
        patch.setenv("EDITORBOT_HOME", str(self.home))
        patch.setattr("assets.checks.registry", _gates(**{**LENIENT, "min_reward_accuracy": 1.01}))
        with pytest.raises(GateError) as stopped:
            self.run()
        self.stopped = str(stopped.value)
        with dagster_instance(self.home) as instance:
            self.made_when_stopped = {
                name for name in ("reward_model", "ppo_policy", "champion") if latest_materialization(instance, name)
            }
        patch.setattr("assets.checks.registry", _gates(**LENIENT))
        self.result = self.run()

    def run(self) -> PipelineResult:
        return run_pipeline(self.songs, home=self.home, settings=SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with pytest.MonkeyPatch.context() as patch:
        # MLflow itself leaves the address it was last given in the environment.
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "EDITORBOT_DATABASE_URL", "EDITORBOT_STORAGE"):
            patch.delenv(name, raising=False)
        yield Runs(tmp_path_factory.mktemp("pipeline"), patch)


@pytest.fixture
def client(runs: Runs) -> Any:
    from mlflow import MlflowClient

    from assets.resources.tracking import tracking_uri

    return MlflowClient(tracking_uri(runs.home))


def test_a_gate_stops_the_next_stage_and_says_why(runs: Runs) -> None:
    assert "reward_model_is_better_than_chance" in runs.stopped
    assert "101% needed" in runs.stopped
    assert runs.made_when_stopped == {"reward_model"}


def test_what_was_made_before_the_gate_is_not_made_again(runs: Runs) -> None:
    assert set(runs.result.reused) == {
        *("song_library", "beat_features", "reference_policy", "edit_pairs", "preferences", "reward_model")
    }


def test_every_stage_ran_and_every_check_passed(runs: Runs) -> None:
    assert len(runs.result.stage_seconds) == 11
    failed = {name: text for name, (passed, text) in runs.result.checks.items() if not passed}
    assert set(failed) <= {"challenger_is_not_worse"}
    assert len(runs.result.checks) == 9


def test_songs_are_held_out_from_everything_but_judging(runs: Runs) -> None:
    tables = runs.home / "tables"
    library, pairs = (pd.read_parquet(tables / f"{name}.parquet") for name in ("song_library", "edit_pairs"))
    parts = library.set_index("track_id")["part"]
    assert sorted(parts.value_counts().to_dict().items()) == [("eval", 2), ("train", 4)]
    judged = set(runs.result.evaluation["track_id"])
    assert judged == set(parts[parts == "eval"].index)
    assert (pairs["part"] == pairs["track_id"].map(parts)).all()
    waiting = {item.pair.a.track_id for item in read_pairs(pairs_path(runs.home))}
    assert waiting <= set(parts[parts == "train"].index)


def test_policies_and_baselines_were_judged(runs: Runs) -> None:
    assert set(runs.result.evaluation["editor"]) >= {
        *(
            "random",
            "keep_all",
            "truncate_fade",
            "one_cut",
            "dp_beats",
            "dp_bars",
            "search_acoustic",
            "search_structure",
        ),
        *("reference_policy", "ppo_policy", "dpo_policy", "ppo_best_of_16"),
    }


def test_answers_of_the_listener_are_never_taken_for_a_persons(runs: Runs) -> None:
    with PreferenceStore(f"sqlite:///{runs.home / 'preferences.db'}") as store:
        counts = store.counts()
    assert counts["person"] == 0
    assert counts["bootstrap"] == runs.result.answers["n_bootstrap"] > 100
    assert "nobody has rated anything yet" in report(runs.result, total_s=1.0)


def test_the_champion_is_in_the_registry_and_on_disk(runs: Runs, client: Any) -> None:
    champion = client.get_model_version_by_alias("editorbot-policy", "champion")
    assert champion.tags["sha256"] == runs.result.champion["champion_sha256"]
    assert {"inputs", "code_version", "beat_features", "dagster_run_id"} <= set(champion.tags)
    assert load_policy(champion_path(runs.home)).model["name"] in ("reference_policy", "ppo_policy", "dpo_policy")
    assert champion_reward_path(runs.home).is_file()
    (decision,) = read_lines(ledger_path(runs.home))
    assert (decision["action"], decision["version"]) == ("promoted", str(champion.version))
    challenger = client.get_model_version_by_alias("editorbot-policy", "challenger")
    assert challenger.tags["asset"] in ("ppo_policy", "dpo_policy")
    assert {"preferences", "reward_model"} <= set(challenger.tags)


def test_the_champions_check_fails_where_its_weights_are_gone(runs: Runs) -> None:
    path = champion_path(runs.home)
    home, tracking = Home(folder=str(runs.home)), Tracking(folder=str(runs.home))

    def check(instance: dg.DagsterInstance) -> dg.AssetCheckResult:
        context = dg.build_asset_check_context(instance=instance)
        result = champion_is_in_the_registry(context, home=home, tracking=tracking)
        assert isinstance(result, dg.AssetCheckResult)
        return result

    with dagster_instance(runs.home) as instance:
        assert check(instance).passed
        aside = path.rename(path.with_suffix(".aside"))
        try:
            found = check(instance)
        finally:
            aside.rename(path)
    assert not found.passed
    assert "missing" in str(found.description)


def test_both_ways_of_training_log_the_same_names(runs: Runs, client: Any) -> None:
    found = {run.data.tags["dagster.asset_key"]: set(run.data.metrics) for run in client.search_runs(["1"])}
    common = {"total_reward", "learned_reward", "dense_reward", "policy_loss", "value_loss", "kl_ref_unit", "entropy"}
    assert common <= found["ppo_policy"] & found["dpo_policy"]


def test_each_side_links_the_other(runs: Runs, client: Any) -> None:
    (run,) = [r for r in client.search_runs(["1"]) if r.data.tags["dagster.asset_key"] == "ppo_policy"]
    assert run.data.tags["dagster.run_id"] == runs.result.run_id
    with dagster_instance(runs.home) as instance:
        made = latest_materialization(instance, "ppo_policy")
        status = instance.get_run_by_id(runs.result.run_id)
    assert made is not None and status is not None
    assert run.info.run_id in str(made.metadata["mlflow"].value)
    assert status.status == dg.DagsterRunStatus.SUCCESS


def test_plots_are_small_pictures(runs: Runs) -> None:
    with dagster_instance(runs.home) as instance:
        made = [latest_materialization(instance, name) for name in ("ppo_policy", "policy_evaluation")]
    plots = [
        str(entry.value)
        for event in made
        if event
        for name, entry in event.metadata.items()
        if name.startswith("plot_")
    ]
    assert len(plots) == 4
    for plot in plots:
        image = base64.b64decode(plot.partition("base64,")[2].rstrip(")"))
        assert image.startswith(b"\x89PNG")
        assert 1_000 < len(image) < 100_000


def test_edited_songs_can_be_heard_and_worked_on(runs: Runs) -> None:
    audio = sorted(runs.result.edited_songs.glob("*.flac"))
    # Two held-out songs, each at the three lengths that policies are judged at.
    assert len(audio) == 6
    assert {path.stem.rpartition("-")[2] for path in audio} == {"35", "50", "70"}
    for path in audio:
        edl = read_edl(path.with_suffix(".json"))
        assert soundfile.info(path).duration == pytest.approx(edl.duration_s, abs=0.1)


def test_a_third_run_makes_nothing(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    before = (champion_path(runs.home).read_bytes(), ledger_path(runs.home).read_bytes())
    assert run_main_job(runs.songs, home=runs.home, settings=SMALL) == 0
    printed = capsys.readouterr().out
    assert printed.count(" reused") == 11
    assert before == (champion_path(runs.home).read_bytes(), ledger_path(runs.home).read_bytes())


def test_a_champion_that_somebody_moved_is_followed(runs: Runs, client: Any) -> None:
    worn = client.get_model_version_by_alias("editorbot-policy", "champion")
    others = [v for v in client.search_model_versions("name = 'editorbot-policy'") if v.version != worn.version]
    other = others[0]
    client.set_registered_model_alias("editorbot-policy", "champion", other.version)
    try:
        result = runs.run()
        assert result.champion["champion_version"] == str(other.version)
        assert read_lines(ledger_path(runs.home))[-1]["action"] == "followed"
    finally:
        client.set_registered_model_alias("editorbot-policy", "champion", worn.version)


def test_wrong_settings_and_folders_are_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"there is no setting ppo\.nsteps"):
        run_pipeline(home=tmp_path / "home", settings={"ppo.nsteps": "1"})
    with pytest.raises(ParameterError, match="no such folder"):
        run_pipeline(tmp_path / "nowhere", home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_the_tracker_is_a_setting_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr("pipelines.run.run_main_job", lambda songs, settings: seen.append(settings) or 0)
    assert cli.main(["run", "--tracker", "librosa", "--set", "n_pairs=20"]) == 0
    assert seen == [{"n_pairs": "20", "tracker": "librosa"}]


def test_an_unknown_tracker_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="tracker must be one of semi-markov, librosa, beat_this"):
        run_pipeline(home=tmp_path, settings={"tracker": "madmom"})
    assert list(tmp_path.iterdir()) == []


def test_the_job_of_rounds_learns_twice_and_says_what_each_round_was_like(runs: Runs) -> None:
    where = {"folder": str(runs.home)}
    settings = {**SMALL, "n_rounds": "2", "total_steps": "2000", "n_pairs": "20"}
    own = {**where, "songs": str(runs.songs), "settings": settings}
    config = {"resources": {"home": {"config": own}, "tables": {"config": where}, "tracking": {"config": where}}}
    with dagster_instance(runs.home) as instance:
        job = build_definitions().resolve_job_def("rounds_job")
        assert job.execute_in_process(instance=instance, run_config=config).success
        made = latest_materialization(instance, "iterated_policy")
        assert made is not None
        metadata = made.metadata
    rounds: Any = metadata["rounds"].value
    assert [sorted(line)[0] for line in rounds] == ["eval/score"] * 2
    assert "rm/acc_onpolicy" in rounds[1] and "rm/acc_onpolicy" not in rounds[0]
    assert load_policy(Path(str(metadata["weights"].value))).model["name"] == "iterated_policy"
