"""Retraining by the clock. Ships stopped; EDITORBOT_AUTOMATION=on, or the switch in the UI, starts it."""

import os

import dagster as dg

from assets.resources.registry import registry
from pipelines.jobs import retrain_job


def automation_is_on() -> bool:
    """Whether the schedule and the sensors run from the start."""
    return os.environ.get("EDITORBOT_AUTOMATION", "").lower() in ("on", "1", "true")


retrain_schedule = dg.ScheduleDefinition(
    name="retrain_schedule",
    job=retrain_job,
    cron_schedule=os.environ.get("EDITORBOT_RETRAIN_CRON") or registry().automation.retrain_cron,
    default_status=dg.DefaultScheduleStatus.RUNNING if automation_is_on() else dg.DefaultScheduleStatus.STOPPED,
    description="Retrains by the clock; nothing is computed where nothing has changed.",
)
