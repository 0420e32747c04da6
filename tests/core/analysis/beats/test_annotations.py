"""Annotations are read whole or refused, and found beside the song."""

import json
from pathlib import Path

import pytest

from editorbot_core.analysis.beats.annotations import SCHEMA, find_annotation, load_annotation
from editorbot_core.base.errors import FormatError


def document(**changes: object) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "id": "song",
        "duration_s": 8.0,
        "beats": [0.5, 1.0, 1.5],
        "beat_in_bar": [1, 2, 3],
        "sections": [{"start_s": 0.5, "end_s": 7.0, "label": "A"}],
        **changes,
    }


@pytest.mark.parametrize("audio", ["song.ogg", "song.band.ogg", "song.a.b.flac"])
def test_the_annotation_beside_a_song_is_found(tmp_path: Path, audio: str) -> None:
    (tmp_path / "song.json").write_text(json.dumps(document()))
    found = find_annotation(tmp_path / audio)
    assert found == tmp_path / "song.json"
    annotation = load_annotation(found)
    assert (annotation.track_id, annotation.grid.n_beats, annotation.sections[0].label) == ("song", 3, "A")
    assert find_annotation(tmp_path / "other.ogg") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other/1"}, "schema is 'other/1'"),
        ({"beats": [1.0, 0.5, 2.0]}, "strictly increasing"),
        ({"beats": [100.0, 200.0, 3000.0]}, "milliseconds"),
        ({"beat_in_bar": [1, 2]}, "one position per beat"),
        ({"sections": [{"start_s": 3.0, "end_s": 2.0, "label": "A"}]}, "not a range"),
        ({"sections": None}, "not an annotation"),
    ],
)
def test_what_is_not_an_annotation_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "song.json"
    path.write_text(json.dumps(document(**changes)))
    with pytest.raises(FormatError, match=message):
        load_annotation(path)
