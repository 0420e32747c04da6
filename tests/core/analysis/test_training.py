"""The models that read beats and phrases: their features, their weights, and how they are trained."""

import numpy as np
import pytest
import torch

from editorbot_core.analysis import weights as shipped
from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.beats.readings import Reading, reading_features, reading_probabilities
from editorbot_core.analysis.beats.tracking import TrackerConfig, band_onsets, beat_activation, find_readings
from editorbot_core.analysis.dsp.frames import analyse_frames
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.context import N_CONTEXT, beat_context, split_context
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.bars import N_BAR_FEATURES, N_PAIR_FEATURES, bar_features
from editorbot_core.analysis.structure.network import (
    StructureExample,
    StructureLogits,
    StructureModel,
    StructureNet,
    StructureNetConfig,
    StructureTargets,
    Temperatures,
    _batch,
    fit_temperatures,
    fold_of,
    net_logits,
    shipped_structure_model,
    structure_loss,
    structure_model_of,
    structure_targets,
    to_probabilities,
    train_structure_net,
)
from editorbot_core.analysis.structure.read import read_structure
from editorbot_core.analysis.training import (
    RankedSong,
    area_under_curve,
    f_measure,
    shorten,
    train_listening,
    train_ranker,
    train_structure_model,
)
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.songs.library import remembered_structure


@pytest.fixture(scope="module")
def heard(steady_audio):
    """Frames, onsets and grid of half a minute of bars of four at 120 beats per minute."""
    frames = analyse_frames(steady_audio(beat_s=0.5, metre=4, first_s=0.2, duration_s=30.0))
    times = np.arange(0.2, 29.5, 0.5)
    grid = BeatGrid(times, np.arange(len(times)) % 4 + 1, frames.duration_s)
    return frames, band_onsets(frames.mel), grid


def random_bars(n_bars=24, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4 * n_bars, N_FEATURES)).astype(np.float32)
    context = np.abs(rng.normal(size=(4 * n_bars, N_CONTEXT))).astype(np.float32)
    grid = BeatGrid(0.5 * np.arange(4 * n_bars) + 0.1, np.arange(4 * n_bars) % 4 + 1, 2.0 * n_bars + 1.0)
    return values, context, grid


def phrases(form, *, bar_s=2.0, first_s=0.1):
    sections, at = [], first_s
    for label, bars in form:
        sections.append(Section(at, at + bars * bar_s, label))
        at += bars * bar_s
    return tuple(sections)


class TestContext:
    def test_a_chord_sounds_in_its_register(self):
        time = np.arange(22_050 * 8) / 22_050
        low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) * 0.3 for f in (110.0, 1318.5))
        for samples, register, pitch in ((low, 0, 9), (high, 2, 4)):
            frames = analyse_frames(samples)
            grid = BeatGrid(np.arange(0.5, 7.5, 0.5), np.arange(14) % 4 + 1, 8.0)
            chroma = split_context(beat_context(frames, grid, band_onsets(frames.mel))).chroma
            middle = chroma[4:-4].mean(axis=(0, 1))
            assert np.unravel_index(middle.argmax(), middle.shape) == (register, pitch)

    def test_onsets_fall_on_the_first_quarter_of_the_beats(self, heard):
        frames, onsets, grid = heard
        quarters = split_context(beat_context(frames, grid, onsets)).onsets[2:-2].mean(axis=(0, 2))
        assert quarters.argmax() == 0 and quarters[0] > 2 * quarters[1:].max()

    def test_columns_are_finite_and_complete(self, heard):
        frames, onsets, grid = heard
        context = beat_context(frames, grid, onsets)
        assert context.shape == (grid.n_beats, N_CONTEXT) and np.isfinite(context).all()
        parts = split_context(context)
        rows = [part.reshape(grid.n_beats, -1) for part in parts]
        np.testing.assert_array_equal(np.concatenate(rows, axis=1), context)

    def test_one_beat_is_enough(self, heard):
        frames, onsets, _ = heard
        grid = BeatGrid(np.array([3.0]), np.array([1]), frames.duration_s)
        assert np.isfinite(beat_context(frames, grid, onsets)).all()


class TestGridRanking:
    def test_readings_hold_double_half_and_every_phase(self, heard):
        frames, onsets, _ = heard
        config = TrackerConfig()
        instants, readings = find_readings(frames, onsets, beat_activation(onsets, config=config), config=config)
        kinds = {(reading.level, reading.metre) for reading in readings}
        assert {(1.0, 4), (1.0, 3), (0.5, 4), (1.5, 4)} <= kinds
        of_four = [r for r in readings if (r.level, r.metre) == (1.0, 4)]
        assert sorted(int(reading.positions[0]) for reading in of_four) == [1, 2, 3, 4]
        features = reading_features(instants, readings)
        assert features.shape == (len(readings), 92) and np.isfinite(features).all()

    def test_probabilities_sum_to_one_and_follow_their_readings(self, heard):
        frames, onsets, _ = heard
        config = TrackerConfig()
        instants, readings = find_readings(frames, onsets, beat_activation(onsets, config=config), config=config)
        features = reading_features(instants, readings)
        probabilities = reading_probabilities(features)
        np.testing.assert_allclose(probabilities.sum(), 1.0)
        order = np.random.default_rng(0).permutation(len(readings))
        np.testing.assert_allclose(reading_probabilities(features[order]), probabilities[order], rtol=1e-6)

    def test_the_network_is_the_one_torch_trains(self):
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

    def test_it_learns_which_reading_is_right(self):
        rng = np.random.default_rng(1)

        def song(i):
            features = rng.normal(size=(8, 5))
            return RankedSong(None, str(i), features, (features[:, 2] == features[:, 2].max()).astype(float))

        weights = train_ranker([song(i) for i in range(150)])
        new = [song(i) for i in range(60)]
        right = [reading_probabilities(s.features, weights).argmax() == s.quality.argmax() for s in new]
        assert np.mean(right) > 0.8

    def test_a_lone_reading_is_certain(self, heard):
        frames, onsets, _ = heard
        config = TrackerConfig()
        instants, readings = find_readings(frames, onsets, beat_activation(onsets, config=config), config=config)
        assert reading_probabilities(reading_features(instants, readings[:1]))[0] == 1.0
        assert isinstance(readings[0], Reading)


class TestBarFeatures:
    def test_shape_and_range(self):
        values, context, grid = random_bars()
        found = bar_features(values, context, Units.bars(grid))
        assert found.values.shape == (24, N_BAR_FEATURES) and found.pairs.shape == (24, 24, N_PAIR_FEATURES)
        assert np.isfinite(found.values).all() and np.abs(found.pairs).max() <= 1 + 1e-5

    def test_pairs_are_symmetric_and_equal_bars_alike(self):
        values, context, grid = random_bars()
        values[4 * 12 :], context[4 * 12 :] = values[: 4 * 12], context[: 4 * 12]
        pairs = bar_features(values, context, Units.bars(grid)).pairs
        np.testing.assert_allclose(pairs, pairs.transpose(1, 0, 2), atol=1e-5)
        bar = np.arange(12)
        np.testing.assert_allclose(pairs[bar, bar + 12, :5], 1.0, atol=1e-4)

    @pytest.mark.parametrize("n_bars", [1, 2, 3, 17])
    def test_short_songs_and_constant_ones_are_finite(self, n_bars):
        values, context, grid = random_bars(n_bars)
        for scale in (1.0, 0.0):
            found = bar_features(scale * values, scale * context, Units.bars(grid))
            assert np.isfinite(found.values).all() and np.isfinite(found.pairs).all()

    def test_rows_that_do_not_match_are_refused(self):
        values, context, grid = random_bars()
        with pytest.raises(ParameterError, match="96 beats, 95 rows"):
            bar_features(values[:-1], context, Units.bars(grid))


class TestTargets:
    def test_two_annotators_count_both(self):
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

    def test_one_off_phrases_are_only_alike_to_themselves(self):
        annotation = Annotation(
            "w", BeatGrid(np.arange(0.1, 40, 0.5), np.arange(80) % 4 + 1, 41.0), phrases([("X", 4), ("A", 4), ("X", 4)])
        )
        same = structure_targets(annotation, 0.1 + 2.0 * np.arange(12)).same
        assert same[0, 3] == 1.0 and same[0, 8] == 0.0


SMALL = StructureNetConfig(
    width=16, dilations=((1, 2), (1,)), epochs=40, batch_size=4, crop=8, noise=0.1, feature_dropout=0.0
)


def example(seed, *, work=None):
    """Bars whose phrases can be read off the level of every fourth bar."""
    values, context, grid = random_bars(16, seed=seed)
    context[:, -6:] *= 0.01
    context[np.arange(64) // 4 % 4 == 0, -6:] += 3.0
    annotation = Annotation(f"work-{seed}" if work is None else work, grid, phrases([("A", 4), ("B", 4)] * 2))
    units = Units.bars(grid)
    targets = structure_targets(annotation, grid.times[units.first_beats])
    return StructureExample(annotation.track_id, bar_features(values, context, units), targets)


class TestStructureModel:
    def test_training_learns_and_repeats(self):
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

    def test_padding_changes_nothing(self):
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

    def test_units_outside_the_annotation_count_for_nothing(self):
        torch.manual_seed(0)
        net = StructureNet(SMALL).eval()
        one = example(0)
        one.targets.known[12:] = False
        rng = np.random.default_rng(0)
        batch = _batch([one], rng, crop=99, excerpts=0.5)
        loss = structure_loss(net, batch)
        one.targets.start[12:] = 1.0 - one.targets.start[12:]
        assert torch.equal(structure_loss(net, _batch([one], rng, crop=99, excerpts=0.5)), loss)

    def test_a_work_of_the_training_set_is_read_by_the_networks_that_have_not_seen_it(self):
        nets = tuple(StructureNet() for _ in range(6))
        model = StructureModel(nets, frozenset({"mine"}), n_folds=3)
        fold = fold_of("mine", 3)
        assert model.nets_for("mine") == (nets[fold], nets[fold + 3])
        assert model.nets_for("other") == nets

    def test_networks_have_not_seen_the_works_of_their_fold(self, monkeypatch):
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

    def test_arrays_bring_it_back(self):
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

    def test_the_shipped_model_reads_structure(self):
        values, context, grid = random_bars(24)
        for pattern in range(3):
            values[32 * pattern : 32 * (pattern + 1)], context[32 * pattern : 32 * (pattern + 1)] = (
                values[:32],
                context[:32],
            )
        features = BeatFeatures(values, grid, context)
        structure = read_structure(features, Units.bars(grid))
        assert structure.phrase_start.shape == (24,) and 0 <= structure.confidence <= 1
        assert structure.cluster[0] == structure.cluster[16]
        assert len(shipped_structure_model().nets) >= 3

    def test_beats_and_songs_without_context_are_estimated(self):
        values, context, grid = random_bars(8)
        for features, units in (
            (BeatFeatures(values, grid, context), Units.beats(32)),
            (BeatFeatures(values, grid), Units.bars(grid)),
        ):
            assert read_structure(features, units).phrase_start.shape == (units.n_units,)


class TestTemperatures:
    def test_logits_that_are_too_sure_are_brought_back(self):
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

    def test_a_high_temperature_makes_unsure(self):
        logits = StructureLogits(np.array([3.0, -3.0]), np.eye(4)[:2] * 5, np.full((2, 2), 4.0))
        found = to_probabilities(logits, Temperatures(100.0, 100.0, 100.0))
        np.testing.assert_allclose(found.start, 0.5, atol=0.01)
        np.testing.assert_allclose(found.phase, 0.25, atol=0.01)
        np.testing.assert_allclose(found.same, 0.5, atol=0.01)


class TestShorten:
    FORM = (("A", 4), ("B", 4), ("A", 4), ("C", 4), ("B", 4), ("A", 4), ("D", 4), ("A", 4))

    def test_phrases_stay_whole_and_keep_their_features(self):
        values, context, grid = random_bars(32)
        units = Units.bars(grid)
        annotation = Annotation("w", grid, phrases(self.FORM))
        targets = structure_targets(annotation, grid.times[units.first_beats])
        rng = np.random.default_rng(0)
        for _ in range(20):
            features, shorter = shorten(values, context, units, targets, rng=rng)
            n = len(shorter.start)
            assert 16 <= n < 32 and features.values.shape == (n, N_BAR_FEATURES)
            np.testing.assert_array_equal(np.flatnonzero(shorter.start), np.arange(0, n, 4))
            np.testing.assert_array_equal(shorter.phase.argmax(axis=1), np.arange(n) % 4)
            np.testing.assert_array_equal(shorter.same, shorter.same.T)

    def test_a_song_of_few_phrases_is_left_alone(self):
        values, context, grid = random_bars(16)
        units = Units.bars(grid)
        targets = structure_targets(Annotation("w", grid, phrases([("A", 8), ("B", 8)])), grid.times[units.first_beats])
        assert shorten(values, context, units, targets, rng=np.random.default_rng(0)) is None


class TestRemembering:
    def test_it_is_read_once_per_key(self, tmp_path, synthetic_song):
        structure, calls = synthetic_song(0).structure, []

        def read():
            calls.append(1)
            return structure

        path = tmp_path / "structure" / "x.npz"
        for key in ("a", "a", "b"):
            found = remembered_structure(path, key, read)
            np.testing.assert_array_equal(found.phase, structure.phase)
        assert len(calls) == 2
        path.write_bytes(b"half a file")
        remembered_structure(path, "b", read)
        assert len(calls) == 3


class TestShipped:
    def test_weights_come_back_and_are_checked(self, tmp_path):
        arrays = {"x": np.arange(3.0)}
        shipped.save_weights("one", arrays, folder=tmp_path)
        np.testing.assert_array_equal(shipped.load_weights("one", folder=tmp_path)["x"], arrays["x"])
        shipped.load_weights.cache_clear()
        with (tmp_path / "one.npz").open("ab") as file:
            file.write(b"x")
        with pytest.raises(FormatError, match="SHA-256"):
            shipped.load_weights("one", folder=tmp_path)
        with pytest.raises(FormatError, match="no digest"):
            shipped.load_weights("two", folder=tmp_path)

    def test_every_shipped_file_has_its_digest(self):
        for path in shipped.FOLDER.glob("*.npz"):
            assert shipped.load_weights(path.stem)


class TestMeasures:
    def test_f_measure(self):
        beats = np.arange(10.0)
        assert f_measure(beats, beats) == 1.0 and f_measure(beats, beats + 0.2) == 0.0
        assert f_measure(beats, np.arange(0, 10, 0.5)) == pytest.approx(2 / 3)
        assert f_measure(beats, np.zeros(0)) == 0.0

    def test_area_under_curve_counts_ordered_pairs(self):
        assert area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75

    def test_training_needs_annotated_songs(self, tmp_path):
        (tmp_path / "song.wav").write_bytes(b"")
        with pytest.raises(ParameterError, match="no annotated songs"):
            train_listening([tmp_path], output=tmp_path)
