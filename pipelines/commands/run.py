"""`editorbot run`: the whole pipeline on a folder of songs."""

import argparse
from pathlib import Path

from editorbot_core.analysis.names import add_separator, add_tracker, check_separator, check_tracker
from editorbot_core.base.console import add_set, check_folder, named_values
from editorbot_core.config import get_default_config, overridden


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Run the whole pipeline: songs in, edited songs and a registered policy out. What has not changed since the "
        "last run is reused; interrupted anywhere, the same command continues."
    )
    parser.add_argument(
        "--songs",
        type=Path,
        metavar="FOLDER",
        help="songs to learn from (default: EDITORBOT_SONGS, else training_data/, else demo songs)",
    )
    add_tracker(parser, default=None)
    add_separator(parser, default=None)
    add_set(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the settings, then run the main job."""
    settings = named_values(arguments.set)
    for name in ("tracker", "separator"):
        if getattr(arguments, name) is not None:
            settings[name] = getattr(arguments, name)
    config = overridden(get_default_config(), settings)
    check_tracker(config.tracker)
    check_separator(config.separator)
    if arguments.songs is not None:
        check_folder(arguments.songs, "--songs")
    from pipelines.run import run_main_job

    return run_main_job(songs=arguments.songs, settings=settings)
