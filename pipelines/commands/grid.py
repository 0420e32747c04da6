"""The command `editorbot grid`: show the beats of a song, and correct them.

Options given together are applied in the order --file, --tempo, --metre, --shift, each to the result of the one before;
later commands apply to the corrected grid. `analysis.beats.corrections` stores the result.
"""

import argparse
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from editorbot_core.analysis.names import add_tracker, check_tracker
from editorbot_core.base.console import say
from editorbot_core.base.errors import AudioError, FormatError, ParameterError
from editorbot_core.base.files import path_to_text, text_to_path
from editorbot_core.base.home import corrections_folder, home_folder

if TYPE_CHECKING:
    from editorbot_core.analysis.beats.corrections import Correction
    from editorbot_core.analysis.beats.grid import BeatGrid
    from editorbot_core.analysis.features.extraction import DecodedSong

_N_FIRST_BEATS = 8
_REGIONS_PER_LINE = 6


class _SongFile:
    """One audio file and its grids; it is decoded only if it has to be."""

    def __init__(self, path: Path, home: Path, tracker: str) -> None:
        self.path = path
        self.home = home
        self.tracker = tracker
        from editorbot_core.analysis.beats.trackers import tracker_version
        from editorbot_core.audio.files import sha256_audio

        self.version = tracker_version(tracker)
        self.sha256 = sha256_audio(path)

    @cached_property
    def decoded(self) -> "DecodedSong":
        """The song, decoded."""
        from editorbot_core.analysis.beats.trackers import needs_samples
        from editorbot_core.analysis.features.extraction import decode_song

        song = decode_song(self.path, keep_samples=needs_samples(self.tracker))
        if song.sha256 != self.sha256:
            raise AudioError(f"{path_to_text(self.path)}: the file was changed while it was read; try again")
        return song

    @cached_property
    def tracked(self) -> "BeatGrid":
        """The tracker's grid, from the store if the song was ingested."""
        from editorbot_core.analysis.beats.trackers import find_beats
        from editorbot_core.analysis.features.table import read_features
        from editorbot_core.songs.ingestion import features_path

        try:
            stored = read_features(features_path(self.home, self.sha256))
            if stored.metadata.get("grid_version") == self.version and stored.metadata["sha256"] == self.sha256:
                return stored.features.grid
        except (FormatError, KeyError):
            # Not ingested, or to be ingested again: the beats are tracked here.
            pass
        return find_beats(self.tracker, self.decoded.frames, self.decoded.samples)

    @property
    def correction(self) -> "Correction | None":
        """What a person said of it so far."""
        from editorbot_core.analysis.beats.corrections import load_correction

        return load_correction(corrections_folder(self.home), self.sha256)


def corrected(song: _SongFile, arguments: argparse.Namespace) -> "Correction":
    """The correction that results from what the command line says."""
    from editorbot_core.analysis.beats.corrections import (
        Correction,
        read_grid_file,
        with_double_tempo,
        with_half_tempo,
        with_metre,
        with_shifted_downbeat,
    )

    before = None if arguments.file is not None else song.correction
    said, tracker = ([*before.said], before.tracker) if before else ([], song.version)
    if arguments.file is not None:
        grid = read_grid_file(arguments.file, duration_s=song.decoded.frames.duration_s)
        said, tracker = [f"file {path_to_text(arguments.file.name)}"], ""
    else:
        grid = before.grid if before else song.tracked
    if arguments.tempo == "x2":
        grid = with_double_tempo(grid)
        said.append("tempo x2")
    elif arguments.tempo == "/2":
        grid = with_half_tempo(grid, song.decoded.frames, keep=arguments.keep)
        said.append("tempo /2" + (f" keep {arguments.keep}" if arguments.keep else ""))
    if arguments.metre is not None:
        grid = with_metre(grid, song.decoded.frames, arguments.metre)
        said.append(f"metre {arguments.metre}")
    if arguments.shift is not None:
        grid = with_shifted_downbeat(grid, arguments.shift)
        said.append(f"shift {arguments.shift:+d}")
    return Correction(song.sha256, path_to_text(song.path.absolute()), grid, tuple(said), tracker)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def describe(grid: "BeatGrid", source: str) -> list[str]:
    """Lines that tell a person about a grid.

    Args:
        grid: The grid.
        source: Where its beats come from.
    """
    downbeats = grid.downbeats
    bars = f"{grid.metre} beats per bar, {len(downbeats)} bars" + (
        f", the first from {downbeats[0]:.2f} s" if len(downbeats) else ""
    )
    first = zip(grid.times[:_N_FIRST_BEATS], grid.positions[:_N_FIRST_BEATS], strict=True)
    parts = grid.regions if grid.region_confidence is not None else ()
    regions = [f"{_clock(region.start_s)} {region.confidence:.2f}" for region in parts]
    return [
        f"beats       {source}",
        f"tempo       {grid.tempo:.1f} beats per minute, {grid.n_beats} beats in {grid.duration:.1f} s",
        f"metre       {bars}",
        f"confidence  {grid.confidence:.2f}",
        *(
            f"{'  regions' if i == 0 else '':12}{'   '.join(regions[i : i + _REGIONS_PER_LINE])}"
            for i in range(0, len(regions), _REGIONS_PER_LINE)
        ),
        f"first beats {'  '.join(f'{time:.2f} s: {position}' for time, position in first)}",
    ]


def _source(correction: "Correction") -> str:
    origin = f", of the beats of {correction.tracker}" if correction.tracker else ""
    return f"corrected by a person: {', '.join(correction.said)}{origin}"


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


def _say_all(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


def _list(folder: Path) -> None:
    from editorbot_core.analysis.beats.corrections import list_corrections

    corrections = list_corrections(folder)
    for correction in corrections:
        say(f"{correction.track_id}  {correction.path}  {', '.join(correction.said)}")
    say(f"corrections: {len(corrections)}, in {folder}")


def _clear(song: Path, folder: Path) -> None:
    from editorbot_core.analysis.beats.corrections import remove_correction
    from editorbot_core.audio.files import sha256_audio

    named = re.fullmatch(r"[0-9a-f]{16}", str(song)) and not song.exists()
    if not remove_correction(folder, str(song) if named else sha256_audio(song)):
        raise ParameterError(f"{path_to_text(song)}: there is no correction to clear; --list shows those there are")
    say(f"{path_to_text(song)}: the correction is deleted; the tracker's beats are used again")


def run(arguments: argparse.Namespace) -> None:
    """Show, correct, list or clear."""
    home = (arguments.home or home_folder()).expanduser().resolve()
    folder = corrections_folder(home)
    changes = [name for name in ("tempo", "metre", "shift", "file") if getattr(arguments, name) is not None]
    if arguments.keep is not None and arguments.tempo != "/2":
        raise ParameterError("--keep says which beats --tempo /2 keeps; give both")
    if arguments.list + arguments.clear + bool(changes) > 1:
        raise ParameterError("--list, --clear and corrections are given one at a time")
    if arguments.list:
        _list(folder)
        return
    if arguments.song is None:
        raise ParameterError("name a song, or --list")
    if arguments.clear:
        _clear(arguments.song, folder)
        return
    check_tracker(arguments.tracker)
    path = text_to_path(arguments.song)
    for wanted in (path, arguments.file):
        if wanted is not None and not wanted.exists():
            raise ParameterError(f"{path_to_text(wanted)}: no such file")
    song = _SongFile(path, home, arguments.tracker)
    if changes:
        from editorbot_core.analysis.beats.corrections import save_correction

        correction = corrected(song, arguments)
        save_correction(folder, correction)
        _say_all([path_to_text(song.path), *describe(correction.grid, _source(correction))])
        say("kept: `editorbot edit` uses it from here on, and the next `make run` analyses this song again")
        return
    found = song.correction
    grid = found.grid if found else song.tracked
    source = _source(found) if found else f"found by {song.version}"
    _say_all([path_to_text(song.path), *describe(grid, source)])
