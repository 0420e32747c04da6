"""`editorbot tune-tracker`: try other constants of the beat tracker, on annotated songs."""

import argparse
from pathlib import Path

from editorbot_core.base.console import check_folder, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Try other constants of the beat tracker, one at a time, on songs with annotations beside them, and say which "
        "gain more than chance explains. Nothing is changed."
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="songs with annotations beside them")


def run(arguments: argparse.Namespace) -> None:
    """Try them and print a table."""
    for folder in arguments.folders:
        check_folder(folder, holds="annotated songs")
    from editorbot_core.analysis.tuning import chosen_constants, try_constants
    from editorbot_core.base.progress import ProgressBars

    with ProgressBars() as bars:
        trials = try_constants(arguments.folders, progress=bars)
    say(f"{'constant':20} {'value':>8}  {'first':>6}  {'best':>6}  {'gain':>8}")
    for trial in trials:
        value = f"{trial.value:8.4g}" if trial.constant else " " * 8
        gain = f"{trial.gain:+8.4f} +/- {trial.gain_error:.4f}" if trial.constant else ""
        say(f"{trial.constant or 'as they are':20} {value}  {trial.first:6.4f}  {trial.best:6.4f}  {gain}".rstrip())
    chosen = chosen_constants(trials)
    changes = ", ".join(f"{name}={value:.4g}" for name, value in chosen.items())
    say(f"to change: {changes}" if chosen else "to change: none; chance explains the greatest gain among so many")
