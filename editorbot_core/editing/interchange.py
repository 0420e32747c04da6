"""Edit decision lists as files, for people and other programs.

JSON of schema `editorbot.edl/1` holds all of an edit and converts back exactly. Its `segments` are half-open ranges
`[start_s, end_s)` of the source in output order, which is all a player needs. Audacity labels and cue sheets are for
looking at an edit in other programs; they cannot be read back.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from editorbot_core.analysis.beats.grid import MAX_BEATS, BeatGrid, Units
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.files import read_json, write_json, write_text
from editorbot_core.editing.edits import EditDecisionList

SCHEMA = "editorbot.edl/1"

MAX_SEGMENTS = 200_000
MAX_ENTRIES = 64
MAX_NAME = 200
MAX_TEXT = 4096
MAX_FILE_BYTES = 64 * 2**20
# Segments and stated duration may differ by the rounding of a sum.
_DURATION_SLACK_S = 1e-3
_CUE_FRAMES_PER_S = 75
_CUE_MAX_TRACKS = 99

_KEYS = (
    "schema",
    "track_id",
    "source",
    "target",
    "duration_s",
    "actions",
    "unit_id",
    "grid",
    "segments",
    "model",
    "scores",
)


def edl_to_dict(edl: EditDecisionList) -> dict[str, Any]:
    """The EDL as a document of schema `editorbot.edl/1`: plain values that JSON can hold.

    Raises:
        FormatError: If the EDL holds what the schema does not allow, such as a model entry that is not a plain value.
    """
    document = {
        "schema": SCHEMA,
        "track_id": edl.track_id,
        "source": {"path": edl.source_path, "sha256": edl.source_sha256, "duration_s": float(edl.grid.duration)},
        "target": {"duration_s": float(edl.target_duration_s)},
        "duration_s": edl.duration_s,
        "actions": edl.actions.tolist(),
        "unit_id": edl.units.unit_id.tolist(),
        "grid": {
            "times_s": edl.grid.times.tolist(),
            "positions": edl.grid.positions.tolist(),
            "confidence": float(edl.grid.confidence),
        },
        "segments": [_segment_to_dict(segment) for segment in edl.segments],
        "model": dict(edl.model),
        "scores": {name: float(value) for name, value in edl.scores.items()},
    }
    edl_from_dict(document)
    return document


def _segment_to_dict(segment: Segment) -> dict[str, float]:
    row = {
        "start_s": float(segment.start_s),
        "end_s": float(segment.end_s),
        "gain_db": float(segment.gain_db),
        "crossfade_ms": float(segment.crossfade_ms),
    }
    if segment.fade_out_s:
        row["fade_out_s"] = float(segment.fade_out_s)
    return row


def edl_from_dict(document: object) -> EditDecisionList:
    """The EDL that `edl_to_dict` made a document of.

    Raises:
        FormatError: If a field is missing, unknown, of another type, out of range or too long; the message names it.
    """
    whole = _mapping(document, "document", required=_KEYS)
    if whole["schema"] != SCHEMA:
        raise FormatError(f"schema: expected {SCHEMA!r}, got {_shown(whole['schema'])}")
    source = _mapping(whole["source"], "source", required=("path", "sha256", "duration_s"))
    target = _mapping(whole["target"], "target", required=("duration_s",))
    grid = _mapping(whole["grid"], "grid", required=("times_s", "positions", "confidence"))
    segments = tuple(
        _segment_from_dict(row, f"segments[{i}]")
        for i, row in enumerate(_list(whole["segments"], "segments", MAX_SEGMENTS))
    )
    if not segments:
        raise FormatError("segments: an edit needs at least one")
    duration_s = _number(whole["duration_s"], "duration_s")
    try:
        edl = EditDecisionList(
            track_id=_text(whole["track_id"], "track_id", MAX_NAME),
            source_path=_text(source["path"], "source.path"),
            source_sha256=_text(source["sha256"], "source.sha256", MAX_NAME),
            grid=BeatGrid(
                times=_numbers(grid["times_s"], "grid.times_s"),
                positions=_integers(grid["positions"], "grid.positions"),
                duration=_number(source["duration_s"], "source.duration_s"),
                confidence=_number(grid["confidence"], "grid.confidence"),
            ),
            units=Units(_integers(whole["unit_id"], "unit_id")),
            actions=_integers(whole["actions"], "actions"),
            segments=segments,
            target_duration_s=_number(target["duration_s"], "target.duration_s"),
            model=_plain_entries(whole["model"]),
            scores={
                _text(name, "scores", MAX_NAME): _number(value, f"scores.{_shown(name)}")
                for name, value in _mapping(whole["scores"], "scores").items()
            },
        )
    except ParameterError as error:
        raise FormatError(f"not a consistent edit: {error}") from error
    if abs(edl.duration_s - duration_s) > _DURATION_SLACK_S:
        raise FormatError(f"duration_s: {duration_s} is stated, but the segments add up to {edl.duration_s:.6f} s")
    return edl


def write_edl(path: Path | str, edl: EditDecisionList) -> None:
    """Write the EDL to `path` as JSON, in one step."""
    write_json(path, edl_to_dict(edl), indent=None)


def read_edl(path: Path | str) -> EditDecisionList:
    """Read the EDL at `path`.

    Raises:
        FormatError: If the file is missing, damaged, too large or not of schema `editorbot.edl/1`; names the file.
    """
    document = read_json(path, max_bytes=MAX_FILE_BYTES)
    try:
        return edl_from_dict(document)
    except FormatError as error:
        raise FormatError(f"{path}: not an edit decision list: {error}") from error


def audacity_labels(edl: EditDecisionList, *, timeline: Literal["output", "source"] = "output") -> str:
    """Segments as an Audacity label track: a line of start, end (s) and text per segment, separated by tabs.

    Args:
        edl: The edit.
        timeline: `output` puts the labels where segments are heard in the rendered edit and names where they come
            from; `source` puts them where they come from, in the original, and names where they are heard.
    """
    lines = []
    for i, (heard_s, segment) in enumerate(_heard_at(edl), start=1):
        heard, taken = (heard_s, heard_s + segment.duration_s), (segment.start_s, segment.end_s)
        (start, end), (other, _) = (heard, taken) if timeline == "output" else (taken, heard)
        lines.append(f"{start:.6f}\t{end:.6f}\t{i}: {'from' if timeline == 'output' else 'at'} {_clock(other)}\n")
    return "".join(lines)


def cue_sheet(edl: EditDecisionList, *, audio_name: str, title: str = "EditorBot edit") -> str:
    """A cue sheet for the rendered edit: a track per segment, indexed where the segment begins.

    Args:
        edl: The edit; at most 99 segments, which is what a cue sheet holds.
        audio_name: Name of the rendered file, without folders.
        title: Title of the sheet.

    Raises:
        ParameterError: If there are more than 99 segments, or a name cannot stand in a cue sheet.
    """
    if len(edl.segments) > _CUE_MAX_TRACKS:
        raise ParameterError(f"a cue sheet holds at most {_CUE_MAX_TRACKS} tracks; the edit has {len(edl.segments)}")
    for name in (audio_name, title):
        if not name or any(character == '"' or ord(character) < 32 for character in name):
            raise ParameterError(f"a name in a cue sheet has no quotes and no line breaks; got {name!r}")
    lines = [f'TITLE "{title}"', f'FILE "{audio_name}" WAVE']
    for i, (heard_s, segment) in enumerate(_heard_at(edl), start=1):
        frames = round(heard_s * _CUE_FRAMES_PER_S)
        minutes, rest = divmod(frames, 60 * _CUE_FRAMES_PER_S)
        seconds, frames = divmod(rest, _CUE_FRAMES_PER_S)
        lines += [
            f"  TRACK {i:02d} AUDIO",
            f'    TITLE "{i}: from {_clock(segment.start_s)}"',
            f"    INDEX 01 {minutes:02d}:{seconds:02d}:{frames:02d}",
        ]
    return "\n".join(lines) + "\n"


def write_audacity_labels(
    path: Path | str, edl: EditDecisionList, *, timeline: Literal["output", "source"] = "output"
) -> None:
    """Write `audacity_labels` to `path` in one step."""
    write_text(path, audacity_labels(edl, timeline=timeline))


def write_cue_sheet(path: Path | str, edl: EditDecisionList, *, audio_name: str) -> None:
    """Write `cue_sheet` to `path` in one step."""
    write_text(path, cue_sheet(edl, audio_name=audio_name))


def _heard_at(edl: EditDecisionList) -> list[tuple[float, Segment]]:
    """Every segment with the instant of the output at which it begins, s."""
    starts = np.cumsum([0.0, *(segment.duration_s for segment in edl.segments)])
    return [(float(start), segment) for start, segment in zip(starts[:-1], edl.segments, strict=True)]


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s, 2), 60)
    return f"{int(minutes)}:{seconds:05.2f}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _mapping(value: object, where: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> Any:
    """`value` if it is an object with the required keys and no others; without `required`, with any few keys."""
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected an object, got {type(value).__name__}")
    if not required:
        if len(value) > MAX_ENTRIES:
            raise FormatError(f"{where}: at most {MAX_ENTRIES} entries, got {len(value)}")
        return value
    missing = [key for key in required if key not in value]
    unknown = [key for key in value if key not in required and key not in optional]
    if missing or unknown:
        what = f"no {missing[0]!r}" if missing else f"unknown field {_shown(unknown[0])}"
        raise FormatError(f"{where}: {what}; its fields are {', '.join(required + optional)}")
    return value


def _list(value: object, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(f"{where}: expected a list, got {type(value).__name__}")
    if len(value) > most:
        raise FormatError(f"{where}: at most {most} entries, got {len(value)}")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise FormatError(f"{where}: expected a finite number below 1e15, got {_shown(value)}")
    return float(value)


def _numbers(value: object, where: str) -> np.ndarray:
    rows = _list(value, where, MAX_BEATS)
    # Thousands of edits are read at once: rows are looked at one by one only if something is wrong with them.
    if set(map(type, rows)) == {float}:
        array = np.array(rows)
        if (np.abs(array) < 1e15).all():
            return array
    return np.array([_number(x, f"{where}[{i}]") for i, x in enumerate(rows)], dtype=np.float64)


def _integers(value: object, where: str) -> np.ndarray:
    rows = _list(value, where, MAX_BEATS)
    if set(map(type, rows)) == {int} and min(rows) >= 0 and max(rows) <= MAX_BEATS:
        return np.array(rows, dtype=np.int64)
    for i, x in enumerate(rows):
        if isinstance(x, bool) or not isinstance(x, int) or not 0 <= x <= MAX_BEATS:
            raise FormatError(f"{where}[{i}]: expected an integer from 0 to {MAX_BEATS}, got {_shown(x)}")
    return np.array(rows, dtype=np.int64)


def _text(value: object, where: str, most: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise FormatError(f"{where}: expected text of at most {most} characters, got {_shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"{where}: {_shown(value)} is not text that UTF-8 can hold") from error
    return value


def _plain_entries(value: object) -> Mapping[str, object]:
    """The `model` object: names to texts, numbers, booleans or nulls."""
    entries = _mapping(value, "model")
    for name, item in entries.items():
        _text(name, "model", MAX_NAME)
        where = f"model.{_shown(name)}"
        if isinstance(item, str):
            _text(item, where)
        elif item is not None and not isinstance(item, bool):
            _number(item, where)
    return dict(entries)


def _segment_from_dict(value: object, where: str) -> Segment:
    row = _mapping(value, where, required=("start_s", "end_s", "gain_db", "crossfade_ms"), optional=("fade_out_s",))
    try:
        return Segment(**{key: _number(item, f"{where}.{key}") for key, item in row.items()})
    except ParameterError as error:
        raise FormatError(f"{where}: {error}") from error
