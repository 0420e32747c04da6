"""Which Dagster runs are alive, and the end of those whose process is gone.

A run holds a lock on a file of its own while its process lives; the operating system releases it however the process
ends. Dagster's default launcher has no health check, so a killed run would stay STARTED for ever.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

_LIVE = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def _lock_path(home: Path, run_id: str) -> Path:
    return home / "state" / "runs" / f"{run_id}.lock"


def hold_run(home: Path, run_id: str) -> FileLock:
    """Declare that this process executes the run, until the lock is released or the process ends."""
    path = _lock_path(home, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    lock.acquire(timeout=0)
    return lock


def release_run(home: Path, run_id: str, lock: FileLock) -> None:
    """Declare that the run has ended."""
    lock.release()
    _lock_path(home, run_id).unlink(missing_ok=True)


def is_alive(home: Path, run_id: str) -> bool:
    """Whether a process of this home executes the run right now."""
    path = _lock_path(home, run_id)
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def close_dead_runs(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Report every run of this home whose process is gone as failed; return their ids.

    A run without a lock file was begun by another home and is left alone.
    """
    closed = []
    for path in sorted((home / "state" / "runs").glob("*.lock")):
        if is_alive(home, path.stem):
            continue
        run = instance.get_run_by_id(path.stem)
        if run is not None and run.status in _LIVE:
            instance.report_run_failed(run, "The process that executed this run is gone; the run did not end itself.")
            closed.append(run.run_id)
        path.unlink(missing_ok=True)
    return closed


def process_tags() -> Mapping[str, str]:
    """Who executes a run: process id and the time it began, for people who look."""
    return {
        "editorbot/pid": str(os.getpid()),
        "editorbot/started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
