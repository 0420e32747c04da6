"""The loss by hand, constants that are found again, and a simple taste that is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.preferences.pairs import pair_batch, propose_pairs
from editorbot_core.preferences.preference import Preference
from editorbot_core.rewards.training import (
    AnswerThresholds,
    expected_calibration_error,
    fit_temperature,
    preference_loss,
    reward_metrics,
    train_reward_model,
)
from tests.core.rewards.conftest import SMALL, guessed_song

_SETTINGS = {
    "thresholds": torch.tensor([0.5, 2.0, 4.0]),
    "temperature": 0.25,
    "label_smoothing": 0.03,
    "centring": 1e-3,
}


def test_the_loss_does_not_care_which_side_is_a():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=generator)
    label = torch.tensor([1.0, 0.5, 0.0]).repeat(17)[:50]
    confidence = torch.rand(50, generator=generator)
    strength = torch.randint(1, 4, (50,), generator=generator) * (label != 0.5)
    one = preference_loss(a, b, label, strength, confidence, **_SETTINGS)
    other = preference_loss(b, a, 1 - label, strength, confidence, **_SETTINGS)
    assert torch.allclose(one, other, atol=1e-6)


def test_the_seven_answers_are_all_there_are():
    a, b = torch.full((7,), 0.4), torch.zeros(7)
    label = torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0])
    strength = torch.tensor([3, 2, 1, 0, 1, 2, 3])
    for confidence in (1.0, 0.4):
        settings = _SETTINGS | {"centring": 0.0}
        loss = preference_loss(a, b, label, strength, torch.full((7,), confidence), **settings)
        doubt = 1.0 - 0.97 * torch.tensor([confidence] * 3 + [1.0] + [confidence] * 3)
        likelihood = ((-loss).exp() - doubt / 7) / (1 - doubt)
        assert float(likelihood.sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_loss_by_hand():
    def loss(a: float, label: float, strength: int, confidence: float = 1.0, **changed: float) -> float:
        settings = _SETTINGS | {"temperature": 2.0, "label_smoothing": 0.0, "centring": 0.0} | changed
        sides = torch.tensor([[a], [0.0]])
        found = preference_loss(
            *sides, torch.tensor([label]), torch.tensor([strength]), torch.tensor([confidence]), **settings
        )
        return float(found)

    def s(x: float) -> float:
        return 1.0 / (1.0 + np.exp(-x))

    # A gap of 2 at temperature 2 is 1; thresholds 0.5, 2 and 4.
    assert loss(2.0, 1.0, 1) == pytest.approx(-np.log(s(1.0) - s(-0.5)), abs=1e-6)
    assert loss(2.0, 1.0, 3) == pytest.approx(-np.log(1.0 - s(3.0)), abs=1e-5)
    assert loss(2.0, 0.0, 2) == pytest.approx(-np.log(s(5.0) - s(3.0)), abs=1e-5)
    assert loss(2.0, 0.5, 0) == pytest.approx(-np.log(s(-0.5) - s(-1.5)), abs=1e-6)
    # A preference without a strength is a slight one.
    assert loss(2.0, 1.0, 0) == loss(2.0, 1.0, 1)
    doubted = 0.97 * 0.5 * (s(1.0) - s(-0.5)) + (1 - 0.97 * 0.5) / 7
    assert loss(2.0, 1.0, 1, 0.5, label_smoothing=0.03, centring=0.01) == pytest.approx(
        0.04 - np.log(doubted), abs=1e-6
    )


def test_the_thresholds_that_made_the_answers_are_found():
    generator = torch.Generator().manual_seed(0)
    gap = 3.0 * torch.randn(20_000, generator=generator)
    noise = torch.rand(20_000, generator=generator)
    perceived = gap + (noise / (1 - noise)).log()
    strength = torch.bucketize(perceived.abs(), torch.tensor([0.4, 1.5, 5.0]))
    label = torch.where(strength == 0, 0.5, (perceived > 0).float())
    scale = AnswerThresholds()
    optimizer = torch.optim.Adam(scale.parameters(), lr=0.05)
    for _ in range(150):
        settings = {"thresholds": scale(), "temperature": 1.0, "label_smoothing": 0.0, "centring": 0.0}
        loss = preference_loss(gap, 0 * gap, label, strength, torch.ones_like(gap), **settings).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert scale().tolist() == pytest.approx([0.4, 1.5, 5.0], rel=0.06)


def test_the_temperature_that_made_the_labels_is_found():
    rng = np.random.default_rng(0)
    gaps = torch.tensor(rng.normal(scale=4.0, size=20_000))
    labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < torch.sigmoid(gaps / 2.5)).float()
    assert fit_temperature(gaps, labels) == pytest.approx(2.5, rel=0.05)


def test_calibration_error_by_hand():
    probability = torch.tensor([0.72, 0.72, 0.28, 0.72, 0.97, 0.97])
    label = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    assert expected_calibration_error(probability, label) == pytest.approx(4 / 6 * 0.03 + 2 / 6 * 0.03, abs=1e-6)
    assert expected_calibration_error(torch.tensor([0.9999]), torch.tensor([0.0])) == pytest.approx(1.0, abs=1e-3)


def fewer_joins_wins(songs, *, n_pairs, seed=0):
    """Answers of somebody who counts joins and nothing else."""
    pairs = propose_pairs(songs, n_pairs=n_pairs, rng=np.random.default_rng(seed))
    out = []
    for i, pair in enumerate(pairs):
        a, b = len(pair.a.segments), len(pair.b.segments)
        out.append(
            Preference(
                a=pair.a,
                b=pair.b,
                label=0.5 if a == b else float(a < b),
                strength=0 if a == b else 2,
                confidence=1.0,
                rater="counter",
                source="bootstrap",
                answer_id=str(i),
                created_at="2026-01-01T00:00:00+00:00",
            )
        )
    return out


TRAINING = replace(SMALL, epochs=6, songs_per_step=2, pairs_per_song=32, learning_rate=3e-3)


@pytest.fixture(scope="module")
def trained():
    songs = [guessed_song(i, 16) for i in range(8)]
    answers = fewer_joins_wins(songs, n_pairs=400)
    logged = []
    state = torch.random.get_rng_state()
    result = train_reward_model(
        songs, answers, config=TRAINING, seed=0, log=lambda metrics, step: logged.append((step, metrics))
    )
    return songs, answers, result, logged, torch.equal(state, torch.random.get_rng_state())


def test_a_simple_taste_is_learned_and_holds_on_other_songs(trained):
    songs, answers, result, _, _ = trained
    # 80 answers about songs that were not trained on; chance has a standard error of 5.6 points.
    assert result.metrics["rm/acc_heldout"] > 0.85
    assert result.metrics["rm/saturated_frac"] == 0.0
    assert len(result.held_out) == 2 and set(result.held_out) < {song.track_id for song in songs}
    expected = {"loss", "nll", "ece", "brier", "nll_before", "ece_before", "brier_before", "temperature"}
    expected |= {"acc_heldout", "score_std", "saturated_frac", "ensemble_std"}
    assert {f"rm/{name}" for name in expected} <= set(result.metrics)
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert result.metrics["rm/nll"] <= result.metrics["rm/nll_before"] + 1e-6
    assert result.metrics["rm/n_train_pairs"] + result.metrics["rm/n_heldout_pairs"] == len(answers)


def test_training_reports_every_epoch_and_leaves_the_global_generator_alone(trained):
    _, _, _, logged, untouched = trained
    assert [step for step, _ in logged] == list(range(len(logged))) and 1 <= len(logged) <= TRAINING.epochs
    assert {"rm/loss", "rm/nll", "rm/acc_heldout"} <= set(logged[0][1])
    assert untouched


def test_the_same_seed_trains_the_same_model_and_another_does_not(trained):
    songs, answers, _, _, _ = trained
    short = replace(TRAINING, epochs=1)
    one, again, other = (train_reward_model(songs, answers, config=short, seed=seed) for seed in (1, 1, 2))
    weights = [torch.cat([w.flatten() for w in r.ensemble.parameters()]) for r in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert one.metrics == again.metrics


def test_named_songs_are_held_out_and_the_ceiling_is_asked_about_their_answers(trained):
    songs, answers, _, _, _ = trained
    asked = []

    def ceiling(preferences):
        asked.extend(preferences)
        return 0.9

    held_out = [songs[3].track_id]
    result = train_reward_model(
        songs, answers, config=replace(TRAINING, epochs=1), seed=0, held_out=held_out, bayes_ceiling=ceiling
    )
    assert result.held_out == tuple(held_out) and result.metrics["rm/bayes_ceiling"] == 0.9
    assert {p.track_id for p in asked} == set(held_out)
    assert len(asked) == sum(p.track_id in held_out for p in answers)


def test_too_few_answers_are_an_error_that_says_so(trained):
    songs, answers, _, _, _ = trained
    with pytest.raises(ParameterError, match="at least 2 songs"):
        of_one = [p for p in answers if p.track_id == songs[0].track_id]
        train_reward_model(songs, of_one, config=TRAINING, seed=0)
    with pytest.raises(ParameterError, match="more answers are needed"):
        train_reward_model(songs, [replace(p, label=0.5) for p in answers], config=TRAINING, seed=0)


def test_metrics_of_a_known_ensemble(trained):
    songs, answers, result, _, _ = trained
    test_songs = [song for song in songs if song.track_id in result.held_out]
    found = reward_metrics(result.ensemble, pair_batch(answers, test_songs))
    assert found["acc"] == pytest.approx(result.metrics["rm/acc_heldout"], abs=1e-6)
    assert found["ece"] == pytest.approx(result.metrics["rm/ece"], abs=1e-3)
