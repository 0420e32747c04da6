"""The main job from the command line: in this process, on the instance whose runs the UI shows.

Everything that is done stays done: interrupted anywhere, the same command continues with what is missing.
"""

import logging
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.resources.memo import latest_materialization
from assets.resources.tables import TableStore
from editorbot_core.base.console import say
from editorbot_core.base.errors import GateError, ParameterError
from editorbot_core.base.home import home_folder, storage_url
from editorbot_core.base.progress import Progress, ProgressBars
from pipelines.definitions import build_definitions, silent
from pipelines.instance import dagster_instance, prepare_home

if TYPE_CHECKING:
    import pandas as pd

JOB = "main_job"

_COMPILE = (sys.executable, "-m", "editorbot_core.editing.search")


@dataclass(frozen=True)
class PipelineResult:
    """What a run of the main job made.

    Attributes:
        run_id: The Dagster run.
        home: The folder of local results.
        stage_seconds: Wall time of every asset, s, in order.
        reused: Assets whose inputs had not changed.
        checks: Name of every check to whether it passed, and what it said.
        evaluation: A row per song, target length and editor.
        evaluation_text: Its summary, to print.
        champion: What the asset `champion` said of itself.
        songs: What the asset `song_library` said of itself.
        answers: What the asset `preferences` said of itself.
        edited_songs: Folder of audio and EDLs.
    """

    run_id: str
    home: Path
    stage_seconds: Mapping[str, float]
    reused: tuple[str, ...]
    checks: Mapping[str, tuple[bool, str]]
    evaluation: "pd.DataFrame"
    evaluation_text: str
    champion: Mapping[str, Any]
    songs: Mapping[str, Any]
    answers: Mapping[str, Any]
    edited_songs: Path


def _file_logger(path: Path) -> dg.LoggerDefinition:
    """Dagster's log, whole, in a file; on the console stand progress bars."""

    @dg.logger
    def file_logger(context: dg.InitLoggerContext) -> logging.Logger:
        path.parent.mkdir(parents=True, exist_ok=True)
        logger = logging.getLogger("editorbot.pipeline")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        return logger

    return file_logger


def _reported(instance: dg.DagsterInstance, name: str) -> dict[str, Any]:
    made = latest_materialization(instance, name)
    return {key: entry.value for key, entry in made.metadata.items()} if made else {}


def _checks(instance: dg.DagsterInstance, run_id: str) -> dict[str, tuple[bool, str]]:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.dagster_event.asset_check_evaluation_data for entry in entries if entry.dagster_event]
    return {evaluation.check_name: (evaluation.passed, evaluation.description or "") for evaluation in found}


def _stage_seconds(instance: dg.DagsterInstance, run_id: str, names: list[str]) -> dict[str, float]:
    """Wall time of every asset, in the order in which they ended."""
    ended: list[tuple[float, float, str]] = [
        (step.end_time, step.end_time - step.start_time, step.step_key)
        for step in instance.get_run_step_stats(run_id)
        if step.step_key in names and step.start_time and step.end_time
    ]
    return {name: seconds for _, seconds, name in sorted(ended)}


def run_pipeline(
    songs: Path | None = None,
    *,
    home: Path | None = None,
    settings: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> PipelineResult:
    """Run the main job in this process.

    Args:
        songs: Folder with songs; by default EDITORBOT_SONGS, else training_data, else demo songs.
        home: Folder of local results; by default EDITORBOT_HOME, else .editorbot.
        settings: Settings by dotted name instead of the defaults.
        progress: Told how far long stages are.

    Raises:
        ParameterError: If the folder or a setting does not exist.
        GateError: If a blocking check failed.
        EditorBotError: What an asset raised.
        KeyboardInterrupt: If it was interrupted.
    """
    from editorbot_core.config import get_default_config, overridden

    home = (home or home_folder()).resolve()
    settings = {name: str(value) for name, value in (settings or {}).items()}
    overridden(get_default_config(), settings)
    if songs is not None and not songs.is_dir():
        raise ParameterError(f"{songs}: no such folder; name one that holds songs")
    prepare_home(home)
    log_path = home / "logs" / "pipeline.log"
    definitions = build_definitions(progress or silent, loggers={"file": _file_logger(log_path)})
    job = definitions.resolve_job_def(JOB)
    where = {"folder": str(home)}
    own = {**where, "songs": str(songs.resolve()) if songs else "", "settings": settings}
    run_config = {
        "loggers": {"file": {}},
        "resources": {"home": {"config": own}, "tables": {"config": where}, "tracking": {"config": where}},
    }
    run_id = str(uuid.uuid4())
    with dagster_instance(home) as instance:
        try:
            job.execute_in_process(instance=instance, run_config=run_config, run_id=run_id)
        except dg.DagsterExecutionInterruptedError as error:
            raise KeyboardInterrupt from error
        except dg.DagsterError as error:
            failed = [f"{name}: {text}" for name, (passed, text) in _checks(instance, run_id).items() if not passed]
            if not failed:
                raise
            raise GateError(f"{'; '.join(failed)} (the log: {log_path})") from error
        seconds = _stage_seconds(instance, run_id, [key.path[-1] for key in job.asset_layer.selected_asset_keys])
        reported = {name: _reported(instance, name) for name in seconds}
        return PipelineResult(
            run_id=run_id,
            home=home,
            stage_seconds=seconds,
            reused=tuple(name for name in seconds if reported[name].get("reused")),
            checks=_checks(instance, run_id),
            evaluation=TableStore(storage_url(home)).read("policy_evaluation"),
            evaluation_text=str(reported["policy_evaluation"].get("text", "")).strip("`\n"),
            champion=reported["champion"],
            songs=reported["song_library"],
            answers=reported["preferences"],
            edited_songs=Path(str(reported["edited_songs"].get("folder", ""))),
        )


def report(result: PipelineResult, *, total_s: float) -> str:
    """What a person wants to know after a run, to print."""
    stages = ", ".join(
        f"{name} {'reused' if name in result.reused else f'{seconds:.0f} s'}"
        for name, seconds in result.stage_seconds.items()
    )
    n_person = int(result.answers.get("n_person", 0))
    answers = (
        f"{n_person} answers by people, {result.answers.get('n_bootstrap', 0)} by the bootstrap listener"
        if n_person
        else f"nobody has rated anything yet: all {result.answers.get('n_bootstrap', 0)} answers are by the bootstrap "
        "listener, a program"
    )
    warnings = [f"  not passed: {name}: {text}" for name, (passed, text) in result.checks.items() if not passed]
    own = result.songs.get("folder", "")
    return "\n".join(
        [
            "",
            result.evaluation_text,
            "",
            f"songs     {result.songs.get('n_train')} to learn from, {result.songs.get('n_eval')} held out ({own})",
            f"answers   {answers}",
            f"champion  version {result.champion.get('champion_version')} "
            f"({result.champion.get('champion_asset')}): {result.champion.get('reason')}",
            f"edits     {result.edited_songs}",
            f"stages    {stages}",
            f"total     {total_s:.0f} s",
            *warnings,
            "",
            "next:",
            "  make ui                                               see the runs, compare models, rate edits",
            "  .venv/bin/editorbot edit --audio song.mp3 --output edited.wav --duration 60",
            "  make run SONGS=/folder/with/your/songs                learn from your own music",
        ]
    )


def run_main_job(
    songs: Path | None = None, *, settings: Mapping[str, str] | None = None, home: Path | None = None
) -> int:
    """The body of `editorbot run`: progress bars while it runs, a table at the end; returns the exit status."""
    started = time.monotonic()
    # Kernels of the search are compiled once per installation: beside the analysis of the songs, not after it.
    compiling = subprocess.Popen(_COMPILE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with ProgressBars() as bars:
            result = run_pipeline(songs, home=home, settings=settings, progress=bars)
    finally:
        compiling.kill()
        compiling.wait()
    say(report(result, total_s=time.monotonic() - started))
    return 0
