"""Runs whose process is gone are closed; runs that live are left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from assets.resources.jsonl import append_line, read_lines
from assets.resources.liveness import close_dead_runs, hold_run, is_alive, release_run

_HOLDER = """
import sys, time
from pathlib import Path
from assets.resources.liveness import hold_run
lock = hold_run(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


def _begun_run(instance: dg.DagsterInstance) -> str:
    @dg.job
    def empty() -> None: ...

    run = instance.create_run_for_job(empty)
    instance.report_run_canceling(run)
    return run.run_id


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_a_run_lives_while_it_is_held(tmp_path: Path) -> None:
    assert not is_alive(tmp_path, "run")
    lock = hold_run(tmp_path, "run")
    assert is_alive(tmp_path, "run")
    release_run(tmp_path, "run", lock)
    assert not is_alive(tmp_path, "run")


def test_a_run_whose_process_was_killed_is_closed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    killed, living, foreign = (_begun_run(instance) for _ in range(3))
    lock = hold_run(tmp_path, living)
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path), killed], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert close_dead_runs(instance, tmp_path) == []
        os.kill(holder.pid, signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
    deadline = time.monotonic() + 5
    while is_alive(tmp_path, killed) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert close_dead_runs(instance, tmp_path) == [killed]
    status = {run.run_id: run.status for run in instance.get_runs()}
    assert status[killed] == dg.DagsterRunStatus.FAILURE
    assert status[living] == status[foreign] == dg.DagsterRunStatus.CANCELING
    assert close_dead_runs(instance, tmp_path) == []
    release_run(tmp_path, living, lock)


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_lines(path) == []
    append_line(path, {"a": 1})
    append_line(path, {"a": 2})
    with path.open("ab") as handle:
        handle.write(b'{"a": 3')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
