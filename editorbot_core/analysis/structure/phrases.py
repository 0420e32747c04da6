"""Phrases from evidence: a semi-Markov model of phrase lengths, and clusters of phrases with the same material.

Evidence is the log-odds of a phrase start at every unit. The forward-backward pass over all segmentations gives the
posterior probability of a start, the Viterbi path the likeliest phrases. Positions in a phrase count from 0, modulo 4.
"""

from typing import NamedTuple

import numpy as np

from editorbot_core.analysis.structure.structure import N_PHASES

# Relative frequencies of phrases of 1, 2, ..., 16 bars.
_LENGTH_PRIOR = (0.3, 1.0, 0.6, 8.0, 1.0, 1.0, 0.4, 6.0, 0.6, 0.5, 0.1, 0.5, 0.1, 0.1, 0.1, 0.4)
# Similarity from which phrases are joined to one cluster.
_SAME_MATERIAL = 0.4


def length_log_prior(bar: int) -> np.ndarray:
    """Log-probabilities of phrases of 1, 2, ... units, (16 * bar,); lengths that are not whole bars are rare.

    Args:
        bar: Units per bar: 1 if units are bars, 4 if they are beats.
    """
    per_bar = np.array(_LENGTH_PRIOR)
    prior = np.full(bar * len(per_bar), 0.02)
    prior[bar - 1 :: bar] = per_bar
    return np.log(prior / prior.sum())


class PhrasePosterior(NamedTuple):
    """Probabilities per unit: `start` float64 (n,), `phase` float64 (n, 4)."""

    start: np.ndarray
    phase: np.ndarray


def phrase_posterior(log_odds: np.ndarray, length_log_prior: np.ndarray) -> PhrasePosterior:
    """Posterior probabilities of phrase starts and positions, by forward-backward over all segmentations.

    The weight of a segmentation is the product of the priors of its phrases and of the odds at their starts; the first
    start is certain.

    Args:
        log_odds: Log-odds of a phrase start, (n,).
        length_log_prior: Log-probability of a phrase of 1, 2, ... units.

    Examples:
        Evidence for a start at unit 4 of eight bars; the prior also allows one phrase of eight:

        >>> log_odds = np.array([0.0, -3, -3, -3, 3, -3, -3, -3])
        >>> posterior = phrase_posterior(log_odds, length_log_prior(1))
        >>> posterior.start.round(2)
        array([1.  , 0.  , 0.  , 0.  , 0.91, 0.  , 0.  , 0.  ])
        >>> posterior.phase.argmax(axis=1)
        array([0, 1, 2, 3, 0, 1, 2, 3])
    """
    n, longest = len(log_odds), len(length_log_prior)
    odds = np.concatenate([[0.0], log_odds[1:]])
    forward, backward = np.full(n + 1, -np.inf), np.full(n + 1, -np.inf)
    forward[0] = backward[n] = 0.0
    for end in range(1, n + 1):
        start = np.arange(max(0, end - longest), end)
        forward[end] = np.logaddexp.reduce(forward[start] + odds[start] + length_log_prior[end - start - 1])
    for start_unit in range(n - 1, -1, -1):
        end_unit = np.arange(start_unit + 1, min(n, start_unit + longest) + 1)
        terms = backward[end_unit] + length_log_prior[end_unit - start_unit - 1]
        backward[start_unit] = odds[start_unit] + np.logaddexp.reduce(terms)
    start_probability = np.exp(np.minimum(forward[:n] + backward[:n] - forward[n], 0.0))

    # phrases[s, l]: probability of a phrase of l + 1 units at s; reaching[s, k]: of one at s that holds s + k.
    ends = np.arange(n)[:, None] + np.arange(1, longest + 1)[None]
    inside = ends <= n
    log_phrases = (forward[:n] + odds)[:, None] + length_log_prior[None] + backward[np.minimum(ends, n)] - forward[n]
    phrases = np.where(inside, np.exp(np.minimum(log_phrases, 0.0)), 0.0)
    reaching = phrases[:, ::-1].cumsum(axis=1)[:, ::-1]
    phase = np.zeros((n, N_PHASES))
    for step in range(min(longest, n)):
        phase[step:, step % N_PHASES] += reaching[: n - step, step]
    return PhrasePosterior(start_probability, phase / phase.sum(axis=1, keepdims=True))


def likeliest_phrases(log_odds: np.ndarray, length_log_prior: np.ndarray) -> np.ndarray:
    """Starts of the phrases of the likeliest segmentation (Viterbi), int64, the first 0.

    Examples:
        >>> likeliest_phrases(np.array([0.0, -3, -3, -3, 3, -3, -3, -3]), length_log_prior(1))
        array([0, 4])
    """
    n, longest = len(log_odds), len(length_log_prior)
    odds = np.concatenate([[0.0], log_odds[1:]])
    best, previous = np.zeros(n + 1), np.zeros(n + 1, dtype=np.int64)
    for end in range(1, n + 1):
        start = np.arange(max(0, end - longest), end)
        score = best[start] + odds[start] + length_log_prior[end - start - 1]
        previous[end] = start[score.argmax()]
        best[end] = score.max()
    starts = []
    end = n
    while end > 0:
        end = int(previous[end])
        starts.append(end)
    return np.array(starts[::-1], dtype=np.int64)


def phrase_clusters(similarity: np.ndarray, starts: np.ndarray, *, threshold: float = _SAME_MATERIAL) -> np.ndarray:
    """Material of every unit from the first start on, int64: phrases clustered by average linkage.

    The similarity of two phrases is the mean over their units, aligned at the start, up to the end of the shorter one.

    Args:
        similarity: Similarity of every two units, (n, n).
        starts: First units of the phrases, rising.
        threshold: Clusters are joined while their mean similarity is at least this.

    Examples:
        Phrases of two units with the form A B A:

        >>> material = np.array([0, 1, 2, 3, 0, 1])
        >>> phrase_clusters((material[:, None] == material[None]).astype(float), np.array([0, 2, 4]))
        array([0, 0, 1, 1, 0, 0])
    """
    n_phrases = len(starts)
    lengths = np.diff(np.append(starts, len(similarity)))
    alike = np.zeros((n_phrases, n_phrases))
    for i in range(n_phrases):
        for j in range(i):
            unit = np.arange(min(lengths[i], lengths[j]))
            alike[i, j] = alike[j, i] = similarity[starts[i] + unit, starts[j] + unit].mean()
    members = np.eye(n_phrases)
    while len(members) > 1:
        sizes = members.sum(axis=1)
        linkage = members @ alike @ members.T / (sizes[:, None] * sizes[None])
        np.fill_diagonal(linkage, -np.inf)
        a, b = sorted(divmod(int(linkage.argmax()), len(members)))
        if linkage[a, b] < threshold:
            break
        members[a] += members[b]
        members = np.delete(members, b, axis=0)
    group = members.argmax(axis=0)
    in_order = {old: new for new, old in enumerate(dict.fromkeys(group.tolist()))}
    return np.repeat([in_order[g] for g in group.tolist()], lengths).astype(np.int64)
