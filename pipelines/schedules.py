"""Scheduled retraining. It is stopped by default; EDITORBOT_AUTOMATION=on or the switch in the UI starts it."""

import dagster as dg

from assets.resources.registry import registry
from editorbot_core.base.home import automation_is_on, retrain_cron
from pipelines.jobs import retrain_job

retrain_schedule = dg.ScheduleDefinition(
    name="retrain_schedule",
    job=retrain_job,
    cron_schedule=retrain_cron() or registry().automation.retrain_cron,
    default_status=dg.DefaultScheduleStatus.RUNNING if automation_is_on() else dg.DefaultScheduleStatus.STOPPED,
    description="Retrains by the clock; nothing is computed where nothing has changed.",
)
