"""The beats of one song: showing them, correcting them, and listing and clearing corrections."""

import argparse
import re
from functools import cached_property
from pathlib import Path

from editorbot_core.analysis.beats.corrections import (
    Correction,
    list_corrections,
    load_correction,
    read_grid_file,
    remove_correction,
    save_correction,
    with_double_tempo,
    with_half_tempo,
    with_metre,
    with_shifted_downbeat,
)
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.beats.trackers import find_beats, needs_samples, tracker_version
from editorbot_core.analysis.features.extraction import DecodedSong, decode_song
from editorbot_core.analysis.features.table import read_features
from editorbot_core.audio.files import sha256_audio
from editorbot_core.base.console import say
from editorbot_core.base.errors import AudioError, FormatError, ParameterError
from editorbot_core.base.files import path_to_text
from editorbot_core.base.home import corrections_folder
from editorbot_core.songs.ingestion import features_path

_N_FIRST_BEATS = 8
_REGIONS_PER_LINE = 6


class _SongFile:
    """One audio file and its grids; it is decoded only if it has to be."""

    def __init__(self, path: Path, home: Path, tracker: str) -> None:
        self.path = path
        self.home = home
        self.tracker = tracker
        self.version = tracker_version(tracker)
        self.sha256 = sha256_audio(path)

    @cached_property
    def decoded(self) -> DecodedSong:
        """The song, decoded."""
        song = decode_song(self.path, keep_samples=needs_samples(self.tracker))
        if song.sha256 != self.sha256:
            raise AudioError(f"{path_to_text(self.path)}: the file was changed while it was read; try again")
        return song

    @cached_property
    def tracked(self) -> BeatGrid:
        """The tracker's grid, from the store if the song was ingested."""
        try:
            stored = read_features(features_path(self.home, self.sha256))
            if stored.metadata.get("grid_version") == self.version and stored.metadata["sha256"] == self.sha256:
                return stored.features.grid
        except (FormatError, KeyError):
            # Not ingested, or to be ingested again: the beats are tracked here.
            pass
        return find_beats(self.tracker, self.decoded.frames, self.decoded.samples)

    @property
    def correction(self) -> Correction | None:
        """What a person said of it so far."""
        return load_correction(corrections_folder(self.home), self.sha256)


def corrected(song: _SongFile, arguments: argparse.Namespace) -> Correction:
    """The correction that results from what the command line says."""
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


def describe(grid: BeatGrid, source: str) -> list[str]:
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


def _source(correction: Correction) -> str:
    origin = f", of the beats of {correction.tracker}" if correction.tracker else ""
    return f"corrected by a person: {', '.join(correction.said)}{origin}"


def show_corrections(folder: Path) -> None:
    """List all corrections."""
    corrections = list_corrections(folder)
    for correction in corrections:
        say(f"{correction.track_id}  {correction.path}  {', '.join(correction.said)}")
    say(f"corrections: {len(corrections)}, in {folder}")


def clear_correction(song: Path, folder: Path) -> None:
    """Delete the correction of a song, named by its file or its track id."""
    named = re.fullmatch(r"[0-9a-f]{16}", str(song)) and not song.exists()
    if not remove_correction(folder, str(song) if named else sha256_audio(song)):
        raise ParameterError(f"{path_to_text(song)}: there is no correction to clear; --list shows those there are")
    say(f"{path_to_text(song)}: the correction is deleted; the tracker's beats are used again")


def show_or_correct(path: Path, home: Path, arguments: argparse.Namespace) -> None:
    """Apply the corrections of the command line, if there are any, and print the grid that results."""
    song = _SongFile(path, home, arguments.tracker)
    asked = any(value is not None for value in (arguments.file, arguments.tempo, arguments.metre, arguments.shift))
    correction = corrected(song, arguments) if asked else song.correction
    if correction and asked:
        save_correction(corrections_folder(home), correction)
    grid = correction.grid if correction else song.tracked
    source = _source(correction) if correction else f"found by {song.version}"
    for line in (path_to_text(song.path), *describe(grid, source)):
        say(line)
    if asked:
        say("kept: `editorbot edit` uses it from here on, and the next `make run` analyses this song again")
