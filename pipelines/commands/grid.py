"""The command `editorbot grid`: show the beats of a song, and correct them.

Options given together are applied in the order --file, --tempo, --metre, --shift, each to the result of the one before;
later commands apply to the corrected grid. `analysis.beats.corrections` stores the result.
"""

import argparse
from pathlib import Path

from editorbot_core.analysis.names import add_tracker, check_tracker
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import path_to_text, text_to_path
from editorbot_core.base.home import corrections_folder, home_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Show the beats of a song, or correct them. A correction is kept by the content of the song and always "
        "overrides the tracker until it is cleared. Options are applied in the order --file, --tempo, --metre, "
        "--shift, to the grid as it was corrected before, if it was."
    )
    add = parser.add_argument
    add("song", nargs="?", type=Path, metavar="SONG", help="audio file; with --clear also a track id from --list")
    add("--tempo", choices=("x2", "/2"), help="twice or half as many beats per minute")
    add(
        "--keep",
        type=int,
        choices=(1, 2),
        help="with --tempo /2: keep the first or the second of every two beats (default: chosen by the audio)",
    )
    add("--metre", type=int, choices=(3, 4), help="beats per bar; downbeats are found again")
    add("--shift", type=int, metavar="N", help="start every bar N beats later, or earlier: +1, +2, -1")
    add(
        "--file",
        type=Path,
        metavar="GRID",
        help="take beats and positions from a file: editorbot.annotation/1, or text "
        "with a time and a position per line",
    )
    add("--clear", action="store_true", help="delete the correction")
    add("--list", action="store_true", help="list all corrections")
    add_tracker(parser)
    add("--home", type=Path, metavar="DIR", help="folder of local results (default: EDITORBOT_HOME, else .editorbot)")


def run(arguments: argparse.Namespace) -> None:
    """Show, correct, list or clear."""
    home = (arguments.home or home_folder()).expanduser().resolve()
    changes = [name for name in ("tempo", "metre", "shift", "file") if getattr(arguments, name) is not None]
    if arguments.keep is not None and arguments.tempo != "/2":
        raise ParameterError("--keep says which beats --tempo /2 keeps; give both")
    if arguments.list + arguments.clear + bool(changes) > 1:
        raise ParameterError("--list, --clear and corrections are given one at a time")
    if arguments.song is None and not arguments.list:
        raise ParameterError("name a song, or --list")
    if not arguments.list and not arguments.clear:
        check_tracker(arguments.tracker)
        for path in (arguments.song, arguments.file):
            if path is not None and not text_to_path(path).exists():
                raise ParameterError(f"{path_to_text(path)}: no such file")
    from pipelines.grid import clear_correction, show_corrections, show_or_correct

    if arguments.list:
        show_corrections(corrections_folder(home))
    elif arguments.clear:
        clear_correction(arguments.song, corrections_folder(home))
    else:
        show_or_correct(text_to_path(arguments.song), home, arguments)
