"""`editorbot demo`: compose the demo songs into a folder."""

import argparse
from pathlib import Path

from editorbot_core.base.console import check_count, say
from editorbot_core.base.errors import ParameterError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Compose demo songs, with annotations of their beats and phrases beside them."
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="where the songs go; created if it does not exist")
    add("--n_songs", type=int, default=24, metavar="N", help="how many (default: 24)")
    add("--seed", type=int, default=0, metavar="SEED", help="other seeds, other songs (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    """Compose the songs that are not there yet."""
    check_count("--n_songs", arguments.n_songs)
    if arguments.folder.exists() and not arguments.folder.is_dir():
        raise ParameterError(f"{arguments.folder}: a file of that name exists; name a folder")
    from editorbot_core.base.progress import ProgressBars
    from editorbot_core.songs.demo.songs import compose_demo_songs

    paths = compose_demo_songs(
        arguments.folder, n_songs=arguments.n_songs, seed=arguments.seed, progress=ProgressBars()
    )
    say(f"{len(paths)} songs with annotations in {arguments.folder}")
