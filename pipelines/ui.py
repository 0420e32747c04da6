"""`make ui`: the Dagster UI, the MLflow UI and the rating page, all on loopback, stopped together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from editorbot_core.base.console import say
from editorbot_core.base.errors import EditorBotError, ParameterError

HOST = "127.0.0.1"
_STOP_AFTER_S = 10.0


@dataclass(frozen=True)
class Service:
    """One server: what it is called, where it listens, how it is started, and which page of it to open."""

    name: str
    port: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    page: str = ""


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def _stop(processes: list[subprocess.Popen]) -> None:
    """Ask every process group to end, and end what has not after a while."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + _STOP_AFTER_S
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_services(services: list[Service], *, logs: Path) -> None:
    """Start `services`, print their addresses once they answer, and wait until Ctrl-C or until one of them ends.

    Raises:
        ParameterError: If a port is taken.
        EditorBotError: If a server ends by itself; the message names its log.
    """
    taken = [f"{service.port} ({service.name})" for service in services if not _is_free(service.port)]
    if taken:
        raise ParameterError(f"port {', '.join(taken)} is in use; stop what listens there or choose another port")
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen] = []
    waiting = list(services)

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        for service in services:
            with (logs / f"{service.name}.log").open("ab") as log:
                processes.append(
                    subprocess.Popen(
                        service.command,
                        env={**os.environ, **service.environment},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        say("starting; this takes about ten seconds")
        while True:
            for service, process in zip(services, processes, strict=True):
                if process.poll() is not None:
                    raise EditorBotError(
                        f"{service.name} ended with status {process.returncode}; see {logs / (service.name + '.log')}"
                    )
            for service in [s for s in waiting if _answers(s.port)]:
                waiting.remove(service)
                say(f"  {service.name:<12} http://{HOST}:{service.port}{service.page}")
                if not waiting:
                    say("Ctrl-C stops all of them.")
            time.sleep(0.3)
    except KeyboardInterrupt:
        sys.stderr.write("stopping\n")
    finally:
        signal.signal(signal.SIGTERM, previous)
        _stop(processes)
