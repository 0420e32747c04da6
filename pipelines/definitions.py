"""The Dagster code location: assets, checks, jobs, the schedule, sensors and resources.

Heavy libraries are imported inside the bodies of assets, so that this module loads in about a second.
"""

from collections.abc import Mapping

import dagster as dg

from assets import checks, evaluation, models, preferences, songs
from assets.resources.home import Home
from assets.resources.tracking import Tracking, safe_environment
from editorbot_core.base.progress import Progress
from pipelines.io_managers import ParquetTables
from pipelines.jobs import ingest_job, main_job, retrain_job, rounds_job
from pipelines.schedules import retrain_schedule
from pipelines.sensors import failure_sensor, preference_sensor, song_sensor

safe_environment()


def silent(stage: str, done: int, total: int) -> None:
    """A `Progress` that reports nothing."""


def build_definitions(
    progress: Progress = silent, *, loggers: Mapping[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """All definitions; `progress` receives the progress of long stages, `loggers` can be selected in the run config."""
    return dg.Definitions(
        assets=dg.load_assets_from_modules([songs, preferences, models, evaluation]),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=[main_job, ingest_job, retrain_job, rounds_job],
        schedules=[retrain_schedule],
        sensors=[song_sensor, preference_sensor, failure_sensor],
        resources={
            "home": Home.configure_at_launch(),
            "tables": ParquetTables.configure_at_launch(),
            "tracking": Tracking.configure_at_launch(),
            "progress": progress,
        },
        # One process for all steps: a process per step costs seconds and shares no caches.
        executor=dg.in_process_executor,
        loggers=loggers,
    )


defs = build_definitions()
