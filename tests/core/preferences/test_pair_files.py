"""Pairs come back as they were written, or not at all."""

from dataclasses import replace

import pytest

from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.files import read_json, write_json
from editorbot_core.preferences.pair_files import read_pairs, write_pairs
from editorbot_core.preferences.preference import EditPair
from tests.core.preferences.conftest import make_pairs, write_song


def test_pairs_come_back_as_they_were_written(tmp_path):
    pairs = make_pairs(write_song(tmp_path), 4)
    write_pairs(tmp_path / "pairs.json", pairs, priorities=[0.25, 3, -1, 2])
    read = read_pairs(tmp_path / "pairs.json")
    assert [queued.pair for queued in read] == pairs
    assert [queued.priority for queued in read] == [0.25, 3.0, -1.0, 2.0]


def test_pairs_that_cannot_be_compared_are_not_written(tmp_path):
    song = write_song(tmp_path)
    pairs = make_pairs(song, 2)
    path = tmp_path / "pairs.json"
    with pytest.raises(ParameterError, match="occurs twice"):
        write_pairs(path, [pairs[0], pairs[0]])
    with pytest.raises(ParameterError, match="same segments"):
        write_pairs(path, [EditPair.of(pairs[0].a, pairs[0].a, origin="test")])
    with pytest.raises(ParameterError, match="finite"):
        write_pairs(path, pairs, priorities=[1.0, float("nan")])
    with pytest.raises(ParameterError, match="one for one"):
        write_pairs(path, pairs, priorities=[1.0])
    other = replace(pairs[0].b, source_sha256="0" * 64)
    with pytest.raises(ParameterError, match="one song"):
        write_pairs(path, [replace(pairs[0], b=other)])
    assert not path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: [],
        lambda d: {**d, "schema": "editorbot.edit_pairs/2"},
        lambda d: {**d, "more": 1},
        lambda d: {**d, "pairs": {}},
        lambda d: {**d, "pairs": [1]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "extra": 1}]},
        lambda d: {**d, "pairs": [{k: v for k, v in d["pairs"][0].items() if k != "b"}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "priority": "1"}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "priority": True}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "pair_id": 7}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "a": {}}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "b": d["pairs"][0]["a"]}]},
        lambda d: {**d, "pairs": [d["pairs"][0]] * 2},
    ],
)
def test_a_damaged_file_of_pairs_is_refused(tmp_path, damage):
    path = tmp_path / "pairs.json"
    write_pairs(path, make_pairs(write_song(tmp_path), 2))
    write_json(path, damage(read_json(path)))
    with pytest.raises(FormatError, match=r"pairs\.json"):
        read_pairs(path)
