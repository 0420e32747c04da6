"""Editors are compared over songs: the order that the baselines have, tables, wins, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.baselines import BASELINES, dp_bars, keep_all, one_cut, truncate_and_fade
from editorbot_core.evaluation.evaluate import Evaluation, evaluate
from tests.core.evaluation.conftest import bar_s, make_evaluation, phrased_song, shared_evaluation


def test_the_baselines_stand_in_the_order_they_should():
    calls = []
    evaluation = make_evaluation(progress=lambda *args: calls.append(args))
    quality = evaluation.table()["quality"]
    assert len(evaluation.rows) == 5 * (len(BASELINES) + 1)
    assert quality["keep_all"] == 0.0
    assert quality["truncate_fade"] + 10 < quality["one_cut"] < quality["knowing"]
    assert quality["dp_bars"] > quality["dp_beats"]
    assert calls[-1] == ("evaluate", 5, 5)
    assert evaluation.wins("knowing", "one_cut").share >= 0.8


def test_wins_are_antisymmetric_and_ties_are_halves():
    evaluation = shared_evaluation()
    for a in evaluation.editors:
        assert evaluation.wins(a, a) == (0.5, 0.5, 0.5, 5)
        for b in evaluation.editors:
            forth, back = evaluation.wins(a, b), evaluation.wins(b, a)
            assert forth.share + back.share == pytest.approx(1.0)
            assert forth.low <= forth.share <= forth.high
    with pytest.raises(ParameterError, match="no editor 'nobody'"):
        evaluation.wins("nobody", "one_cut")


def test_wins_count_songs_and_not_edits():
    rows = pd.DataFrame(
        [
            {"track_id": song, "target_ratio": ratio, "editor": editor, "quality": quality}
            for song, ratio, a, b in (("x", 0.3, 5, 3), ("x", 0.5, 0, 3), ("y", 0.3, 1, 0), ("y", 0.5, 1, 0))
            for editor, quality in (("a", a), ("b", b))
        ]
    )
    # a has the lower mean on x and the higher one on y, though it wins three edits of four.
    assert Evaluation(rows, ("a", "b")).wins("a", "b").share == 0.5


def test_the_table_can_be_read():
    text = shared_evaluation().text()
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["editor", "quality"]
    assert [line.split()[0] for line in lines[1:-1]] == [*BASELINES, "knowing"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == "5 songs at 0.666667 of their length, judged 5 by annotation"
    assert "clicks" not in lines[0]
    # Where nothing is joined there is no share of joins.
    assert " - " in lines[1]
    estimated = evaluate({"keep_all": keep_all}, [phrased_song(annotated=False)]).text()
    assert "1 by estimated beats and structure" in estimated


def test_summary_metrics_are_flat_and_finite():
    metrics = shared_evaluation().metrics("truncate_fade", prefix="eval/")
    assert metrics["eval/end_kept"] == 0.0
    assert "eval/bar_position_continues" not in metrics
    assert all(np.isfinite(value) for value in metrics.values())


def test_an_editor_that_fails_fails_the_evaluation():
    def broken(song, target_s):
        raise ValueError("out of ideas")

    with pytest.raises(ValueError, match="out of ideas") as caught:
        evaluate({"dp_bars": dp_bars, "broken": broken}, [phrased_song()])
    assert "editor 'broken', song 0000000000000000, ratio 0.5" in caught.value.__notes__


def test_there_has_to_be_something_to_evaluate():
    song = phrased_song()
    with pytest.raises(ParameterError, match="need editors, songs and ratios"):
        evaluate({"one_cut": one_cut}, [])
    with pytest.raises(ParameterError, match="ratios are shares"):
        evaluate({"one_cut": one_cut}, [song], ratios=(50.0,))
    with pytest.raises(ParameterError, match="once"):
        evaluate({"one_cut": one_cut}, [song, song])


def test_rendered_edits_are_judged_as_they_are_heard(tmp_path, monkeypatch):
    song = phrased_song(n_phrases=3)
    # Two levels: a hard splice from one to the other is a click, the source itself has none at that instant.
    samples = np.where(np.arange(round(song.duration * 8000)) < bar_s(12) * 8000, 0.0, 0.5)[None].astype(np.float32)
    write_audio(tmp_path / "song.wav", AudioClip(samples, 8000))
    song = replace(song, path=str(tmp_path / "song.wav"))

    def hard(song, target_s):
        edl = one_cut(song, target_s)
        return replace(edl, segments=(Segment(0.0, bar_s(6)), Segment(bar_s(18), song.duration, crossfade_ms=0.0)))

    editors = {"hard": hard, "truncate_fade": truncate_and_fade}
    evaluation = evaluate(editors, [song], rendered=True)
    assert evaluation.table()["clicks"].tolist() == [1.0, 0.0]
    moved = []

    def align(clip, segments):
        moved.append(tuple(replace(s, start_s=s.start_s + 0.005) for s in segments))
        return moved[-1]

    monkeypatch.setattr("editorbot_core.audio.render.align_joins", align)
    rows = evaluate(editors, [song], rendered=True).rows
    assert rows["duration_s"].tolist() == [sum(s.duration_s for s in segments) for segments in moved]
