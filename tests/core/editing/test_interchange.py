import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.editing.interchange import (
    MAX_BEATS,
    audacity_labels,
    cue_sheet,
    edl_from_dict,
    edl_to_dict,
    read_edl,
    write_audacity_labels,
    write_cue_sheet,
    write_edl,
)

DESIGN_KEYS = [
    "schema", "track_id", "source", "target", "duration_s", "actions", "unit_id", "grid", "segments", "model", "scores",
]  # fmt: skip


def make_edl(actions=(0, 1, 2, 0, 5, 0, 0), *, beat_s=0.5, offset_s=0.137, **changes):
    n = 4 * len(actions)
    grid = BeatGrid(offset_s + beat_s * np.arange(n), np.arange(n) % 4 + 1, offset_s + beat_s * n + 0.731, 0.93)
    return EditDecisionList.from_unit_actions(
        np.array(actions),
        grid=grid,
        units=Units.bars(grid),
        track_id="abc",
        source_path="Lied – ü.mp3",
        source_sha256="0f",
        target_duration_s=7.3,
        model={"name": "editorbot-policy", "version": "7", "seed": 3, "greedy": True, "note": None},
        **changes,
    ).with_scores(quality=81.25, reward=-0.1)


@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8]), min_size=1, max_size=12).filter(lambda a: set(a) != {1}),
    st.floats(0.2, 1.7),
    st.floats(0.0, 3.0),
)
@settings(max_examples=100, deadline=None)
def test_decoding_what_was_encoded_gives_the_same_edit(actions, beat_s, offset_s):
    edl = make_edl(tuple(actions), beat_s=beat_s, offset_s=offset_s)
    assert edl_from_dict(json.loads(json.dumps(edl_to_dict(edl), allow_nan=False))) == edl


def test_a_file_reads_back_as_the_same_edit(tmp_path):
    segments = (Segment(0.1, 2.0, -3.0, 15.0), Segment(1.0, 5.1, crossfade_ms=0.0, fade_out_s=2.0))
    edl = replace(make_edl(), segments=segments)
    write_edl(tmp_path / "a.edl.json", edl)
    assert read_edl(tmp_path / "a.edl.json") == edl


def test_the_document_has_the_fields_that_other_programs_rely_on():
    document = edl_to_dict(make_edl())
    assert list(document) == DESIGN_KEYS
    assert document["schema"] == "editorbot.edl/1"
    assert list(document["source"]) == ["path", "sha256", "duration_s"]
    assert list(document["grid"]) == ["times_s", "positions", "confidence"]
    assert list(document["target"]) == ["duration_s"]
    assert all(list(row) == ["start_s", "end_s", "gain_db", "crossfade_ms"] for row in document["segments"])
    assert document["duration_s"] == pytest.approx(sum(r["end_s"] - r["start_s"] for r in document["segments"]))


def _set(path, value):
    def change(document):
        *parents, last = path
        for key in parents:
            document = document[key]
        document[last] = value

    return change


def _drop(path):
    def change(document):
        *parents, last = path
        for key in parents:
            document = document[key]
        del document[last]

    return change


FAULTS = {
    "another schema": (_set(["schema"], "editorbot.edl/2"), "schema"),
    "no schema": (_drop(["schema"]), "schema"),
    "unknown field": (_set(["audio"], "x"), "unknown field 'audio'"),
    "unknown segment field": (_set(["segments", 0, "pan"], 0.0), r"segments\[0\].*pan"),
    "unknown grid field": (_set(["grid", "tempo"], 120.0), "grid.*tempo"),
    "missing unit ids": (_drop(["unit_id"]), "unit_id"),
    "missing segment start": (_drop(["segments", 0, "start_s"]), r"segments\[0\].*start_s"),
    "number as text": (_set(["target", "duration_s"], "90"), "target.duration_s"),
    "truth as number": (_set(["target", "duration_s"], True), "target.duration_s"),
    "nan": (_set(["duration_s"], math.nan), "duration_s"),
    "infinity": (_set(["segments", 1, "end_s"], math.inf), r"segments\[1\].end_s"),
    "huge integer": (_set(["grid", "times_s", 3], 10**400), r"grid.times_s\[3\]"),
    "boolean action": (_set(["actions", 2], True), r"actions\[2\]"),
    "float action": (_set(["actions", 2], 0.0), r"actions\[2\]"),
    "negative action": (_set(["actions", 0], -1), r"actions\[0\]"),
    "reserved action": (_set(["actions"], [9] * 28), "0-8"),
    "actions unlike their unit": (_set(["actions", 1], 1), "beat 1"),
    "unit ids with a gap": (_set(["unit_id", 27], 9), "unit ids"),
    "too few actions": (_set(["actions"], [0] * 27), "28"),
    "times that fall": (_set(["grid", "times_s", 3], 0.0), "increasing"),
    "milliseconds": (_set(["source", "duration_s"], 0.001), "milliseconds"),
    "confidence above 1": (_set(["grid", "confidence"], 1.5), "confidence"),
    "segment beyond the end": (_set(["segments", 0, "end_s"], 1e6), "after the source"),
    "reversed segment": (_set(["segments", 0, "end_s"], 0.0), r"segments\[0\]"),
    "no segments": (_set(["segments"], []), "at least one"),
    "segments as object": (_set(["segments"], {}), "segments"),
    "duration that does not add up": (_set(["duration_s"], 4.0), "add up"),
    "target of zero": (_set(["target", "duration_s"], 0), "target"),
    "track id as number": (_set(["track_id"], 7), "track_id"),
    "long track id": (_set(["track_id"], "x" * 300), "track_id"),
    "lone surrogate": (_set(["source", "path"], "\ud800"), "source.path"),
    "nested model": (_set(["model", "name"], {"a": 1}), "model"),
    "many scores": (_set(["scores"], {str(i): 1.0 for i in range(100)}), "scores"),
    "score as text": (_set(["scores", "quality"], "high"), "scores.*quality"),
    "too many beats": (_set(["actions"], [0] * (MAX_BEATS + 1)), "actions: at most"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_document_is_refused_by_the_name_of_its_field(name):
    document = edl_to_dict(make_edl())
    change, match = FAULTS[name]
    change(document)
    with pytest.raises(FormatError, match=match):
        edl_from_dict(document)


@pytest.mark.parametrize("document", [None, [], "edl", 3, {}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(FormatError, match="document"):
        edl_from_dict(document)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"schema": NaN}', b"[" * 100_000, b"{}"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, content):
    path = tmp_path / "song.edl.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"song\.edl\.json"):
        read_edl(path)
    with pytest.raises(FormatError, match=r"none\.json"):
        read_edl(tmp_path / "none.json")


def test_what_the_schema_cannot_hold_is_refused_when_writing(tmp_path):
    with pytest.raises(FormatError, match="model"):
        write_edl(tmp_path / "a.json", replace(make_edl(), model={"weights": [1, 2]}))
    with pytest.raises(FormatError, match="reward"):
        write_edl(tmp_path / "a.json", make_edl().with_scores(reward=math.nan))
    assert not list(tmp_path.iterdir())


def test_labels_stand_where_segments_are_heard_or_taken_from(tmp_path):
    edl = make_edl((0, 1, 0), beat_s=0.5, offset_s=0.0)
    heard = [line.split("\t") for line in audacity_labels(edl).splitlines()]
    assert [(float(start), float(end)) for start, end, _ in heard] == [(0.0, 2.0), (2.0, 4.731)]
    assert [text for _, _, text in heard] == ["1: from 0:00.00", "2: from 0:04.00"]
    taken = [line.split("\t") for line in audacity_labels(edl, timeline="source").splitlines()]
    assert [(float(start), float(end)) for start, end, _ in taken] == [(0.0, 2.0), (4.0, 6.731)]
    assert [text for _, _, text in taken] == ["1: at 0:00.00", "2: at 0:02.00"]
    write_audacity_labels(tmp_path / "labels.txt", edl)
    assert (tmp_path / "labels.txt").read_text() == audacity_labels(edl)


def test_a_cue_sheet_indexes_where_segments_begin(tmp_path):
    edl = make_edl((0, 1, 0), beat_s=0.5, offset_s=0.0)
    sheet = cue_sheet(edl, audio_name="edited.wav").splitlines()
    assert sheet[1] == 'FILE "edited.wav" WAVE'
    assert [line.strip() for line in sheet if "INDEX" in line] == ["INDEX 01 00:00:00", "INDEX 01 00:02:00"]
    assert [line.strip() for line in sheet if "TRACK" in line] == ["TRACK 01 AUDIO", "TRACK 02 AUDIO"]
    write_cue_sheet(tmp_path / "a.cue", edl, audio_name="edited.wav")
    assert (tmp_path / "a.cue").read_text() == cue_sheet(edl, audio_name="edited.wav")
    with pytest.raises(ParameterError, match="quotes"):
        cue_sheet(edl, audio_name='a".wav')
    with pytest.raises(ParameterError, match="99"):
        cue_sheet(make_edl((0, *([4] * 60), 0)), audio_name="edited.wav")
