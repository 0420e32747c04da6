"""Annotations: true beats and phrases, written by a person or by the program that composed a demo song.

Files are JSON of schema `editorbot.annotation/1`, one beside each song. Times are seconds from the start of the audio;
bar positions count from 1, the downbeat.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.base.errors import EditorBotError, FormatError
from editorbot_core.base.files import read_json

SCHEMA = "editorbot.annotation/1"


@dataclass(frozen=True)
class Section:
    """A phrase `[start_s, end_s)`, s; phrases of a song with the same label have the same material."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class Annotation:
    """The truth about one song.

    Attributes:
        track_id: The annotation's own id of the song.
        grid: True beats and bar positions.
        sections: Phrases by the first annotator, in order, beginning on downbeats.
        sections_alt: Phrases by the second annotator, or empty.
    """

    track_id: str
    grid: BeatGrid
    sections: tuple[Section, ...]
    sections_alt: tuple[Section, ...] = ()


def _sections(rows: Any) -> tuple[Section, ...]:
    sections = tuple(Section(float(row["start_s"]), float(row["end_s"]), str(row["label"])) for row in rows)
    for section in sections:
        if not 0 <= section.start_s < section.end_s:
            raise FormatError(f"{section} is not a range")
    return sections


def load_annotation(path: Path | str) -> Annotation:
    """Read the annotation at `path`.

    Raises:
        FormatError: If the file is missing or not of schema `editorbot.annotation/1`.

    Examples:
        The smallest annotation: one bar of four beats, and one phrase.

        >>> import json
        >>> from tempfile import TemporaryDirectory
        >>> document = {
        ...     "schema": "editorbot.annotation/1",
        ...     "id": "scale",
        ...     "duration_s": 2.5,
        ...     "beats": [0.0, 0.5, 1.0, 1.5],
        ...     "beat_in_bar": [1, 2, 3, 4],
        ...     "sections": [{"start_s": 0.0, "end_s": 2.0, "label": "A"}],
        ... }
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "scale.json")
        ...     _ = path.write_text(json.dumps(document))
        ...     annotation = load_annotation(path)
        >>> annotation.grid.tempo, annotation.sections
        (120.0, (Section(start_s=0.0, end_s=2.0, label='A'),))
    """
    document = read_json(path)
    try:
        if document["schema"] != SCHEMA:
            raise FormatError(f"schema is {document['schema']!r}, expected {SCHEMA!r}")
        return Annotation(
            track_id=str(document["id"]),
            grid=BeatGrid(
                times=np.asarray(document["beats"], dtype=np.float64),
                positions=np.asarray(document["beat_in_bar"], dtype=np.int64),
                duration=float(document["duration_s"]),
            ),
            sections=_sections(document["sections"]),
            sections_alt=_sections(document.get("sections_alt") or ()),
        )
    except (KeyError, TypeError, ValueError, EditorBotError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{path}: not an annotation: {reason}") from error


def find_annotation(audio_path: Path | str) -> Path | None:
    """The annotation beside an audio file, or None: `song.json` for `song.ogg`, and also for `song.band.ogg`."""
    audio_path = Path(audio_path)
    stem = audio_path.name
    while "." in stem:
        stem = stem.rsplit(".", 1)[0]
        candidate = audio_path.with_name(stem + ".json")
        if stem and candidate.is_file():
            return candidate
    return None
