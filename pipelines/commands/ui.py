"""`editorbot ui`: Dagster, MLflow and the rating page on this machine."""

import argparse
import secrets
import sys
from pathlib import Path

from editorbot_core.base.console import add_port, check_port
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import home_folder

_FLAGS = {"--dagster_port": 3000, "--mlflow_port": 5000, "--rating_port": 8000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Start Dagster, MLflow and the rating page on this machine; Ctrl-C stops all three."
    for flag, default in _FLAGS.items():
        add_port(parser, flag, default)


def run(arguments: argparse.Namespace) -> None:
    """Start the three services and wait."""
    ports = [getattr(arguments, flag[2:]) for flag in _FLAGS]
    for flag, port in zip(_FLAGS, ports, strict=True):
        check_port(flag, port)
    if len(set(ports)) < len(ports):
        raise ParameterError(f"the three ports must differ; got {', '.join(map(str, ports))}")
    from assets.resources.tracking import mlflow_server_command
    from pipelines.instance import prepare_home
    from pipelines.ui import HOST, Service, run_services

    home = home_folder()
    prepare_home(home)
    environment = {"DAGSTER_HOME": str(home / "dagster"), "EDITORBOT_HOME": str(home)}
    workspace = Path(__file__).resolve().parents[2] / "workspace.yaml"
    binaries = Path(sys.executable).parent
    # The rating page admits only those who bring its key, which is new every time.
    token = secrets.token_urlsafe(16)
    run_services(
        [
            Service(
                "dagster",
                arguments.dagster_port,
                (
                    *(str(binaries / "dagster"), "dev", "--workspace", str(workspace)),
                    *("--host", HOST, "--port", str(arguments.dagster_port)),
                ),
                environment,
            ),
            Service(
                "mlflow",
                arguments.mlflow_port,
                mlflow_server_command(home, host=HOST, port=arguments.mlflow_port),
                environment,
            ),
            Service(
                "rating",
                arguments.rating_port,
                (str(binaries / "editorbot"), "rate", "--port", str(arguments.rating_port)),
                {**environment, "EDITORBOT_RATING_TOKEN": token},
                page=f"/?token={token}",
            ),
        ],
        logs=home / "logs",
    )
