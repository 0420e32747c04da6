"""Training the learned reward from preferences, and measuring how good it became.

Songs, never pairs, are held out: a pair of a song whose other pairs were trained on says little. Held-out songs decide
when to stop and fit the temperature, so figures on them are slightly kind; a pipeline that claims something judges on
songs that were in neither part. Metrics carry the names `rm/...` of the training log.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.progress import Log, Progress
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.preferences.pairs import PairBatch, pair_batch
from editorbot_core.preferences.preference import Preference
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.learned import RewardEnsemble, saturated_share
from editorbot_core.rewards.model import RewardModel
from editorbot_core.songs.song import Song
from editorbot_core.songs.splits import hold_out

# Shares of the heard part that are tried on held-out songs.
HEARD_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

# Nats by which the heard part has to explain held-out answers better than nothing, to count.
_CLEAR_GAIN = 0.005

# A tie, and three strengths either way.
N_ANSWERS = 7
_FIRST_STEPS = (0.3, 2.0, 4.0)
_THRESHOLD_LEARNING_RATE = 3e-3
_LEAST_LIKELIHOOD = 1e-9
_ECE_BINS = 10
_TEMPERATURE_RANGE = (0.05, 20.0)


@dataclass(frozen=True)
class TrainedReward:
    """A trained ensemble and what is known of it.

    Attributes:
        ensemble: In evaluation mode, on the device it was trained on, temperature fitted.
        metrics: By name, `rm/...`; measured on the held-out songs.
        held_out: Track ids of the held-out songs.
    """

    ensemble: RewardEnsemble
    metrics: dict[str, float]
    held_out: tuple[str, ...]


class AnswerThresholds(nn.Module):
    """Differences, in units of the listener's noise, from which an answer is no tie, of strength 2 and of strength 3.

    They belong to the listener and are learned beside the model; nothing needs them afterwards.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_steps = nn.Parameter(torch.tensor(_FIRST_STEPS).log())

    def forward(self) -> torch.Tensor:
        """The three thresholds, rising, float32 (3,)."""
        return self.log_steps.exp().cumsum(0)


def preference_loss(
    scores_a: torch.Tensor,
    scores_b: torch.Tensor,
    label: torch.Tensor,
    strength: torch.Tensor,
    confidence: torch.Tensor,
    *,
    thresholds: torch.Tensor,
    temperature: float,
    label_smoothing: float,
    centring: float,
) -> torch.Tensor:
    """Negative log-likelihood of every answer under a cumulative logit model of paired comparisons, (n,).

    A tie, and a preference of strength 1, 2 or 3 for either side, are seven answers in a row (Agresti 1992, eq. 1;
    McCullagh 1980). With `d = (ra - rb) / temperature` towards the preferred side and thresholds `t1 < t2 < t3`, an
    answer of strength k has probability `P = s(t[k + 1] - d) - s(t[k] - d)`, `s` the logistic function and `t4`
    infinite, a tie `s(t1 - d) - s(-t1 - d)`. It is given by mistake with probability `e`, and then any of the seven is
    as likely: `-ln((1 - e) P + e / 7) + c (ra^2 + rb^2)`. So an answer tells how far apart two edits are and not only
    which is better; without strengths this is Bradley and Terry's (1952) model with ties. Swapping the sides and
    flipping the label changes nothing.

    Args:
        scores_a: Scores of the first sides, (n,).
        scores_b: Scores of the second sides, (n,).
        label: P(a preferred): 1, 0.5 or 0, (n,).
        strength: 1-3, int64 (n,); not read for ties.
        confidence: Of answers that are no tie, in [0, 1], (n,): `e = 1 - (1 - eps) confidence`.
        thresholds: Positive and rising, (3,).
        temperature: Score difference that is one unit of the listener's noise.
        label_smoothing: eps, the `e` of ties and of answers that are sure.
        centring: c.
    """
    gap = (scores_a - scores_b) / temperature
    is_tie = label == 0.5
    gap = torch.where(is_tie, gap, gap * (2.0 * label - 1.0))
    # edges[k] is where answers of strength k end; a preference without a strength is one of strength 1.
    edges = F.pad(thresholds, (0, 1), value=torch.inf)
    level = torch.where(is_tie, 0, strength.clamp(min=1))
    above = edges[level]
    below = torch.where(is_tie, -thresholds[0], edges[(level - 1).clamp(min=0)])
    likelihood = torch.sigmoid(above - gap) - torch.sigmoid(below - gap)
    mistaken = torch.where(is_tie, label_smoothing, 1.0 - (1.0 - label_smoothing) * confidence)
    likelihood = (1.0 - mistaken) * likelihood + mistaken / N_ANSWERS
    return centring * (scores_a**2 + scores_b**2) - likelihood.clamp(min=_LEAST_LIKELIHOOD).log()


def expected_calibration_error(probability: torch.Tensor, label: torch.Tensor) -> float:
    """Mean distance of confidence and accuracy over 10 equal bins of confidence (Guo et al. 2017, eq. 3).

    Args:
        probability: P(a preferred), (n,).
        label: 1 or 0, (n,).
    """
    confidence = torch.maximum(probability, 1 - probability)
    right = ((probability > 0.5) == (label > 0.5)).float()
    bins = ((confidence - 0.5) * 2 * _ECE_BINS).long().clamp(max=_ECE_BINS - 1)
    error = 0.0
    for i in range(_ECE_BINS):
        inside = bins == i
        if bool(inside.any()):
            error += float(inside.float().mean() * (confidence[inside].mean() - right[inside].mean()).abs())
    return error


def fit_temperature(gaps: torch.Tensor, label: torch.Tensor) -> float:
    """The temperature under which score differences (n,) explain labels (n,) best, by golden-section search."""
    low, high = (math.log(value) for value in _TEMPERATURE_RANGE)

    def loss(log_temperature: float) -> float:
        return float(F.binary_cross_entropy_with_logits(gaps.double() / math.exp(log_temperature), label.double()))

    golden = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - golden * (high - low), low + golden * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(40):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - golden * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + golden * (high - low)
            loss_right = loss(right)
    return math.exp((low + high) / 2.0)


def _trimmed(songs: SongBatch, *, hide_structure: torch.Tensor | None = None) -> SongBatch:
    """The songs without padding that none of them needs, and without the structure of those in `hide_structure`."""
    n_beats, n_units = int(songs.beat_mask.sum(1).max()), int(songs.unit_mask.sum(1).max())
    phrase_start, phase, cluster = songs.phrase_start, songs.phase, songs.cluster
    if hide_structure is not None:
        phrase_start = phrase_start * ~hide_structure[:, None]
        phase = phase * ~hide_structure[:, None, None]
        cluster = cluster.masked_fill(hide_structure[:, None], -1)
    return SongBatch(
        features=songs.features[:, :n_beats],
        beat_mask=songs.beat_mask[:, :n_beats],
        unit_id=songs.unit_id[:, :n_beats].clamp(max=n_units),
        unit_mask=songs.unit_mask[:, :n_units],
        unit_durations=songs.unit_durations[:, :n_units],
        first_beat=songs.first_beat[:, :n_units],
        last_beat=songs.last_beat[:, :n_units],
        movable=songs.movable[:, :n_units],
        phrase_start=phrase_start[:, :n_units],
        phase=phase[:, :n_units],
        cluster=cluster[:, :n_units],
        duration=songs.duration,
    )


def _sides(songs: SongBatch, place: torch.Tensor, pairs: PairBatch) -> EditBatch:
    """Both sides of the pairs as edits of trimmed songs, the a sides first; `place` (S,) is where each song went."""
    index = place[pairs.song_index]
    actions = torch.cat([pairs.actions_a, pairs.actions_b])[:, : songs.n_units]
    return EditBatch(songs, torch.cat([index, index]), actions, pairs.target_ratio.repeat(2))


def _set_statistics(member: RewardModel, pairs: PairBatch, train_songs: torch.Tensor) -> None:
    """Standardisation by mean and deviation over the beats of the training songs."""
    rows = pairs.songs.features[train_songs][pairs.songs.beat_mask[train_songs]]
    member.feature_mean.copy_(rows.mean(0))
    member.feature_scale.copy_(rows.std(0, correction=0).clamp(min=1e-4))


def _scored(member: RewardModel, pairs: PairBatch, *, songs_at_once: int) -> torch.Tensor:
    """Scores of both sides in evaluation mode, (2, n)."""
    was_training = member.training
    member.eval()
    out = torch.zeros((2, len(pairs)), device=pairs.label.device)
    with torch.no_grad():
        for chunk in pairs.song_index.unique().split(songs_at_once):
            rows = torch.isin(pairs.song_index, chunk).nonzero()[:, 0]
            songs = _trimmed(pairs.songs.select(chunk))
            place = torch.zeros(pairs.songs.n_songs, dtype=torch.int64, device=chunk.device)
            place[chunk] = torch.arange(len(chunk), device=chunk.device)
            out[:, rows] = member.score(member.encode(songs), _sides(songs, place, pairs.select(rows))).view(2, -1)
    member.train(was_training)
    return out


def _accuracy(gaps: torch.Tensor, label: torch.Tensor) -> float:
    """Share of answers that are no ties whose sign the gaps have."""
    clear = label != 0.5
    return float(((gaps > 0) == (label > 0.5))[clear].float().mean()) if bool(clear.any()) else float("nan")


def _nll(gaps: torch.Tensor, label: torch.Tensor) -> float:
    """Mean negative log-likelihood of labels 1 and 0, nats."""
    return float(F.binary_cross_entropy_with_logits(gaps, label))


def _learning_rate(step: int, n_steps: int, config: RewardConfig) -> float:
    """Linear warm-up, then a cosine to zero, over 1."""
    warmup = max(1, round(config.warmup_share * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def _song_weights(config: RewardConfig, n_songs: int, rng: np.random.Generator) -> np.ndarray:
    """How much every song weighs for every member, float64 (k, n_songs), rows of mean 1.

    The Bayesian bootstrap (Rubin 1981): exponential weights instead of counts, so that no member goes without a song.
    """
    if config.n_members == 1:
        return np.ones((1, n_songs))
    weights = rng.exponential(size=(config.n_members, n_songs)).clip(0.2, 3.0)
    return weights / weights.mean(1, keepdims=True)


def _step(
    members: Sequence[RewardModel],
    thresholds: Sequence[AnswerThresholds],
    optimizers: Sequence[torch.optim.Optimizer],
    pairs: PairBatch,
    chunk: np.ndarray,
    song_weight: torch.Tensor,
    config: RewardConfig,
    rng: np.random.Generator,
) -> float:
    """One update of every member on the songs `chunk`, whose pairs share one encoder pass; the mean loss."""
    device = pairs.label.device
    index = pairs.song_index.cpu().numpy()
    rows = np.concatenate([rng.permutation(np.flatnonzero(index == song))[: config.pairs_per_song] for song in chunk])
    chosen = pairs.select(torch.as_tensor(rows, device=device))
    at = torch.as_tensor(chunk, device=device)
    hidden = torch.as_tensor(rng.random(len(chunk)) < config.structure_dropout, device=device)
    songs = _trimmed(pairs.songs.select(at), hide_structure=hidden)
    place = torch.zeros(pairs.songs.n_songs, dtype=torch.int64, device=device)
    place[at] = torch.arange(len(chunk), device=device)
    edits = _sides(songs, place, chosen)
    total = 0.0
    # Members share no weights, so one backward pass each is the gradient of the sum of their losses.
    for member, scale, optimizer, weights in zip(members, thresholds, optimizers, song_weight, strict=True):
        states = member.encode(songs)
        # What follows the encoder costs little beside it and needs more updates than it does.
        fixed = replace(states, unit=states.unit.detach(), bound=states.bound.detach())
        for known in [fixed] * (config.head_updates - 1) + [states]:
            scores_a, scores_b = member.score(known, edits).view(2, -1)
            losses = preference_loss(
                scores_a,
                scores_b,
                chosen.label,
                chosen.strength,
                chosen.confidence,
                thresholds=scale(),
                temperature=config.training_temperature,
                label_smoothing=config.label_smoothing,
                centring=config.centring,
            )
            loss = (weights[chosen.song_index] * losses).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(member.parameters(), config.grad_norm)
            optimizer.step()
        total += float(loss.detach())
    return total / len(members)


def _fit(
    ensemble: RewardEnsemble,
    train: PairBatch,
    held_out: PairBatch,
    rng: np.random.Generator,
    log: Log | None,
    progress: Progress | None,
) -> float:
    """Train the members, leave each at its best epoch on the held-out songs; the training loss of the last epoch."""
    config = ensemble.config
    members = [member for member in ensemble.members if isinstance(member, RewardModel)]
    songs = train.song_index.unique().cpu().numpy()
    weights = torch.ones((config.n_members, train.songs.n_songs), device=train.label.device)
    drawn = _song_weights(config, len(songs), rng)
    weights[:, songs] = torch.as_tensor(drawn, dtype=torch.float32, device=weights.device)
    thresholds = [AnswerThresholds().to(train.label.device) for _ in members]
    optimizers = [
        torch.optim.AdamW(
            [
                {"params": list(member.encoder.parameters()), "peak": config.encoder_learning_rate},
                {
                    "params": [w for name, w in member.named_parameters() if not name.startswith("encoder.")],
                    "peak": config.learning_rate,
                },
                {"params": list(scale.parameters()), "peak": _THRESHOLD_LEARNING_RATE, "weight_decay": 0.0},
            ],
            weight_decay=config.weight_decay,
        )
        for member, scale in zip(members, thresholds, strict=True)
    ]
    per_epoch = math.ceil(len(songs) / config.songs_per_step)
    n_steps = config.epochs * per_epoch
    best_nll = [math.inf] * len(members)
    best_state = [{name: value.clone() for name, value in member.state_dict().items()} for member in members]
    best_epoch, step, epoch_loss = 0, 0, math.nan
    clear = held_out.label != 0.5
    for epoch in range(config.epochs):
        ensemble.train()
        losses = []
        for chunk in np.array_split(rng.permutation(songs), per_epoch):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * _learning_rate(step, n_steps, config)
            losses.append(_step(members, thresholds, optimizers, train, chunk, weights, config, rng))
            step += 1
        epoch_loss = float(np.mean(losses))
        gaps = []
        for i, member in enumerate(members):
            scores_a, scores_b = _scored(member, held_out, songs_at_once=config.songs_per_step)
            gap = (scores_a - scores_b)[clear]
            gaps.append(gap)
            nll = _nll(gap / fit_temperature(gap, held_out.label[clear]), held_out.label[clear])
            if nll < best_nll[i] - 1e-4:
                best_nll[i], best_epoch = nll, epoch
                best_state[i] = {name: value.clone() for name, value in member.state_dict().items()}
        if log is not None:
            accuracy = _accuracy(torch.stack(gaps).mean(0), held_out.label[clear])
            log({"rm/loss": epoch_loss, "rm/nll": float(np.mean(best_nll)), "rm/acc_heldout": accuracy}, epoch)
        if progress is not None:
            progress("reward model", epoch + 1, config.epochs)
        if epoch - best_epoch >= config.patience:
            break
    for member, state in zip(members, best_state, strict=True):
        member.load_state_dict(state)
        _settle_heard_share(member, held_out)
    if progress is not None:
        progress("reward model", config.epochs, config.epochs)
    return epoch_loss


def _settle_heard_share(member: RewardModel, held_out: PairBatch) -> None:
    """Let the heard part count for the share that explains the held-out answers best, if it clearly helps at all."""
    clear = held_out.label != 0.5
    label, nll = held_out.label[clear], {}
    for share in HEARD_SHARES:
        member.heard_share.fill_(share)
        scores_a, scores_b = _scored(member, held_out, songs_at_once=member.config.songs_per_step)
        gap = (scores_a - scores_b)[clear]
        nll[share] = _nll(gap / fit_temperature(gap, label), label)
    best = min(nll, key=lambda share: nll[share])
    member.heard_share.fill_(best if nll[best] < nll[0.0] - _CLEAR_GAIN else 0.0)


def reward_metrics(ensemble: RewardEnsemble, pairs: PairBatch, *, songs_at_once: int = 8) -> dict[str, float]:
    """How well the ensemble explains answers it was not trained on; ties count for nothing but the spread of scores.

    Args:
        ensemble: Calibrated.
        pairs: Answers, at least one of them no tie.
        songs_at_once: Songs encoded together.

    Returns:
        `acc`, `nll`, `ece`, `brier` at the ensemble's temperature, `nll_before`, `ece_before`, `brier_before` at 1,
        `score_std`, `saturated_frac`, `ensemble_std`, `n_pairs`, without a prefix.
    """
    members = [member for member in ensemble.members if isinstance(member, RewardModel)]
    by_member = torch.stack([_scored(member, pairs, songs_at_once=songs_at_once) for member in members])
    scores = by_member.mean(0)
    clear = pairs.label != 0.5
    label, gaps = pairs.label[clear], (scores[0] - scores[1])[clear]
    metrics = {"acc": _accuracy(gaps, label), "n_pairs": float(clear.sum())}
    for suffix, temperature in (("", float(ensemble.temperature)), ("_before", 1.0)):
        probability = torch.sigmoid(gaps / temperature)
        metrics[f"nll{suffix}"] = _nll(gaps / temperature, label)
        metrics[f"ece{suffix}"] = expected_calibration_error(probability, label)
        metrics[f"brier{suffix}"] = float(((probability - label) ** 2).mean())
    return metrics | {
        "score_std": float(scores.std(correction=0)),
        "saturated_frac": saturated_share(scores),
        "ensemble_std": float(by_member.std(0, correction=0).mean()),
    }


def train_reward_model(
    songs: Sequence[Song],
    preferences: Sequence[Preference],
    *,
    config: RewardConfig,
    seed: int,
    device: torch.device | str = "cpu",
    held_out: Sequence[str] | None = None,
    bayes_ceiling: Callable[[Sequence[Preference]], float] | None = None,
    log: Log | None = None,
    progress: Progress | None = None,
) -> TrainedReward:
    """A calibrated ensemble that explains the preferences.

    Args:
        songs: Songs the preferences are about; others do no harm.
        preferences: Answers; those that do not fit the songs' units are left out and counted (`rm/n_refused`).
        config: Settings of the model and of its training.
        seed: Decides weights, order, noise and, unless named, the held-out songs.
        device: Where to train; the ensemble stays there.
        held_out: Track ids that validate; by default a share of the songs, by hash.
        bayes_ceiling: Accuracy of the best possible predictor of given answers, where the listener is known; NaN
            where it is not, and then it is not reported.
        log: Told metrics and epoch, once an epoch.
        progress: Told about epochs.

    Raises:
        ParameterError: If there are answers about fewer than two songs, or none that is no tie on either side of the
            split.
    """
    pairs = pair_batch(preferences, songs)
    rated = sorted({songs[int(i)].track_id for i in pairs.song_index.unique()})
    validating = hold_out(rated, fraction=config.held_out_fraction, seed=seed) if held_out is None else tuple(held_out)
    is_held_out = torch.tensor([song.track_id in validating for song in songs], dtype=torch.bool)[pairs.song_index]
    for rows, what in ((~is_held_out, "training"), (is_held_out, "held-out")):
        if not bool((pairs.label[rows] != 0.5).any()):
            raise ParameterError(
                f"no answer about the {what} songs prefers one edit ({int(rows.sum())} answers, {pairs.n_refused} "
                "refused because their songs are missing or were analysed again); more answers are needed"
            )
    pairs = pairs.to(device)
    train = pairs.select((~is_held_out).nonzero()[:, 0].to(device))
    test = pairs.select(is_held_out.nonzero()[:, 0].to(device))
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed)
        ensemble = RewardEnsemble(config).to(device)
        for member in ensemble.members:
            if isinstance(member, RewardModel):
                _set_statistics(member, pairs, train.song_index.unique())
        loss = _fit(ensemble, train, test, rng, log, progress)
    ensemble.eval().requires_grad_(False)
    scores = torch.stack([_scored(m, test, songs_at_once=8) for m in ensemble.members if isinstance(m, RewardModel)])
    clear = test.label != 0.5
    gaps = (scores.mean(0)[0] - scores.mean(0)[1])[clear]
    ensemble.temperature.fill_(fit_temperature(gaps, test.label[clear]))
    found = reward_metrics(ensemble, test)
    metrics = {f"rm/{name}": value for name, value in found.items() if name not in ("acc", "n_pairs")}
    metrics |= {
        "rm/loss": loss,
        "rm/acc_heldout": found["acc"],
        "rm/temperature": float(ensemble.temperature),
        "rm/n_train_pairs": float(len(train)),
        "rm/n_heldout_pairs": float(len(test)),
        "rm/n_refused": float(pairs.n_refused),
    }
    if bayes_ceiling is not None:
        best_possible = bayes_ceiling([preferences[int(i)] for i in test.source_index])
        if math.isfinite(best_possible):
            metrics["rm/bayes_ceiling"] = best_possible
    ensemble.metrics = dict(metrics)
    return TrainedReward(ensemble=ensemble, metrics=metrics, held_out=tuple(sorted(set(validating) & set(rated))))
