"""The network that reads phrases: its targets, its training, and its temperatures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from editorbot_core.analysis.beats.annotations import Annotation
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.structure.bars import N_BAR_FEATURES, N_PAIR_FEATURES
from editorbot_core.analysis.structure.network import (
    StructureLogits,
    StructureModel,
    StructureNet,
    StructureTargets,
    Temperatures,
    fit_temperatures,
    fold_of,
    net_logits,
    structure_model_of,
    structure_targets,
    to_probabilities,
    train_structure_net,
)
from editorbot_core.analysis.training import area_under_curve
from editorbot_core.base.errors import FormatError
from tests.core.analysis.conftest import SMALL, example, phrases


def test_two_annotators_count_both():
    annotation = Annotation(
        "w",
        BeatGrid(np.arange(0.1, 40, 0.5), np.arange(80) % 4 + 1, 41.0),
        phrases([("A", 8), ("B", 8)]),
        phrases([("A", 4), ("A", 4), ("B", 8)]),
    )
    targets = structure_targets(annotation, 0.1 + 2.0 * np.arange(16))
    np.testing.assert_array_equal(np.flatnonzero(targets.start == 1.0), [0, 8])
    np.testing.assert_array_equal(np.flatnonzero(targets.start == 0.75), [4])
    np.testing.assert_allclose(targets.phase.sum(axis=1), 1.0)
    assert targets.phase[5, 1] == 1.0
    assert targets.same[0, 7] == 1.0 and targets.same[0, 8] == 0.0 and targets.known.all()


def test_one_off_phrases_are_only_alike_to_themselves():
    annotation = Annotation(
        "w", BeatGrid(np.arange(0.1, 40, 0.5), np.arange(80) % 4 + 1, 41.0), phrases([("X", 4), ("A", 4), ("X", 4)])
    )
    same = structure_targets(annotation, 0.1 + 2.0 * np.arange(12)).same
    assert same[0, 3] == 1.0 and same[0, 8] == 0.0


def test_training_learns_and_repeats():
    examples = [example(seed) for seed in range(8)]
    net = train_structure_net(examples, config=SMALL, seed=3)
    again = train_structure_net(examples, config=SMALL, seed=3)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    new = example(99)
    found = to_probabilities(net_logits([net], new.features), Temperatures())
    assert area_under_curve(found.start, new.targets.start > 0) > 0.9
    np.testing.assert_allclose(found.phase.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found.same, found.same.T, atol=1e-6)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    net = StructureNet(SMALL).eval()
    features = example(0).features
    alone = to_probabilities(net_logits([net], features), Temperatures())
    values = torch.zeros(1, 30, N_BAR_FEATURES)
    pairs, mask = torch.zeros(1, 30, 30, N_PAIR_FEATURES), torch.zeros(1, 30, dtype=torch.bool)
    n = len(features.values)
    values[0, :n], pairs[0, :n, :n], mask[0, :n] = (
        torch.from_numpy(features.values),
        torch.from_numpy(features.pairs),
        True,
    )
    with torch.no_grad():
        start = net(values, pairs, mask)[0].sigmoid()[0, :n].numpy()
    np.testing.assert_allclose(start, alone.start, atol=1e-5)


def test_units_outside_the_annotation_count_for_nothing():
    one = example(0)
    one.targets.known[12:] = False

    def weights():
        net = train_structure_net([one], config=replace(SMALL, epochs=2), seed=0)
        return torch.cat([value.flatten() for value in net.parameters()])

    before = weights()
    for target in (one.targets.start, one.targets.same):
        target[12:] = 1.0 - target[12:]
    one.targets.phase[12:] = np.roll(one.targets.phase[12:], 1, axis=1)
    assert torch.equal(weights(), before)
    one.targets.start[:12] = 1.0 - one.targets.start[:12]
    assert not torch.equal(weights(), before)


def test_a_work_of_the_training_set_is_read_by_the_networks_that_have_not_seen_it():
    nets = tuple(StructureNet() for _ in range(6))
    model = StructureModel(nets, frozenset({"mine"}), n_folds=3)
    fold = fold_of("mine", 3)
    assert model.nets_for("mine") == (nets[fold], nets[fold + 3])
    assert model.nets_for("other") == nets


def test_arrays_bring_it_back():
    torch.manual_seed(1)
    nets = tuple(StructureNet().eval() for _ in range(4))
    model = StructureModel(nets, frozenset({"a", "b"}), 2, Temperatures(1.5, 2.0, 0.5))
    again = structure_model_of(model.arrays())
    assert (again.works, again.n_folds, again.temperatures) == (model.works, 2, model.temperatures)
    features = example(0).features
    np.testing.assert_allclose(
        again.probabilities(features, "x").start, model.probabilities(features, "x").start, atol=2e-3
    )
    arrays = model.arrays()
    del arrays["1/start.weight"]
    with pytest.raises(FormatError, match="structure model"):
        structure_model_of(arrays)


def test_logits_that_are_too_sure_are_brought_back():
    rng = np.random.default_rng(0)
    songs, targets = [], []
    for _ in range(20):
        start, same = rng.normal(0, 2, 60), rng.normal(0, 2, (60, 60))
        phase = rng.normal(0, 2, (60, 4))
        drawn = (phase + rng.gumbel(size=phase.shape)).argmax(axis=1)
        targets.append(
            StructureTargets(
                (start + rng.logistic(size=60) > 0).astype(np.float32),
                np.eye(4, dtype=np.float32)[drawn],
                (same + rng.logistic(size=(60, 60)) > 0).astype(np.float32),
                np.ones(60, dtype=bool),
            )
        )
        songs.append(StructureLogits(2.0 * start, 1.5 * phase, 0.7 * same))
    np.testing.assert_allclose(fit_temperatures(songs, targets), (2.0, 1.5, 0.7), rtol=0.15)


def test_a_high_temperature_makes_unsure():
    logits = StructureLogits(np.array([3.0, -3.0]), np.eye(4)[:2] * 5, np.full((2, 2), 4.0))
    found = to_probabilities(logits, Temperatures(100.0, 100.0, 100.0))
    np.testing.assert_allclose(found.start, 0.5, atol=0.01)
    np.testing.assert_allclose(found.phase, 0.25, atol=0.01)
    np.testing.assert_allclose(found.same, 0.5, atol=0.01)
