"""`editorbot ui`: Dagster, MLflow and the rating page on this machine."""

import argparse
import secrets
import sys
from dataclasses import replace
from pathlib import Path

from editorbot_core.base.console import add_ports, check_ports
from editorbot_core.base.home import home_folder

_PORTS = {"dagster_port": 3000, "mlflow_port": 5000, "rating_port": 8000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Start Dagster, MLflow and the rating page on this machine; Ctrl-C stops all three."
    add_ports(parser, **_PORTS)


def run(arguments: argparse.Namespace) -> None:
    """Start the three services and wait."""
    ports = {name: getattr(arguments, name) for name in _PORTS}
    check_ports(**ports)
    from assets.resources.tracking import mlflow_server_command
    from pipelines.instance import prepare_home
    from pipelines.ui import HOST, Service, run_services

    home = home_folder()
    prepare_home(home)
    environment = {"DAGSTER_HOME": str(home / "dagster"), "EDITORBOT_HOME": str(home)}
    workspace = Path(__file__).resolve().parents[2] / "workspace.yaml"
    dagster, editorbot = (str(Path(sys.executable).parent / name) for name in ("dagster", "editorbot"))
    # The rating page admits only those who bring its key, which is new every time.
    token = secrets.token_urlsafe(16)
    dagster_port, mlflow_port, rating_port = map(str, ports.values())
    commands = {
        "dagster": (dagster, "dev", "--workspace", str(workspace), "--host", HOST, "--port", dagster_port),
        "mlflow": mlflow_server_command(home, host=HOST, port=int(mlflow_port)),
        "rating": (editorbot, "rate", "--port", rating_port),
    }
    services = [
        Service(name, port, command, {**environment, "EDITORBOT_RATING_TOKEN": token})
        for (name, command), port in zip(commands.items(), ports.values(), strict=True)
    ]
    services[-1] = replace(services[-1], page=f"/?token={token}")
    run_services(services, logs=home / "logs")
