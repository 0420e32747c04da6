"""How the models that read beats and phrases are trained."""

import mir_eval
import numpy as np
import pytest
import torch

from editorbot_core.analysis.beats.annotations import Annotation
from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.beats.readings import reading_probabilities
from editorbot_core.analysis.structure.bars import N_BAR_FEATURES
from editorbot_core.analysis.structure.network import StructureNet, structure_targets
from editorbot_core.analysis.training import (
    RankedSong,
    area_under_curve,
    f_measure,
    shorten,
    train_listening,
    train_ranker,
    train_structure_model,
)
from editorbot_core.base.errors import ParameterError
from tests.core.analysis.conftest import example, phrases, random_bars


def test_the_network_is_the_one_torch_trains():
    rng = np.random.default_rng(0)
    songs = [RankedSong(None, str(i), rng.normal(size=(6, 5)), rng.random(6)) for i in range(4)]
    weights = train_ranker(songs)
    x = torch.tensor((songs[0].features - weights["mean"][0]) / weights["scale"][0]).float()
    hidden = torch.nn.functional.gelu(
        x @ torch.tensor(weights["hidden_weight"][0]).T + torch.tensor(weights["hidden_bias"][0])
    )
    logits = hidden @ torch.tensor(weights["out_weight"][0]) + x @ torch.tensor(weights["skip_weight"][0])
    one = {name: array[:1].astype(np.float64) for name, array in weights.items()}
    np.testing.assert_allclose(reading_probabilities(songs[0].features, one), logits.softmax(0), atol=1e-5)


def test_it_learns_which_reading_is_right():
    rng = np.random.default_rng(1)

    def song(i):
        features = rng.normal(size=(8, 5))
        return RankedSong(None, str(i), features, (features[:, 2] == features[:, 2].max()).astype(float))

    weights = train_ranker([song(i) for i in range(150)])
    new = [song(i) for i in range(60)]
    right = [reading_probabilities(s.features, weights).argmax() == s.quality.argmax() for s in new]
    assert np.mean(right) > 0.8


def test_networks_have_not_seen_the_works_of_their_fold(monkeypatch):
    seen = []

    def note(examples, *, seed):
        seen.append({e.work for e in examples})
        return StructureNet()

    monkeypatch.setattr("editorbot_core.analysis.training.train_structure_net", note)
    examples = [example(seed) for seed in range(6)]
    model = train_structure_model(examples, n_folds=3, n_nets=2)
    for work in model.works:
        for net in model.nets_for(work):
            assert work not in seen[model.nets.index(net)]


FORM = (("A", 4), ("B", 4), ("A", 4), ("C", 4), ("B", 4), ("A", 4), ("D", 4), ("A", 4))


def test_phrases_stay_whole_and_keep_their_features():
    values, context, grid = random_bars(32)
    units = Units.bars(grid)
    annotation = Annotation("w", grid, phrases(FORM))
    targets = structure_targets(annotation, grid.times[units.first_beats])
    rng = np.random.default_rng(0)
    for _ in range(20):
        features, shorter = shorten(values, context, units, targets, rng=rng)
        n = len(shorter.start)
        assert 16 <= n < 32 and features.values.shape == (n, N_BAR_FEATURES)
        np.testing.assert_array_equal(np.flatnonzero(shorter.start), np.arange(0, n, 4))
        np.testing.assert_array_equal(shorter.phase.argmax(axis=1), np.arange(n) % 4)
        np.testing.assert_array_equal(shorter.same, shorter.same.T)


def test_a_song_of_few_phrases_is_left_alone():
    values, context, grid = random_bars(16)
    units = Units.bars(grid)
    targets = structure_targets(Annotation("w", grid, phrases([("A", 8), ("B", 8)])), grid.times[units.first_beats])
    assert shorten(values, context, units, targets, rng=np.random.default_rng(0)) is None


def test_f_measure():
    beats = np.arange(10.0)
    assert f_measure(beats, beats) == 1.0 and f_measure(beats, beats + 0.2) == 0.0
    assert f_measure(beats, np.arange(0, 10, 0.5)) == pytest.approx(2 / 3)
    assert f_measure(beats, np.zeros(0)) == f_measure(np.zeros(0), beats) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_f_measure_is_that_of_mir_eval_where_no_two_beats_can_match_one(seed):
    # mir_eval matches one to one, this one the nearest: the same if beats are more than two tolerances apart.
    rng = np.random.default_rng(seed)
    reference = np.cumsum(rng.uniform(0.15, 0.7, 40))
    moved = reference[rng.random(40) < 0.8] + rng.uniform(-0.1, 0.1)
    estimated = np.sort(np.concatenate([moved, rng.uniform(0, reference[-1], 10)]))
    estimated = estimated[np.diff(estimated, prepend=-1.0) > 0.15]
    expected = mir_eval.beat.f_measure(reference, estimated)
    assert f_measure(reference, estimated) == pytest.approx(expected)
    assert f_measure(estimated, reference) == pytest.approx(expected)


def test_area_under_curve_counts_ordered_pairs():
    assert area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75


def test_training_needs_annotated_songs(tmp_path):
    (tmp_path / "song.wav").write_bytes(b"")
    with pytest.raises(ParameterError, match="no annotated songs"):
        train_listening([tmp_path], output=tmp_path)
