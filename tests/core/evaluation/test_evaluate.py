import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.baselines import BASELINES, dp_bars, keep_all, one_cut, truncate_and_fade
from editorbot_core.editing.edits import CUT, KEEP, edl_of
from editorbot_core.evaluation.__main__ import main
from editorbot_core.evaluation.comparison import bootstrap_mean
from editorbot_core.evaluation.evaluate import Evaluation, evaluate
from editorbot_core.evaluation.metrics import (
    QUALITY_WEIGHTS,
    annotated_reference,
    coverage,
    edit_metrics,
    estimated_reference,
    find_joins,
    nearest_beats,
    smoothness,
    step_percentiles,
)
from editorbot_core.evaluation.report import evaluation_figures, write_evaluation
from editorbot_core.songs.song import Song

BEAT_S = 0.5
# Eight-bar phrases of 16 s: intro, verse, chorus, verse, chorus, outro.
LABELS = ("i", "A", "B", "A", "B", "o")
FIRST_S = 0.4


def make_song(*, seed=0, annotated=True, n_phrases=6):
    rng = np.random.default_rng(seed)
    n = 32 * n_phrases
    duration = FIRST_S + BEAT_S * n + 2.0
    grid = BeatGrid(FIRST_S + BEAT_S * np.arange(n), np.arange(n) % 4 + 1, duration)
    units = Units.bars(grid)
    u = np.arange(units.n_units)
    phase = np.full((units.n_units, 4), 0.02, dtype=np.float32)
    phase[u, u % 4] = 0.94
    labels = LABELS[:n_phrases]
    structure = Structure(
        (u % 8 == 0).astype(np.float32), phase, np.array([sorted(set(labels)).index(labels[i // 8]) for i in u]), 0.9
    )
    sections = tuple(Section(FIRST_S + 16.0 * i, FIRST_S + 16.0 * (i + 1), label) for i, label in enumerate(labels))
    features = BeatFeatures(rng.normal(size=(n, N_FEATURES)).astype(np.float32), grid)
    annotation = Annotation("song", grid, sections) if annotated else None
    return Song(f"song{seed}", f"song{seed}.wav", "", features, units, structure, annotation)


def cut_edl(song, exit_s, entry_s, *, target_s=None):
    """One cut from `exit_s` to `entry_s`."""
    segments = (Segment(0.0, exit_s), Segment(entry_s, song.duration))
    duration_s = sum(s.duration_s for s in segments)
    return replace(keep_all(song, target_s or duration_s), segments=segments)


def bar_s(bar):
    return FIRST_S + 2.0 * bar


def test_the_whole_song_at_its_own_length_is_perfect():
    song = make_song()
    metrics = edit_metrics(keep_all(song, song.duration), song)
    assert metrics.quality == pytest.approx(100.0)
    assert (metrics.n_joins, metrics.coverage, metrics.length_error) == (0, 1.0, 0.0)
    assert metrics.start_kept
    assert metrics.end_kept
    assert metrics.bar_position_continues is None
    assert metrics.clicks is None


def test_the_whole_song_at_half_its_length_is_worth_nothing():
    song = make_song()
    assert edit_metrics(keep_all(song, song.duration / 2), song).quality == 0.0


def test_cutting_a_verse_and_a_chorus_at_phrases_continues_everything():
    song = make_song()
    metrics = edit_metrics(cut_edl(song, bar_s(8), bar_s(24)), song)
    assert metrics.joins_on_downbeat == 1.0
    assert metrics.bar_position_continues == 1.0
    assert metrics.four_bar_continues == 1.0
    assert metrics.phrase_both_sides == 1.0
    assert metrics.coverage == 1.0
    assert metrics.n_joins == 1
    assert metrics.joins_per_minute == pytest.approx(60 / metrics.duration_s)


@pytest.mark.parametrize(
    ("exit_bar", "entry_bar", "downbeat", "bar", "four", "phrase"),
    [
        (8, 24, 1, 1, 1, 1),
        (8, 16, 1, 1, 1, 1),
        (12, 20, 1, 1, 1, 0),  # in the middle of both phrases
        (8, 20, 1, 1, 1, 0),  # leaves at a phrase end, enters in the middle
        (12, 24, 1, 1, 1, 0),
        (9, 24, 1, 1, 0, 0),  # one bar late
        (10, 24, 1, 1, 0, 0),  # two bars late
        (10.5, 22.5, 0, 1, 1, 0),  # on the third beat, which continues
        (8, 24.25, 0, 0, 0, 0),  # a beat late
        (8, 24.5, 0, 0, 0, 0),
        (8.25, 24, 0, 0, 0, 0),  # leaves a beat late
        (8.1, 24.1, 0, 0, 0, 1),  # 0.2 s from any beat on both sides
    ],
)
def test_every_kind_of_cut_is_told_apart(exit_bar, entry_bar, downbeat, bar, four, phrase):
    song = make_song()
    metrics = edit_metrics(cut_edl(song, bar_s(exit_bar), bar_s(entry_bar)), song)
    assert (
        metrics.joins_on_downbeat,
        metrics.bar_position_continues,
        metrics.four_bar_continues,
        metrics.phrase_both_sides,
    ) == (downbeat, bar, four, phrase)


@pytest.mark.parametrize(("shift_s", "continues"), [(0.06, 1.0), (-0.06, 1.0), (0.08, 0.0), (-0.08, 0.0)])
def test_joins_are_mapped_to_beats_with_a_tolerance_of_70_ms(shift_s, continues):
    song = make_song()
    metrics = edit_metrics(cut_edl(song, bar_s(8), bar_s(24) + shift_s), song)
    assert metrics.bar_position_continues == continues
    assert metrics.joins_on_downbeat == continues
    np.testing.assert_array_equal(nearest_beats(song.grid, np.array([bar_s(8) + shift_s])), 32 if continues else -1)


def test_either_annotator_may_agree_with_a_join():
    song = make_song()
    annotation = song.annotation
    halves = tuple(
        Section(s.start_s + offset, s.start_s + offset + 10.0 + 4 * (offset > 0) - 4.0, s.label)
        for s in annotation.sections
        for offset in (0.0, 6.0)
    )
    edl = cut_edl(song, bar_s(11), bar_s(24))
    assert edit_metrics(edl, song).phrase_both_sides == 0.0
    assert edit_metrics(edl, song).four_bar_continues == 0.0
    both = replace(annotation, sections_alt=halves)
    # The second annotator begins phrases at bars 0, 3, 8, 11, 16, ...
    assert edit_metrics(edl, both).phrase_both_sides == 1.0
    assert edit_metrics(edl, both).four_bar_continues == 1.0
    # One side by each of them is not enough.
    only_alt = replace(annotation, sections=annotation.sections[:1], sections_alt=halves[1:2])
    assert edit_metrics(cut_edl(song, bar_s(8), bar_s(24)), only_alt).phrase_both_sides == 0.0


def test_coverage_counts_labels_heard_to_half_in_one_occurrence():
    song = make_song()
    reference = annotated_reference(song.annotation)
    everything = [Segment(0.0, song.duration)]
    assert coverage(reference, everything) == 1.0
    # Intro, and half of the first verse.
    assert coverage(reference, [Segment(0.0, bar_s(12))]) == 2 / 4
    assert coverage(reference, [Segment(0.0, bar_s(12) - 0.1)]) == 1 / 4
    # A third of both verses is not half of one; the same third twice neither.
    assert coverage(reference, [Segment(bar_s(8), bar_s(11)), Segment(bar_s(24), bar_s(27))]) == 0.0
    assert coverage(reference, [Segment(bar_s(8), bar_s(11))] * 2) == 0.0
    # Two parts of one occurrence add up, in any order, overlapping or not.
    parts = [Segment(bar_s(13), bar_s(15)), Segment(bar_s(8), bar_s(10)), Segment(bar_s(9), bar_s(10))]
    assert coverage(reference, parts) == 1 / 4


def test_a_join_that_nothing_can_be_heard_of_is_smooth():
    song = make_song()
    values = song.features.values.copy()
    # Around bars 8 and 24 the same is heard, so the join is a step of the song itself.
    values[95:97] = values[31:33]
    song = replace(song, features=BeatFeatures(values, song.grid))
    edl = cut_edl(song, bar_s(8), bar_s(24))
    joins = find_joins(edl.segments)
    steps = values[:, :52] / values[:, :52].std(0)
    own = np.linalg.norm(np.diff(steps, axis=0), axis=1)
    rank = (own <= own[31] * (1 + 1e-6)).mean()
    (percentile,) = step_percentiles(song.features, joins)
    assert percentile == pytest.approx(rank, abs=0.1)
    moved = find_joins(cut_edl(song, bar_s(8), bar_s(24) - 0.012).segments)
    assert step_percentiles(song.features, moved)[0] == percentile
    np.testing.assert_allclose(smoothness(np.array([0.0, 0.9, 0.95, 1.0])), [1.0, 1.0, 0.5, 0.0], atol=1e-9)


def test_a_step_larger_than_any_of_the_song_is_at_the_hundredth_percentile():
    song = make_song()
    values = np.repeat(np.linspace(0, 1, song.grid.n_beats)[:, None], N_FEATURES, axis=1).astype(np.float32)
    song = replace(song, features=BeatFeatures(values, song.grid))
    metrics = edit_metrics(cut_edl(song, bar_s(8), bar_s(24)), song)
    assert (metrics.step_percentile, metrics.smoothness) == (1.0, 0.0)


def test_starts_and_ends_that_are_not_the_songs_own_count_as_failed_seams():
    song = make_song()
    ends_on_phrase = replace(keep_all(song, bar_s(24)), segments=(Segment(0.0, bar_s(24)),))
    metrics = edit_metrics(ends_on_phrase, song)
    assert (metrics.start_kept, metrics.end_kept, metrics.n_joins) == (True, False, 0)
    kept = (
        QUALITY_WEIGHTS["phrase_both_sides"] + 0.75 * QUALITY_WEIGHTS["coverage"] + QUALITY_WEIGHTS["joins_per_minute"]
    )
    assert metrics.quality == pytest.approx(100 * kept)
    elsewhere = replace(ends_on_phrase, segments=(Segment(0.0, bar_s(22)),), target_duration_s=bar_s(22))
    assert edit_metrics(elsewhere, song).quality == pytest.approx(100 * (kept - QUALITY_WEIGHTS["phrase_both_sides"]))
    late = replace(ends_on_phrase, segments=(Segment(2.0, song.duration),), target_duration_s=song.duration - 2.0)
    assert not edit_metrics(late, song).start_kept
    assert edit_metrics(late, song).quality < 60


@pytest.mark.parametrize(("error", "factor"), [(0.0, 1.0), (0.02, 1.0), (0.11, 0.5), (0.2, 0.0), (0.5, 0.0)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_length_error_scales_quality(error, factor, sign):
    song = make_song()
    edl = cut_edl(song, bar_s(8), bar_s(24))
    missed = replace(edl, target_duration_s=edl.duration_s / (1 + sign * error))
    best = edit_metrics(edl, song).quality
    assert edit_metrics(missed, song).length_error == pytest.approx(error)
    assert edit_metrics(missed, song).quality == pytest.approx(factor * best, abs=1e-6)


def test_weights_sum_to_one_and_name_metrics():
    assert sum(QUALITY_WEIGHTS.values()) == pytest.approx(1.0)
    assert set(QUALITY_WEIGHTS) <= set(edit_metrics(keep_all(make_song(), 50.0), make_song()).__dataclass_fields__)


def test_many_joins_cost_quality():
    song = make_song()
    few = cut_edl(song, bar_s(8), bar_s(24))
    bars = [Segment(bar_s(b) if b else 0.0, bar_s(b + 4)) for b in range(0, 32, 8)]
    bars.append(Segment(bar_s(32), song.duration))
    many = replace(few, segments=tuple(bars), target_duration_s=sum(s.duration_s for s in bars))
    few_metrics, many_metrics = edit_metrics(few, song), edit_metrics(many, song)
    assert many_metrics.n_joins == 4
    assert many_metrics.joins_per_minute > few_metrics.joins_per_minute
    assert many_metrics.four_bar_continues == 1.0


def test_without_an_annotation_the_estimates_stand_in_and_the_result_says_so():
    song, annotated = make_song(annotated=False), make_song()
    edl = cut_edl(song, bar_s(8), bar_s(24))
    by_estimate, by_annotation = edit_metrics(edl, song), edit_metrics(edl, annotated)
    assert (by_estimate.reference, by_annotation.reference) == ("estimated", "annotation")
    assert replace(by_estimate, reference="annotation") == by_annotation
    reference = estimated_reference(song)
    assert [s.start_s for s in reference.sections[0]] == pytest.approx([bar_s(8 * i) for i in range(6)])
    assert len({s.label for s in reference.sections[0]}) == 4
    # Either evidence alone is enough: likely starts, or a change of material.
    structure = song.structure
    for part in (
        replace(structure, cluster=np.zeros_like(structure.cluster)),
        replace(structure, phrase_start=np.zeros_like(structure.phrase_start)),
    ):
        assert len(estimated_reference(replace(song, structure=part)).sections[0]) == 6


def test_an_annotation_alone_judges_everything_but_smoothness():
    song = make_song()
    edl = cut_edl(song, bar_s(8), bar_s(24))
    metrics = edit_metrics(edl, song.annotation)
    assert metrics.smoothness is None
    assert metrics.quality == pytest.approx(100.0)
    assert edit_metrics(edl, song.annotation, features=song.features) == edit_metrics(edl, song)


def test_clicks_are_counted_in_rendered_audio():
    song = make_song()
    rate = 8000
    t = np.arange(int(song.duration * rate)) / rate
    clip = AudioClip(np.sin(2 * np.pi * 110.0 * t).astype(np.float32)[None], rate)
    edl = cut_edl(song, bar_s(8), bar_s(24))
    assert edit_metrics(edl, song, rendered=clip).clicks == 0
    broken = clip.samples.copy()
    broken[:, int(edl.segments[0].duration_s * rate) :] *= -1
    broken += 0.3 * np.sign(np.arange(broken.shape[1]) - edl.segments[0].duration_s * rate).astype(np.float32)
    assert edit_metrics(edl, song, rendered=AudioClip(broken, rate)).clicks == 1


def test_edits_of_another_song_are_refused():
    song, other = make_song(), make_song(n_phrases=4)
    with pytest.raises(ParameterError, match="same song"):
        edit_metrics(keep_all(other, 50.0), song)
    with pytest.raises(ParameterError, match="section"):
        edit_metrics(keep_all(song, 50.0), replace(song.annotation, sections=()))
    with pytest.raises(ParameterError, match="segments"):
        edit_metrics(replace(keep_all(song, 50.0), segments=()), song)


def phrase_cut(song, target_s):
    """An editor that knows: verse and chorus go."""
    actions = np.full(song.units.n_units, KEEP)
    actions[8:24] = CUT
    return edl_of(song, actions, target_duration_s=target_s)


@cache
def shared_evaluation():
    return make_evaluation()


def make_evaluation(**options):
    songs = [make_song(seed=seed) for seed in range(5)]
    return evaluate({**BASELINES, "knowing": phrase_cut}, songs, ratios=(2 / 3,), **options)


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


def test_the_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        interval = bootstrap_mean(rng.normal(0.0, 1.0, 40), seed=trial, n_resamples=400)
        hits += interval.low <= 0.0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99
    assert bootstrap_mean(np.full(5, 3.0)) == (3.0, 3.0, 3.0)
    with pytest.raises(ParameterError, match="at least one"):
        bootstrap_mean(np.array([]))


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
    estimated = evaluate({"keep_all": keep_all}, [make_song(annotated=False)]).text()
    assert "1 by estimated beats and structure" in estimated


def test_what_is_written_can_be_read_and_is_small(tmp_path):
    evaluation = shared_evaluation()
    paths = write_evaluation(tmp_path / "results", evaluation)
    names = {path.name for path in paths}
    assert {"evaluation.json", "evaluation.csv", "evaluation.parquet", "evaluation.txt"} < names
    assert {path.name for path in (tmp_path / "results").iterdir()} == names
    document = json.loads((tmp_path / "results/evaluation.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == "editorbot.evaluation/1"
    assert document["summary"]["knowing"]["quality"] == pytest.approx(evaluation.table().at["knowing", "quality"])
    assert document["wins"]["knowing"]["one_cut"] == evaluation.wins("knowing", "one_cut")._asdict()
    assert len(document["rows"]) == 5 * (len(BASELINES) + 1)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "results/evaluation.parquet"), evaluation.rows)
    images = [path for path in paths if path.suffix == ".png"]
    assert len(images) == 3
    for path in images:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 100_000
    assert list(evaluation_figures(evaluation)) == ["quality", "profile", "wins"]


def test_summary_metrics_are_flat_and_finite():
    metrics = shared_evaluation().metrics("truncate_fade", prefix="eval/")
    assert metrics["eval/end_kept"] == 0.0
    assert "eval/bar_position_continues" not in metrics
    assert all(np.isfinite(value) for value in metrics.values())


def test_an_editor_that_fails_fails_the_evaluation():
    def broken(song, target_s):
        raise ValueError("out of ideas")

    with pytest.raises(ValueError, match="out of ideas") as caught:
        evaluate({"dp_bars": dp_bars, "broken": broken}, [make_song()])
    assert "editor 'broken', song song0, ratio 0.5" in caught.value.__notes__


def test_there_has_to_be_something_to_evaluate():
    song = make_song()
    with pytest.raises(ParameterError, match="need editors, songs and ratios"):
        evaluate({"one_cut": one_cut}, [])
    with pytest.raises(ParameterError, match="ratios are shares"):
        evaluate({"one_cut": one_cut}, [song], ratios=(50.0,))
    with pytest.raises(ParameterError, match="once"):
        evaluate({"one_cut": one_cut}, [song, song])


def test_rendered_edits_are_judged_as_they_are_heard(tmp_path, monkeypatch):
    song = make_song(n_phrases=3)
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


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """Arguments of the command for an untrained policy and two songs that need no audio."""
    from editorbot_core.policy.config import PolicyConfig
    from editorbot_core.policy.files import save_policy
    from editorbot_core.policy.network import Policy
    from editorbot_core.songs import library

    songs = [make_song(seed=seed, n_phrases=3) for seed in range(2)]
    records = [SimpleNamespace(status="accepted"), SimpleNamespace(status="rejected", path="x.mp3", reason="silence")]
    monkeypatch.setattr(library, "ingest", lambda folder, store, **options: records)
    monkeypatch.setattr(library, "load_songs", lambda records, store, **options: songs)
    save_policy(tmp_path / "policy.pt", Policy(PolicyConfig()), model={"name": "untrained"})
    (tmp_path / "songs").mkdir()
    names = {"checkpoint": "policy.pt", "test_dir": "songs", "output_dir": "results"}
    return [word for flag, name in names.items() for word in (f"--{flag}", str(tmp_path / name))] + ["--device", "cpu"]


def test_the_command_compares_a_policy_with_the_baselines(untrained, tmp_path, capsys):
    assert main([*untrained, "--ratio", "0.5", "0.8"]) == 0
    printed = capsys.readouterr().out
    assert "left out: x.mp3: silence" in printed
    assert "policy better than one_cut in" in printed
    document = json.loads((tmp_path / "results/evaluation.json").read_text())
    assert document["editors"] == [*BASELINES, "policy"]
    assert len(document["rows"]) == 2 * 2 * (len(BASELINES) + 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "none.pt"], "none.pt: no such file"),
        (["--test_dir", "nowhere"], "nowhere: no such folder"),
        (["--candidates", "4"], "--reward_model"),
        (["--candidates", "0"], "at least 1"),
        (["--reward_model", "none.pt", "--candidates", "2"], "none.pt"),
        (["--device", "tpu"], "cpu, cuda or cuda:N"),
        (["--ratio", "-1"], "ratios"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_exit_status_2(untrained, flags, message, capsys):
    assert main([*untrained, *flags]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_a_folder_without_usable_songs_is_an_error(untrained, monkeypatch, capsys):
    from editorbot_core.songs import library

    monkeypatch.setattr(library, "load_songs", lambda records, store, **options: [])
    assert main(untrained) == 2
    assert "none of its 2 files" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--checkpoint", "x.pt"], ["--test_dir", "x"], ["--ratio", "half"]])
def test_wrong_use_of_the_command_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
