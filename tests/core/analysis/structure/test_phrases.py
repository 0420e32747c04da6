"""The semi-Markov model of phrases, against all ways to cut a few units into phrases."""

from collections.abc import Iterator

import numpy as np
import pytest

from editorbot_core.analysis.structure.phrases import (
    length_log_prior,
    likeliest_phrases,
    phrase_clusters,
    phrase_posterior,
)


def all_ways(n: int, longest: int) -> Iterator[list[int]]:
    """Starts of the phrases of every way to cut n units."""
    for bits in range(2 ** (n - 1)):
        starts = [0, *(u for u in range(1, n) if bits >> (u - 1) & 1)]
        if np.diff([*starts, n]).max() <= longest:
            yield starts


def log_weight(starts: list[int], log_odds: np.ndarray, log_prior: np.ndarray) -> float:
    lengths = np.diff([*starts, len(log_odds)])
    return float(log_odds[starts[1:]].sum() + log_prior[lengths - 1].sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("longest", [3, 6, 20])
def test_the_posterior_is_that_of_trying_everything(seed: int, longest: int) -> None:
    rng = np.random.default_rng(seed)
    n = 9
    log_odds, log_prior = rng.normal(0, 2, n), np.log(rng.dirichlet(np.ones(longest)))
    ways = list(all_ways(n, longest))
    weights = np.exp([log_weight(starts, log_odds, log_prior) for starts in ways])
    weights /= weights.sum()
    start, phase = np.zeros(n), np.zeros((n, 4))
    for starts, weight in zip(ways, weights, strict=True):
        start[starts] += weight
        begun = np.array(starts)[np.searchsorted(starts, np.arange(n), side="right") - 1]
        phase[np.arange(n), (np.arange(n) - begun) % 4] += weight
    found = phrase_posterior(log_odds, log_prior)
    np.testing.assert_allclose(found.start, start, atol=1e-9)
    np.testing.assert_allclose(found.phase, phase, atol=1e-9)
    assert likeliest_phrases(log_odds, log_prior).tolist() == ways[int(weights.argmax())]


def test_lengths_are_a_distribution_and_whole_bars_are_likelier() -> None:
    for bar in (1, 4):
        prior = np.exp(length_log_prior(bar))
        assert prior.sum() == pytest.approx(1.0)
        assert int(prior.argmax()) + 1 == 4 * bar
    assert prior[3::4].min() > prior[np.arange(len(prior)) % 4 != 3].max()


def test_phrases_that_sound_alike_are_one_material() -> None:
    # Phrases of 3, 2, 3 and 2 units; the first and the third are alike, and share no unit with the others.
    similarity = np.eye(10)
    for a, b in ((0, 5), (1, 6), (2, 7)):
        similarity[a, b] = similarity[b, a] = 0.9
    starts = np.array([0, 3, 5, 8])
    assert phrase_clusters(similarity, starts).tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 2, 2]
    assert phrase_clusters(similarity, starts, threshold=0.95).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert phrase_clusters(similarity, starts, threshold=0.0).tolist() == [0] * 10
    assert phrase_clusters(np.eye(3), np.array([0])).tolist() == [0, 0, 0]
