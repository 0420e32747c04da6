"""Sensors and the schedule: what starts a run, once, and what does not."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.resources.home import Home
from assets.resources.liveness import hold_run
from editorbot_core.base.home import corrections_folder
from pipelines.definitions import defs
from pipelines.schedules import retrain_schedule
from pipelines.sensors import preference_sensor, request_once, song_sensor


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"a")
    (folder / "b.flac").write_bytes(b"b")
    return folder


class Ticks:
    """Ticks of the song sensor, one after the other, as the daemon makes them."""

    def __init__(self, instance: dg.DagsterInstance, home: Home) -> None:
        self.instance, self.home, self.cursor = instance, home, None

    def tick(self) -> dg.RunRequest | dg.SkipReason:
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"home": self.home}
        ) as context:
            answer = song_sensor(context)
            self.cursor = context.cursor
        return answer

    def run(self, request: dg.RunRequest, *, succeeds: bool = True) -> None:
        """A run for the request, ended."""

        @dg.job
        def empty() -> None: ...

        run = self.instance.create_run_for_job(empty, tags=dict(request.tags))
        if succeeds:
            self.instance.handle_new_event(_ended(run.run_id))
        else:
            self.instance.report_run_failed(run)


def _ended(run_id: str) -> dg.EventLogEntry:
    import time

    from dagster._core.events import DagsterEvent

    event = DagsterEvent(event_type_value=dg.DagsterEventType.RUN_SUCCESS.value, job_name="empty")
    return dg.EventLogEntry(
        error_info=None, level="debug", user_message="", run_id=run_id, timestamp=time.time(), dagster_event=event
    )


@pytest.fixture
def ticks(instance: dg.DagsterInstance, songs: Path, tmp_path: Path) -> Ticks:
    return Ticks(instance, Home(folder=str(tmp_path / "home"), songs=str(songs)))


def _request(answer: dg.RunRequest | dg.SkipReason) -> dg.RunRequest:
    assert isinstance(answer, dg.RunRequest), answer
    return answer


def test_songs_that_are_there_start_one_run(ticks: Ticks) -> None:
    first = _request(ticks.tick())
    assert _request(ticks.tick()).run_key == first.run_key
    ticks.run(first)
    assert isinstance(ticks.tick(), dg.SkipReason)
    assert isinstance(ticks.tick(), dg.SkipReason)


@pytest.mark.parametrize("change", ["new", "changed", "gone"])
def test_every_change_of_songs_starts_another_run(ticks: Ticks, songs: Path, change: str) -> None:
    first = _request(ticks.tick())
    ticks.run(first)
    ticks.tick()
    if change == "new":
        (songs / "c.wav").write_bytes(b"c")
    elif change == "changed":
        (songs / "a.wav").write_bytes(b"another")
    else:
        (songs / "a.wav").unlink()
    assert _request(ticks.tick()).run_key != first.run_key


def test_a_corrected_grid_starts_another_run(ticks: Ticks) -> None:
    first = ticks.tick()
    assert isinstance(first, dg.RunRequest)
    ticks.run(first)
    assert isinstance(ticks.tick(), dg.SkipReason)
    folder = corrections_folder(ticks.home.path)
    folder.mkdir(parents=True)
    (folder / "0123456789abcdef.json").write_text("{}")
    again = ticks.tick()
    assert isinstance(again, dg.RunRequest)
    assert again.run_key != first.run_key


def test_other_files_start_nothing(ticks: Ticks, songs: Path) -> None:
    ticks.run(_request(ticks.tick()))
    ticks.tick()
    (songs / "notes.txt").write_text("hello")
    assert isinstance(ticks.tick(), dg.SkipReason)


def test_a_failed_run_is_tried_again_but_not_for_ever(ticks: Ticks) -> None:
    keys = []
    for _ in range(3):
        request = _request(ticks.tick())
        keys.append(request.run_key)
        ticks.run(request, succeeds=False)
    assert len(set(keys)) == 3
    answer = ticks.tick()
    assert isinstance(answer, dg.SkipReason)
    assert "3 runs" in str(answer.skip_message)


def test_without_a_folder_of_songs_nothing_starts(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = Ticks(instance, Home(folder=str(tmp_path / "home"))).tick()
    assert isinstance(answer, dg.SkipReason)
    assert "training_data" in str(answer.skip_message)


def test_enough_answers_by_people_start_a_retraining(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(folder=str(tmp_path / "home"))

    def tick(n_answers: int) -> dg.RunRequest | dg.SkipReason:
        monkeypatch.setattr("editorbot_core.preferences.store.PreferenceStore.count", lambda _self, _source: n_answers)
        with dg.build_sensor_context(instance=instance, resources={"home": home}) as context:
            return preference_sensor(context)

    assert isinstance(tick(49), dg.SkipReason)
    assert _request(tick(50)).run_key == "answers-50-0"

    @dg.asset
    def preferences() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"n_person": 50})

    dg.materialize([preferences], instance=instance)
    assert isinstance(tick(99), dg.SkipReason)
    assert _request(tick(100)).run_key == "answers-100-0"


def test_a_request_is_not_repeated_while_its_run_is_under_way(instance: dg.DagsterInstance) -> None:
    @dg.job
    def empty() -> None: ...

    request = _request(request_once(instance, "thing"))
    instance.create_run_for_job(empty, tags=dict(request.tags))
    assert isinstance(request_once(instance, "thing"), dg.SkipReason)


def test_the_schedule_asks_for_a_retraining(instance: dg.DagsterInstance) -> None:
    with dg.build_schedule_context(instance=instance) as context:
        data = retrain_schedule.evaluate_tick(context)
    assert len(data.run_requests or []) == 1
    assert retrain_schedule.job_name == "retrain_job"
    assert len(retrain_schedule.cron_schedule.split()) == 5


def test_a_failure_closes_the_runs_of_dead_processes(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    from pipelines.sensors import failure_sensor

    @dg.job
    def empty() -> None: ...

    dead = instance.create_run_for_job(empty)
    instance.report_run_canceling(dead)
    hold_run(tmp_path, dead.run_id).release()
    result = _failing().execute_in_process(instance=instance, raise_on_error=False)
    context = dg.build_run_status_sensor_context(
        sensor_name="failure_sensor",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"home": SimpleNamespace(path=tmp_path), "tracking": SimpleNamespace(resend=lambda: [])},
    ).for_run_failure()
    failure_sensor(context)
    found = instance.get_run_by_id(dead.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.FAILURE


def _failing() -> dg.JobDefinition:
    @dg.op
    def fail() -> None:
        raise RuntimeError

    @dg.job
    def failing() -> None:
        fail()

    return failing


def test_sensors_are_defined() -> None:
    names = {sensor.name for sensor in defs.get_repository_def().sensor_defs}
    assert names >= {"song_sensor", "preference_sensor", "failure_sensor"}
