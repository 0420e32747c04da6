"""The `editorbot` command: run the pipeline, open its pages, rate edits, edit a song, correct its beats.

Exit status 0 when it did what was asked, 1 for a fault, 2 for wrong use, 130 for Ctrl-C.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from editorbot_core.base.console import named_values, run_command, say
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import home_folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="editorbot", description="Learns to edit music from people who compare edits."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="the whole pipeline: songs in, edited songs and a registered policy out")
    run.add_argument(
        "--songs", type=Path, metavar="FOLDER", help="songs to learn from (default: training_data/, else demo songs)"
    )
    run.add_argument("--tracker", metavar="NAME", help="finds the beats: semi-markov (default), librosa or beat_this")
    run.add_argument("--separator", metavar="NAME", help="divides songs into stems: masks (default) or demucs")
    run.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, such as ppo.n_steps=4096"
    )

    ui = commands.add_parser("ui", help="Dagster, MLflow and the rating page on this machine")
    ui.add_argument("--dagster_port", type=int, default=3000, metavar="PORT", help="default 3000")
    ui.add_argument("--mlflow_port", type=int, default=5000, metavar="PORT", help="default 5000")
    ui.add_argument("--rating_port", type=int, default=8000, metavar="PORT", help="default 8000")

    rate = commands.add_parser("rate", help="the rating page alone")
    rate.add_argument("--port", type=int, default=8000, metavar="PORT", help="default 8000")

    demo = commands.add_parser("demo", help="compose the demo songs into a folder")
    demo.add_argument("folder", type=Path, metavar="FOLDER")
    demo.add_argument("--n_songs", type=int, default=24, metavar="N", help="how many (default 24)")
    demo.add_argument("--seed", type=int, default=0, metavar="SEED", help="other seeds, other songs (default 0)")

    commands.add_parser("edit", help="edit one song with the champion", add_help=False)
    commands.add_parser("grid", help="show the beats of a song, and correct them", add_help=False)
    commands.add_parser("study", help="learn on one folder, judge on another, several seeds: the table", add_help=False)

    listen = commands.add_parser(
        "train-listening", help="train the models that read beats and phrases, on annotated songs"
    )
    listen.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="songs with annotations beside them")
    listen.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the weights go (default: into the package)"
    )

    tune = commands.add_parser("tune-tracker", help="try other constants of the beat tracker, on annotated songs")
    tune.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="songs with annotations beside them")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.commands.run import run_main_job

    settings = named_values(arguments.set)
    for name in ("tracker", "separator"):
        if getattr(arguments, name) is not None:
            settings[name] = getattr(arguments, name)
    if arguments.songs is not None and not arguments.songs.is_dir():
        raise ParameterError(f"--songs {arguments.songs}: no such folder")
    return run_main_job(songs=arguments.songs, settings=settings)


def _ui(arguments: argparse.Namespace) -> int:
    from assets.resources.tracking import mlflow_server_command
    from pipelines.instance import prepare_home
    from pipelines.ui import HOST, Service, run_services

    home = home_folder()
    prepare_home(home)
    dagster_home = {"DAGSTER_HOME": str(home / "dagster"), "EDITORBOT_HOME": str(home)}
    root = Path(__file__).resolve().parents[1]
    binaries = Path(sys.executable).parent
    # The rating page lets in only who brings its key, which is new every time.
    rating_token = secrets.token_urlsafe(16)
    run_services(
        [
            Service(
                "dagster",
                arguments.dagster_port,
                (
                    *(str(binaries / "dagster"), "dev", "--workspace", str(root / "workspace.yaml")),
                    *("--host", HOST, "--port", str(arguments.dagster_port)),
                ),
                dagster_home,
            ),
            Service(
                "mlflow",
                arguments.mlflow_port,
                mlflow_server_command(home, host=HOST, port=arguments.mlflow_port),
                dagster_home,
            ),
            Service(
                "rating",
                arguments.rating_port,
                (str(binaries / "editorbot"), "rate", "--port", str(arguments.rating_port)),
                {**dagster_home, "EDITORBOT_RATING_TOKEN": rating_token},
                page=f"/?token={rating_token}",
            ),
        ],
        logs=home / "logs",
    )
    return 0


def _rate(arguments: argparse.Namespace) -> int:
    from editorbot_core.preferences.rating.server import run_rating_page

    run_rating_page(home_folder(), port=arguments.port, database_url=os.environ.get("EDITORBOT_DATABASE_URL"))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from editorbot_core.base.progress import ProgressBars
    from editorbot_core.songs.demo.songs import compose_demo_songs

    if arguments.n_songs < 1:
        raise ParameterError(f"--n_songs must be at least 1, got {arguments.n_songs}")
    paths = compose_demo_songs(
        arguments.folder, n_songs=arguments.n_songs, seed=arguments.seed, progress=ProgressBars()
    )
    say(f"{len(paths)} songs with annotations in {arguments.folder}")
    return 0


def _check_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise ParameterError(f"{folder}: no such folder; name one that holds annotated songs")


def _tune_tracker(arguments: argparse.Namespace) -> int:
    from editorbot_core.analysis.tuning import chosen_constants, try_constants
    from editorbot_core.base.progress import ProgressBars

    _check_folders(arguments.folders)
    bars = ProgressBars()
    try:
        trials = try_constants(arguments.folders, progress=bars)
    finally:
        bars.close()
    say(f"{'constant':20} {'value':>8}  {'first':>6}  {'best':>6}  {'gain':>8}")
    for trial in trials:
        value = f"{trial.value:8.4g}" if trial.constant else " " * 8
        gain = f"{trial.gain:+8.4f} +/- {trial.gain_error:.4f}" if trial.constant else ""
        say(f"{trial.constant or 'as they are':20} {value}  {trial.first:6.4f}  {trial.best:6.4f}  {gain}".rstrip())
    chosen = chosen_constants(trials)
    changes = ", ".join(f"{name}={value:.4g}" for name, value in chosen.items())
    say(f"to change: {changes}" if chosen else "to change: none; chance explains the greatest gain among so many")
    return 0


def _train_listening(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from editorbot_core.analysis.training import train_listening
    from editorbot_core.analysis.weights import FOLDER
    from editorbot_core.base.progress import ProgressBars

    _check_folders(arguments.folders)
    bars = ProgressBars()
    try:
        report = train_listening(arguments.folders, output=arguments.output or FOLDER, progress=bars)
    finally:
        bars.close()
    for name, value in asdict(report).items():
        say(f"{name:20} {value:.3f}" if isinstance(value, float) else f"{name:20} {value}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `editorbot`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["edit"]:
        from editorbot_core.infer import main as edit

        return edit(argv[1:], prog="editorbot edit")
    if argv[:1] == ["grid"]:
        from pipelines.commands.grid import main as grid

        return grid(argv[1:], prog="editorbot grid")
    if argv[:1] == ["study"]:
        from pipelines.commands.study import main as study

        return study(argv[1:])
    arguments = _parser().parse_args(argv)
    bodies = {
        "run": _run,
        "ui": _ui,
        "rate": _rate,
        "demo": _demo,
        "train-listening": _train_listening,
        "tune-tracker": _tune_tracker,
    }
    return run_command(lambda: bodies[arguments.command](arguments))


if __name__ == "__main__":
    sys.exit(main())
