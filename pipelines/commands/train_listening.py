"""`editorbot train-listening`: train the models that read beats and phrases, on annotated songs."""

import argparse
from dataclasses import asdict
from pathlib import Path

from editorbot_core.base.console import check_folder, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Train the models that read beats and phrases, on songs with annotations beside them."
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER", help="songs with annotations beside them")
    add("--output", type=Path, metavar="FOLDER", help="where the weights go (default: into the package)")


def run(arguments: argparse.Namespace) -> None:
    """Train, write the weights, and print how well they read songs that they were not trained on."""
    for folder in arguments.folders:
        check_folder(folder, holds="annotated songs")
    from editorbot_core.analysis.training import train_listening
    from editorbot_core.analysis.weights import FOLDER
    from editorbot_core.base.progress import ProgressBars

    with ProgressBars() as bars:
        report = train_listening(arguments.folders, output=arguments.output or FOLDER, progress=bars)
    for name, value in asdict(report).items():
        say(f"{name:20} {value:.3f}" if isinstance(value, float) else f"{name:20} {value}")
