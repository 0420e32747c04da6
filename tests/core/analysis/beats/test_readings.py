"""Other readings of the beats, and how likely each is."""

import numpy as np

from editorbot_core.analysis.beats.readings import Reading, reading_features, reading_probabilities
from editorbot_core.analysis.beats.tracking import TrackerConfig, beat_activation, find_readings


def test_readings_hold_double_half_and_every_phase(heard):
    frames, onsets, _ = heard
    config = TrackerConfig()
    instants, readings = find_readings(frames, onsets, beat_activation(onsets, config=config), config=config)
    kinds = {(reading.level, reading.metre) for reading in readings}
    assert {(1.0, 4), (1.0, 3), (0.5, 4), (1.5, 4)} <= kinds
    of_four = [r for r in readings if (r.level, r.metre) == (1.0, 4)]
    assert sorted(int(reading.positions[0]) for reading in of_four) == [1, 2, 3, 4]
    features = reading_features(instants, readings)
    assert features.shape == (len(readings), 92) and np.isfinite(features).all()


def test_probabilities_sum_to_one_and_follow_their_readings(heard):
    frames, onsets, _ = heard
    config = TrackerConfig()
    instants, readings = find_readings(frames, onsets, beat_activation(onsets, config=config), config=config)
    features = reading_features(instants, readings)
    probabilities = reading_probabilities(features)
    np.testing.assert_allclose(probabilities.sum(), 1.0)
    order = np.random.default_rng(0).permutation(len(readings))
    np.testing.assert_allclose(reading_probabilities(features[order]), probabilities[order], rtol=1e-6)


def test_a_lone_reading_is_certain(heard):
    frames, onsets, _ = heard
    config = TrackerConfig()
    instants, readings = find_readings(frames, onsets, beat_activation(onsets, config=config), config=config)
    assert reading_probabilities(reading_features(instants, readings[:1]))[0] == 1.0
    assert isinstance(readings[0], Reading)
