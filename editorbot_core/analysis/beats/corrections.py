"""People's corrections of beats. A correction always overrides the tracker.

A correction stores the resulting beats and positions, so that no later tracker changes them, together with the changes
that were asked for and the tracker they were applied to, so that it can be explained. Later changes apply to the
corrected grid.

Corrections are files `<track id>.json` in the folder of local results, not beside the audio: the folder of a song may
be read-only, a JSON file of the song's name is the user's own annotation, and a track id still identifies a song that
was renamed or moved.

Times are seconds from the start of the audio file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editorbot_core.analysis.beats.annotations import SCHEMA as ANNOTATION_SCHEMA
from editorbot_core.analysis.beats.grid import MAX_BEATS, MIN_BEATS, BeatGrid, positions_from_downbeats
from editorbot_core.analysis.beats.tracking import grid_of_beats
from editorbot_core.analysis.dsp.frames import FrameFeatures
from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError, StoreError
from editorbot_core.base.files import path_to_text, read_json, sha256_file, write_json

# Recorded instead of the name of a tracker for grids that a person corrected.
CORRECTION = "correction"

# Tempos that a corrected grid may have, beats per minute.
TEMPO_RANGE = (20.0, 400.0)

_SCHEMA = "editorbot.correction/1"
_KEYS = {"schema", "sha256", "path", "tracker", "said", "duration_s", "beats", "beat_in_bar"}
_MAX_BYTES = 16 * 2**20
_MAX_POSITION = 64
_TRACK_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Correction:
    """One person's correction of the beats of one song.

    Attributes:
        sha256: Digest of the audio file.
        path: Where it was at the time, as text (`base.files.path_to_text`).
        grid: The resulting beats, with confidence 1.
        said: The changes in the order in which they were applied, such as "tempo x2" or "shift +1".
        tracker: Version of the tracker whose beats were changed first; "" if the beats came from a file.
    """

    sha256: str
    path: str
    grid: BeatGrid
    said: tuple[str, ...]
    tracker: str = ""

    @property
    def track_id(self) -> str:
        """Content id of the song."""
        return self.sha256[:16]


def correction_path(folder: Path, sha256: str) -> Path:
    """Path of the correction of a song."""
    return folder / f"{sha256[:16]}.json"


def correction_version(folder: Path, sha256: str) -> str:
    """Version of a corrected grid, "correction-" and a digest; "" for a song without correction."""
    path = correction_path(folder, sha256)
    return f"{CORRECTION}-{sha256_file(path)[:16]}" if sha256 and path.is_file() else ""


def load_correction(folder: Path, sha256: str) -> Correction | None:
    """The correction of a song, or None.

    Raises:
        FormatError: If it is damaged or of another song; a correction is never ignored silently.
    """
    path = correction_path(folder, sha256)
    if not path.is_file():
        return None
    correction = _read_correction(path)
    if correction.sha256 != sha256:
        raise FormatError(f"{path}: a correction of another song; {_remedy(path)}")
    return correction


def list_corrections(folder: Path) -> list[Correction]:
    """All corrections, sorted by the path of their song.

    Raises:
        FormatError: If one is damaged.
    """
    paths = [path for path in folder.glob("*.json") if _TRACK_ID.fullmatch(path.stem)]
    return sorted(
        (_read_correction(path) for path in paths), key=lambda correction: (correction.path, correction.sha256)
    )


def save_correction(folder: Path, correction: Correction) -> None:
    """Store a correction; it replaces an earlier one of the same song.

    Raises:
        StoreError: If the folder cannot be written.
    """
    document = {
        "schema": _SCHEMA,
        "sha256": correction.sha256,
        "path": correction.path,
        "tracker": correction.tracker,
        "said": list(correction.said),
        "duration_s": correction.grid.duration,
        "beats": correction.grid.times.tolist(),
        "beat_in_bar": correction.grid.positions.tolist(),
    }
    try:
        write_json(correction_path(folder, correction.sha256), document, indent=None)
    except OSError as error:
        raise StoreError(
            f"{folder}: corrections cannot be saved there: {error.strerror}; name another --home"
        ) from error


def remove_correction(folder: Path, sha256: str) -> bool:
    """Delete the correction of a song, named by its digest or track id; return whether there was one.

    Raises:
        StoreError: If the folder cannot be written.
    """
    path = correction_path(folder, sha256)
    if not path.is_file():
        return False
    try:
        path.unlink()
    except OSError as error:
        raise StoreError(f"{path}: cannot be removed: {error.strerror}") from error
    return True


def _remedy(path: Path) -> str:
    return f"`editorbot grid {path.stem} --clear` removes it"


def _read_correction(path: Path) -> Correction:
    try:
        document = read_json(path, max_bytes=_MAX_BYTES)
        if document["schema"] != _SCHEMA or set(document) != _KEYS:
            raise ValueError(f"not the keys of schema {_SCHEMA}")
        for key in ("sha256", "path", "tracker"):
            if not isinstance(document[key], str):
                raise ValueError(f"{key} is not text")
        if not document["sha256"].startswith(path.stem) or not re.fullmatch(r"[0-9a-f]{64}", document["sha256"]):
            raise ValueError(f"sha256 is {document['sha256']!r}")
        said = document["said"]
        if not isinstance(said, list) or not all(isinstance(word, str) for word in said):
            raise ValueError("said is not a list of texts")
        grid = _checked_grid(document["beats"], document["beat_in_bar"], duration_s=float(document["duration_s"]))
        return Correction(document["sha256"], document["path"], grid, tuple(said), document["tracker"])
    except (KeyError, TypeError, ValueError, EditorBotError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).removeprefix(f"{path}: ")
        raise FormatError(f"{path}: not a correction: {reason}; {_remedy(path)}") from error


def _checked_grid(beats: Any, positions: Any, *, duration_s: float) -> BeatGrid:
    """The grid, if it is plausible as a correction.

    Raises:
        ParameterError: If it has fewer than four beats, no downbeat, or a tempo outside `TEMPO_RANGE`.
    """
    times, places = np.asarray(beats, dtype=np.float64), np.asarray(positions)
    whole = places.dtype.kind in "iu" or (
        places.dtype.kind == "f" and (np.abs(places) == np.round(np.abs(places))).all()
    )
    if not whole or not np.isfinite(places).all():
        raise ParameterError("positions in the bar must be whole numbers, 1 for the downbeat")
    if len(times) > MAX_BEATS:
        raise ParameterError(f"{len(times)} beats; at most {MAX_BEATS} are read")
    if len(times) < MIN_BEATS:
        raise ParameterError(f"{len(times)} beats; a song has at least {MIN_BEATS}")
    grid = BeatGrid(times, places.astype(np.int64), duration=duration_s)
    if not (grid.positions == 1).any() or grid.positions.max() > _MAX_POSITION:
        raise ParameterError(
            f"positions count from 1, the downbeat, to at most {_MAX_POSITION}, and a downbeat must occur"
        )
    low, high = TEMPO_RANGE
    if not low <= grid.tempo <= high:
        raise ParameterError(f"the tempo would be {grid.tempo:.1f} beats per minute, outside {low:g} to {high:g}")
    return grid


def with_double_tempo(grid: BeatGrid) -> BeatGrid:
    """The grid with a beat added in the middle of every interval; downbeats stay, and each bar becomes two.

    Raises:
        ParameterError: If the tempo would be too fast.
    """
    n, metre = grid.n_beats, grid.metre
    times = np.empty(2 * n)
    times[::2] = grid.times
    times[1:-1:2] = 0.5 * (grid.times[1:] + grid.times[:-1])
    times[-1] = grid.times[-1] + 0.5 * (grid.times[-1] - grid.times[-2]) if n > 1 else np.inf
    positions = np.empty(2 * n, dtype=np.int64)
    positions[::2] = 2 * (grid.positions - 1) % metre + 1
    positions[1::2] = (2 * (grid.positions - 1) + 1) % metre + 1
    inside = times < grid.duration - 1e-3
    return _checked_grid(times[inside], positions[inside], duration_s=grid.duration)


def with_half_tempo(grid: BeatGrid, frames: FrameFeatures, *, keep: int | None = None) -> BeatGrid:
    """Every second beat of the grid, in bars of as many beats as before, whose downbeats are found from the audio.

    Args:
        grid: The beats.
        frames: Frame features of the song.
        keep: 1 to keep the first beat, 2 to keep the second; None for the likelier.

    Raises:
        ParameterError: If too few beats would be left, or the tempo would be too slow.
    """
    if grid.n_beats < 2 * MIN_BEATS:
        raise ParameterError(f"{grid.n_beats} beats; every second of them would be fewer than {MIN_BEATS}")
    metres = (max(grid.metre, 2),)
    offsets = (0, 1) if keep is None else (keep - 1,)
    readings = [grid_of_beats(grid.times[offset::2], frames, metres=metres) for offset in offsets]
    best = max(readings, key=lambda reading: reading.score).grid
    return _checked_grid(best.times, best.positions, duration_s=grid.duration)


def with_metre(grid: BeatGrid, frames: FrameFeatures, metre: int) -> BeatGrid:
    """The same beats in bars of `metre`, whose downbeats are found from the audio; unchanged if that is the metre."""
    if grid.metre == metre:
        return _checked_grid(grid.times, grid.positions, duration_s=grid.duration)
    positions = grid_of_beats(grid.times, frames, metres=(metre,)).grid.positions
    return _checked_grid(grid.times, positions, duration_s=grid.duration)


def with_shifted_downbeat(grid: BeatGrid, n_beats: int) -> BeatGrid:
    """The same beats with every downbeat moved `n_beats` later (earlier if negative).

    Raises:
        ParameterError: If that is 0 or not less than a bar.

    Examples:
        >>> grid = BeatGrid(np.arange(1.0, 5.0, 0.5), np.array([1, 2, 3, 4, 1, 2, 3, 4]), duration=6.0)
        >>> with_shifted_downbeat(grid, 1).positions
        array([4, 1, 2, 3, 4, 1, 2, 3])
    """
    metre = grid.metre
    if not 0 < abs(n_beats) < metre:
        raise ParameterError(
            f"a downbeat is shifted by less than a bar, 1 to {metre - 1} or -1 to -{metre - 1}; got {n_beats}"
        )
    downbeats = np.flatnonzero(grid.positions == 1)
    # Include the downbeats just outside the song, which the shift may move into it.
    around = np.concatenate([[downbeats[0] - metre], downbeats, [downbeats[-1] + metre]]) + n_beats
    downbeats = around[(around >= 0) & (around < grid.n_beats)]
    if len(downbeats) == 0:
        raise ParameterError(f"no downbeat is left after a shift by {n_beats}; give the grid as a file")
    positions = positions_from_downbeats(downbeats, grid.n_beats, metre=metre)
    return _checked_grid(grid.times, positions, duration_s=grid.duration)


def read_grid_file(path: Path | str, *, duration_s: float) -> BeatGrid:
    """The grid in a file; a file with any fault is refused as a whole.

    Either JSON of schema `editorbot.annotation/1`, of which only `beats`, `beat_in_bar` and `duration_s` are read, or
    text with a line per beat: its time and its position in the bar, separated by blanks, tabs, commas or semicolons.
    Lines that begin with # and a first line of column names are skipped.

    Args:
        path: The file.
        duration_s: Length of the song, s.

    Raises:
        FormatError: If the file is missing or in neither format.
        ParameterError: If it does not fit the song.
    """
    path = Path(path)
    name = path_to_text(path)
    try:
        if path.suffix.lower() == ".json":
            beats, positions = _annotated_beats(path, duration_s)
        else:
            beats, positions = _beats_in_text(path)
        return _checked_grid(beats, positions, duration_s=duration_s)
    except ParameterError as error:
        raise ParameterError(f"{name}: not a grid of this song: {error}") from error
    except (KeyError, TypeError, ValueError, OSError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(getattr(error, "strerror", None) or error)
        raise FormatError(f"{name}: not a grid: {reason}") from error


def _annotated_beats(path: Path, duration_s: float) -> tuple[Any, Any]:
    document = read_json(path, max_bytes=_MAX_BYTES)
    if not isinstance(document, dict) or document.get("schema") != ANNOTATION_SCHEMA:
        raise ValueError(f"its schema is not {ANNOTATION_SCHEMA!r}")
    annotated_s = float(document.get("duration_s", duration_s))
    if not abs(annotated_s - duration_s) <= 1.0:
        raise ParameterError(f"it describes {annotated_s:.1f} s of audio; the song lasts {duration_s:.1f} s")
    return document["beats"], document["beat_in_bar"]


def _beats_in_text(path: Path) -> tuple[Sequence[float], Sequence[float]]:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes; at most {_MAX_BYTES} are read")
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        cells = re.split(r"[,;\s]+", line.strip().strip(",;"))
        if cells == [""] or cells[0].startswith("#"):
            continue
        try:
            time, position = map(float, cells)
        except ValueError as error:
            if number == 1 and not any(map(_is_number, cells)):
                continue
            raise ValueError(
                f"line {number} is {line[:60]!r}, expected two numbers: a time in seconds and a position in the bar"
            ) from error
        rows.append((time, position))
    return [time for time, _ in rows], [position for _, position in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
