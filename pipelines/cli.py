"""The `editorbot` command.

Exit status 0 when it did what was asked, 1 for a fault, 2 for wrong use, 130 for Ctrl-C. Every command is a module with
`add_arguments(parser)` and `run(arguments)`, imported only if it is the one that was asked for.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from editorbot_core.base.console import command_line


class Command(NamedTuple):
    """Where a command is, and what it does in one line."""

    module: str
    help: str


COMMANDS = {
    "run": Command("pipelines.commands.run", "the whole pipeline: songs in, edited songs and a registered policy out"),
    "ui": Command("pipelines.commands.ui", "Dagster, MLflow and the rating page on this machine"),
    "rate": Command("pipelines.commands.rate", "the rating page alone"),
    "edit": Command("editorbot_core.infer", "edit one song with the champion"),
    "grid": Command("pipelines.commands.grid", "show the beats of a song, and correct them"),
    "demo": Command("pipelines.commands.demo", "compose the demo songs into a folder"),
    "train": Command("pipelines.commands.train", "train a policy on a folder of songs, without the pipeline"),
    "evaluate": Command("editorbot_core.evaluation.__main__", "judge a policy against the baselines"),
    "study": Command("pipelines.commands.study", "learn on one folder, judge on another, over several seeds"),
    "train-listening": Command(
        "pipelines.commands.train_listening", "train the models that read beats and phrases, on annotated songs"
    ),
    "tune-tracker": Command(
        "pipelines.commands.tune_tracker", "try other constants of the beat tracker, on annotated songs"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `editorbot`; returns its exit status."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="editorbot",
        description="Learns to edit music from people who compare edits.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()),
                "",
                "editorbot COMMAND --help explains one of them.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of the command")
    chosen = parser.parse_args(argv)
    module = import_module(COMMANDS[chosen.command].module)
    return command_line(module.add_arguments, module.run, prog=f"editorbot {chosen.command}", argv=chosen.arguments)


if __name__ == "__main__":
    sys.exit(main())
