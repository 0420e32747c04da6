"""Learning in rounds: collect edits, have pairs of them compared, learn the reward and the policy, collect again.

The first round compares edits of many generators and of the warm start. Every later round adds pairs with edits of the
newest policy and of the search that its reward guides, because a reward model is right about the kinds of edit it was
shown, and less so about those that were made to please it (iterated RLHF: Bai et al. 2022, section 4.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.progress import Log, Progress
from editorbot_core.config import Config
from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import EditDecisionList, edl_of
from editorbot_core.policy.editors import candidate_edits
from editorbot_core.policy.network import Policy
from editorbot_core.policy.ppo import init_ppo, train_ppo
from editorbot_core.policy.rollout import sample_edits
from editorbot_core.policy.warm_start import warm_start
from editorbot_core.preferences.listener import BootstrapListener
from editorbot_core.preferences.pairs import pair_batch, pairs_among, propose_pairs
from editorbot_core.preferences.preference import EditPair, Preference
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.rewards.mixing import reward_pair
from editorbot_core.rewards.training import reward_metrics, train_reward_model
from editorbot_core.songs.song import Song
from editorbot_core.songs.splits import hold_out
from editorbot_core.training.judge import HeldOutJudge

Answer = Callable[[Sequence[EditPair], int], Sequence[Preference]]

# Targets at which a policy is asked for edits to compare, and edits of each.
COLLECTED_RATIOS = (0.4, 0.5, 0.65, 0.8)
SAMPLES_PER_RATIO = 2


@dataclass(frozen=True)
class Learned:
    """What the rounds arrived at.

    Attributes:
        policy: After the last round.
        reference: The warm start.
        ensemble: The reward model of the last round.
        answers: All answers, of all rounds.
        rounds: Metrics of every round, by name.
    """

    policy: Policy
    reference: Policy
    ensemble: RewardEnsemble
    answers: tuple[Preference, ...]
    rounds: tuple[dict[str, float], ...] = field(default=())


def sampled_edits(
    policy: Policy, songs: Sequence[Song], *, seed: int, per_ratio: int = SAMPLES_PER_RATIO, name: str = "policy"
) -> dict[str, list[EditDecisionList]]:
    """Edits that the policy makes of every song, `per_ratio` for each of a few targets, by track id."""
    per_song = torch.tensor(COLLECTED_RATIOS).repeat_interleave(per_ratio)
    index = torch.arange(len(songs)).repeat_interleave(len(per_song))
    rollout = sample_edits(
        policy,
        collate(songs).to(policy.device),
        song_index=index.to(policy.device),
        target_ratio=per_song.repeat(len(songs)).to(policy.device),
        generator=torch.Generator(policy.device).manual_seed(seed),
    )
    edits: dict[str, list[EditDecisionList]] = {song.track_id: [] for song in songs}
    ratios = per_song.tolist() * len(songs)
    for i, ratio, actions in zip(index.tolist(), ratios, rollout.actions.cpu().numpy(), strict=True):
        song = songs[i]
        unit_actions = actions[: song.units.n_units]
        edl = edl_of(song, unit_actions, target_duration_s=ratio * song.duration, model={"name": name})
        edits[song.track_id].append(edl)
    return edits


def guided_edits(
    policy: Policy, ensemble: RewardEnsemble, songs: Sequence[Song], *, seed: int, progress: Progress | None = None
) -> dict[str, list[EditDecisionList]]:
    """The edits that the reward likes best, two for each of the same targets, by track id."""
    edits: dict[str, list[EditDecisionList]] = {}
    for done, song in enumerate(songs):
        if progress is not None:
            progress("guided edits", done, len(songs))
        edits[song.track_id] = [
            edl
            for ratio in COLLECTED_RATIOS
            for edl in candidate_edits(
                policy, song, ratio * song.duration, n=SAMPLES_PER_RATIO, reward=ensemble, guided=True, seed=seed
            )
        ]
    if progress is not None:
        progress("guided edits", len(songs), len(songs))
    return edits


def reward_on_songs(
    ensemble: RewardEnsemble,
    songs: Sequence[Song],
    *,
    n_pairs: int,
    seed: int,
    policy_edits: dict[str, list[EditDecisionList]] | None = None,
    listener: BootstrapListener | None = None,
) -> dict[str, float]:
    """How well the ensemble orders pairs of given songs: `acc`, `ceiling` (the best possible), `ece`, ...

    Args:
        ensemble: Calibrated.
        songs: Songs that it was not trained on.
        n_pairs: Pairs over all songs.
        seed: Of pairs and answers.
        policy_edits: Edits of a policy, by track id: then pairs of two of them for one target are asked about.
        listener: Whose answers count.

    Returns:
        Metrics by name; none if no answer prefers an edit, as where a policy has one idea per song.
    """
    listener = listener or BootstrapListener()
    rng = np.random.default_rng(seed)
    if policy_edits is None:
        pairs = propose_pairs(songs, n_pairs=n_pairs, rng=rng)
    else:
        pairs = pairs_among(policy_edits)
        pairs = [pairs[i] for i in rng.permutation(len(pairs))[:n_pairs]]
    answers = listener.answers(songs, pairs, seed=seed)
    batch = pair_batch(answers, songs).to(ensemble.temperature.device)
    if not bool((batch.label != 0.5).any()):
        return {}
    return reward_metrics(ensemble, batch) | {"ceiling": listener.bayes_ceiling(songs, pairs)}


def learn_in_rounds(
    songs: Sequence[Song],
    *,
    config: Config,
    n_rounds: int = 2,
    answer: Answer | None = None,
    device: str = "cpu",
    log: Log | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Warm start, then `n_rounds` rounds of collecting, comparing and learning.

    Round 0 asks about `config.n_pairs` pairs per song, every later round about half as many, with edits of the policy
    of the round before. The reward model is trained afresh on all answers, the policy afresh from the warm start.

    Args:
        songs: Training songs; a share validates the reward model and chooses among policies.
        config: Of all parts.
        n_rounds: At least 1.
        answer: Answers pairs; given pairs and the number of the round. None for the bootstrap listener.
        device: Where to train.
        log: Gets all metrics, `round/...` among them, with a running step per round.
        progress: Told about every stage.

    Raises:
        ParameterError: If `n_rounds` is below 1.
    """
    if n_rounds < 1:
        raise ParameterError(f"n_rounds must be at least 1; got {n_rounds}")
    aside = hold_out([song.track_id for song in songs], fraction=config.reward.held_out_fraction, seed=config.seed)
    learning = [song for song in songs if song.track_id not in aside]
    held_out = [song for song in songs if song.track_id in aside]
    torch.manual_seed(config.seed)
    reference = warm_start(
        Policy(config.policy), songs, config=config.warm_start, seed=config.seed, device=device, progress=progress
    )
    listener = BootstrapListener()
    policy, answers, found = reference, [], []
    batch = collate(learning).to(device)
    ensemble: RewardEnsemble | None = None
    for number in range(n_rounds):
        seed = config.seed + 1000 * number
        own = sampled_edits(policy, songs, seed=seed)
        if ensemble is not None:
            guided = guided_edits(policy, ensemble, songs, seed=seed, progress=progress)
            own = {track_id: [*edits, *guided[track_id]] for track_id, edits in own.items()}
        n_pairs = config.n_pairs * len(songs) // (1 if number == 0 else 2)
        rng = np.random.default_rng(seed)
        pairs = propose_pairs(songs, n_pairs=n_pairs, rng=rng, policy_edits=own, progress=progress)
        new = list(answer(pairs, number)) if answer else listener.answers(songs, pairs, seed=config.seed, round=number)
        metrics: dict[str, float] = {"round/n_new_answers": float(len(new))}
        if ensemble is not None:
            # The reward model of the round before, on edits that were made to please it.
            asked = pair_batch(new, songs).to(device)
            if bool((asked.label != 0.5).any()):
                metrics["rm/acc_onpolicy"] = reward_metrics(ensemble, asked)["acc"]
        answers += new
        trained = train_reward_model(
            songs, answers, config=config.reward, seed=seed, device=device, held_out=aside, progress=progress
        )
        ensemble = trained.ensemble
        rewards = reward_pair(ensemble, batch)
        state = train_ppo(
            init_ppo(reference, batch, rewards, config=config.ppo, seed=seed),
            batch,
            rewards,
            total_steps=config.total_steps,
            evaluate=HeldOutJudge(held_out, ensemble, ratios=config.eval_ratios, device=device),
            progress=progress,
        )
        policy = state.selection.best_policy(state.policy)
        metrics |= trained.metrics
        if state.selection.first is not None and state.selection.best_score is not None:
            metrics["eval/score_reference"] = state.selection.first.score
            metrics["eval/score"] = state.selection.best_score
        found.append(metrics)
        if log is not None:
            log(metrics, number)
    assert ensemble is not None
    return Learned(policy, reference, ensemble, tuple(answers), tuple(found))
