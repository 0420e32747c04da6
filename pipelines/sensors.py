"""Runs that start when something has happened, and the end of what a failed run left open.

Every request has a key made of what has happened and the number of the attempt, so that it is made once, and again
only if its run failed. A song that vanished is as much a change as one that came.
"""

import dagster as dg

from assets.resources.home import Home
from assets.resources.liveness import close_dead_runs
from assets.resources.memo import latest_materialization, metadata_value
from assets.resources.registry import registry
from assets.resources.tracking import Tracking
from editorbot_core.base.files import digest
from editorbot_core.base.home import automation_is_on, corrections_folder
from pipelines.jobs import ingest_job, main_job, retrain_job

_TRIGGER_TAG = "editorbot/trigger"
_STATUS = dg.DefaultSensorStatus.RUNNING if automation_is_on() else dg.DefaultSensorStatus.STOPPED
_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def was_started(instance: dg.DagsterInstance, trigger: str) -> bool:
    """Whether a run for what has happened is under way or has ended well."""
    runs = instance.get_runs(filters=dg.RunsFilter(tags={_TRIGGER_TAG: trigger}))
    return any(run.status not in _FAILED for run in runs)


def request_once(instance: dg.DagsterInstance, trigger: str) -> dg.RunRequest | dg.SkipReason:
    """A request for what has happened, unless a run for it is under way, has ended well, or has failed too often."""
    if was_started(instance, trigger):
        return dg.SkipReason(f"a run for {trigger} was already started")
    attempts = len(instance.get_runs(filters=dg.RunsFilter(tags={_TRIGGER_TAG: trigger})))
    if attempts >= registry().automation.max_attempts:
        return dg.SkipReason(f"{attempts} runs for {trigger} have failed; start one by hand when the cause is gone")
    return dg.RunRequest(run_key=f"{trigger}-{attempts}", tags={_TRIGGER_TAG: trigger})


@dg.sensor(job=ingest_job, minimum_interval_seconds=60, default_status=_STATUS)
def song_sensor(context: dg.SensorEvaluationContext, home: Home) -> dg.RunRequest | dg.SkipReason:
    """Songs have come, changed or vanished, or a person corrected the beats of one: ingest them."""
    from editorbot_core.audio.files import find_audio

    folder = home.songs_folder_if_any()
    if folder is None:
        return dg.SkipReason("there is no folder of songs yet; training_data or EDITORBOT_SONGS names one")
    songs = {str(path.relative_to(folder)).encode(errors="replace").decode(): path for path in find_audio(folder)}
    corrections = {f"correction of {path.stem}": path for path in corrections_folder(home.path).glob("*.json")}
    states = {name: path.stat() for name, path in {**songs, **corrections}.items()}
    now = digest({name: [status.st_size, status.st_mtime_ns] for name, status in states.items()})[:16]
    if context.cursor == now:
        return dg.SkipReason(f"{len(songs)} songs, none new, changed, corrected or gone")
    trigger = f"songs-{now}"
    if was_started(context.instance, trigger):
        context.update_cursor(now)
    return request_once(context.instance, trigger)


@dg.sensor(job=retrain_job, minimum_interval_seconds=60, default_status=_STATUS)
def preference_sensor(context: dg.SensorEvaluationContext, home: Home) -> dg.RunRequest | dg.SkipReason:
    """People have given enough answers since the last snapshot: retrain."""
    from editorbot_core.preferences.store import PreferenceStore

    store = PreferenceStore(home.database_url)
    try:
        n_answers = store.count("person")
    finally:
        store.close()
    made = latest_materialization(context.instance, "preferences")
    known = int(metadata_value(made, "n_person") or 0)
    wanted = registry().automation.min_new_answers
    if n_answers - known < wanted:
        return dg.SkipReason(f"{n_answers - known} new answers; {wanted} start a retraining")
    return request_once(context.instance, f"answers-{n_answers}")


@dg.run_failure_sensor(
    name="failure_sensor", monitored_jobs=[main_job, ingest_job, retrain_job], default_status=_STATUS
)
def failure_sensor(context: dg.RunFailureSensorContext, home: Home, tracking: Tracking) -> None:
    """A run failed: close what it left open in Dagster and in MLflow."""
    close_dead_runs(context.instance, home.path)
    for problem in tracking.resend():
        context.log.warning(problem)
