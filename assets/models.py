"""Models: the reference policy, the reward model, and two policies that learn from it.

Everything is learned on songs of the part `train`; the reward model keeps some of those aside to validate on, and the
policies are chosen by those.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from assets.home import Home
from assets.ingestion import songs_of
from assets.memo import Memo
from assets.preferences import QUEUE_LENGTH, answers_of, pairs_of
from assets.records import RATIO, finish_policy, params, plots_of, provenance
from assets.registry import registry
from assets.resources import Tracking
from assets.weights import still_there, weights_of
from editorbot_core.progress import Progress

if TYPE_CHECKING:
    from editorbot_core.policy import Policy
    from editorbot_core.policy_training import HeldOut
    from editorbot_core.preferences import Preference
    from editorbot_core.rewards.learned import RewardEnsemble
    from editorbot_core.songs import EditBatch, Song


@dg.asset(group_name="models", kinds={"pytorch", "mlflow"}, deps=["beat_features"])
def reference_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
) -> dg.MaterializeResult:
    """The warm start: a policy that imitates the dynamic-programming editor. KL and DPO are measured from it."""
    memo = Memo(context, home, settings=("seed", "policy", "warm_start"))
    if memo.unchanged and still_there(memo):
        return memo.again()
    import torch

    from editorbot_core.policy import Policy
    from editorbot_core.warm_start import warm_start

    config = home.config()
    songs = songs_of(home, song_library, "train")
    with tracking.stage(context, inputs=memo.inputs, params=params(home, ("seed", "policy", "warm_start"))) as stage:
        torch.manual_seed(config.seed)
        policy = warm_start(
            Policy(config.policy),
            songs,
            config=config.warm_start,
            seed=config.seed,
            device=home.device(),
            log=stage.log,
            progress=progress,
        )
        sha256, metadata = finish_policy(
            context,
            home,
            memo,
            stage,
            policy,
            reference=policy,
            songs=songs,
            parents=("song_library", "beat_features"),
            panels={"loss": ["warm/loss"], "accuracy": ["warm/accuracy"]},
        )
    return memo.made(sha256[:32], {**metadata, **tracking.metadata(stage)})


def _tested(ensemble: "RewardEnsemble", songs: "list[Song]", answers: "list[Preference]") -> dict[str, float]:
    """How well the ensemble orders pairs of songs that nothing was learned from or chosen by."""
    from editorbot_core.pairs import pair_batch
    from editorbot_core.rewards.training import reward_metrics

    pairs = pair_batch(answers, songs).to(ensemble.temperature.device)
    if not bool((pairs.label != 0.5).any()):
        return {}
    found = reward_metrics(ensemble, pairs)
    return {f"rm/test_{name}": found[name] for name in ("acc", "nll", "ece", "brier", "n_pairs")}


@dg.asset(group_name="models", kinds={"pytorch", "mlflow"}, deps=["beat_features"])
def reward_model(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
    edit_pairs: pd.DataFrame,
    preferences: pd.DataFrame,
) -> dg.MaterializeResult:
    """What the listeners would say of an edit: an ensemble, calibrated on songs it was not trained on."""
    memo = Memo(context, home, settings=("seed", "reward"))
    if memo.unchanged and still_there(memo):
        return memo.again()
    from editorbot_core.pairs import rank_pairs
    from editorbot_core.rating.queue import pairs_path, write_pairs
    from editorbot_core.rewards.training import train_reward_model

    config = home.config()
    songs = songs_of(home, song_library, "train")
    with tracking.stage(context, inputs=memo.inputs, params=params(home, ("seed", "reward"))) as stage:
        stage.dataset("preferences", preferences, memo.inputs)
        trained = train_reward_model(
            songs,
            answers_of(home, preferences, "train"),
            config=config.reward,
            seed=config.seed,
            device=home.device(),
            log=stage.log,
            progress=progress,
        )
        path = home.models / f"{memo.name}-{memo.inputs[:12]}.pt"
        sha256 = trained.ensemble.save(path)
        # Reported only: nothing is chosen by it.
        test = _tested(trained.ensemble, songs_of(home, song_library, "eval"), answers_of(home, preferences, "eval"))
        metrics = {**trained.metrics, **test}
        stage.log(metrics, config.reward.epochs)
        plots = plots_of(stage, memo.name, {"loss": ["rm/loss", "rm/nll"], "held-out accuracy": ["rm/acc_heldout"]})
        stage.weights(
            path,
            sha256,
            kind="reward",
            registered_name=registry().reward_name,
            tags={"asset": memo.name, **provenance(context, memo, "beat_features", "preferences")},
        )
    waiting = edit_pairs[edit_pairs["part"] == "train"]
    write_pairs(pairs_path(home.path), rank_pairs(pairs_of(waiting), songs, trained.ensemble)[:QUEUE_LENGTH])
    return memo.made(
        sha256[:32],
        {"weights": str(path), "sha256": sha256, **metrics, **plots, **tracking.metadata(stage)},
    )


class _Remembering:
    """A learned reward that encodes a batch of songs once."""

    def __init__(self, ensemble: "RewardEnsemble") -> None:
        self.ensemble = ensemble
        self._known: tuple[Any, Any] = (None, None)

    def _states(self, edits: "EditBatch") -> Any:
        if self._known[0] is not edits.songs:
            self._known = (edits.songs, self.ensemble.encode(edits.songs))
        return self._known[1]

    def __call__(self, edits: "EditBatch") -> Any:
        return self.ensemble(edits, states=self._states(edits))

    def score_members(self, edits: "EditBatch") -> Any:
        return self.ensemble.score_members(edits, states=self._states(edits))


def _judge(ensemble: "RewardEnsemble", songs: "list[Song]") -> "Callable[[Policy], HeldOut]":
    """Judges a policy on songs it does not learn from: by the learned reward, guarded by what no reward contains."""
    import torch

    from editorbot_core.editors import policy_editor
    from editorbot_core.evaluation import evaluate
    from editorbot_core.policy_training import HeldOut
    from editorbot_core.rollout import sample_edits
    from editorbot_core.songs import collate

    device = ensemble.temperature.device
    batch = collate(songs).to(device)
    index = torch.arange(len(songs), device=device)
    ratio = torch.full((len(songs),), RATIO, device=device)
    reward = _Remembering(ensemble)

    def judge(policy: "Policy") -> HeldOut:
        rollout = sample_edits(policy, batch, song_index=index, target_ratio=ratio, greedy=True)
        evaluation = evaluate({"policy": policy_editor(policy)}, songs, ratios=(RATIO,))
        return HeldOut(float(reward(rollout.edits).mean()), float(evaluation.quality("policy").mean))

    return judge


@dg.asset(group_name="models", kinds={"pytorch", "mlflow"}, deps=["beat_features", "reference_policy", "reward_model"])
def ppo_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
) -> dg.MaterializeResult:
    """The reference policy after proximal policy optimisation against the reward model."""
    names = ("seed", "total_steps", "ppo")
    memo = Memo(context, home, settings=names)
    if memo.unchanged and still_there(memo):
        return memo.again()
    from editorbot_core.policy_files import load_policy
    from editorbot_core.policy_training import RewardPair
    from editorbot_core.ppo import init_ppo, train_ppo
    from editorbot_core.rewards.dense import dense_reward
    from editorbot_core.rewards.learned import load_reward
    from editorbot_core.rewards.training import hold_out
    from editorbot_core.songs import collate

    config = home.config()
    device = home.device()
    songs = songs_of(home, song_library, "train")
    aside = hold_out([song.track_id for song in songs], fraction=config.reward.held_out_fraction, seed=config.seed)
    learning = [song for song in songs if song.track_id not in aside]
    reference = load_policy(weights_of(context.instance, "reference_policy").path, device).policy
    ensemble = load_reward(weights_of(context.instance, "reward_model").path, device=device)
    with tracking.stage(context, inputs=memo.inputs, params=params(home, names)) as stage:
        rewards = RewardPair(_Remembering(ensemble), dense_reward)
        batch = collate(learning).to(device)
        state = train_ppo(
            init_ppo(reference, batch, rewards, config=config.ppo, seed=config.seed),
            batch,
            rewards,
            total_steps=config.total_steps,
            evaluate=_judge(ensemble, [song for song in songs if song.track_id in aside]),
            log=stage.log,
            progress=progress,
        )
        if state.stopped:
            context.log.warning(f"stopped early: {state.stopped}")
        sha256, metadata = finish_policy(
            context,
            home,
            memo,
            stage,
            state.selection.best_policy(state.policy),
            reference=reference,
            songs=songs,
            parents=("song_library", "beat_features", "reference_policy", "preferences", "reward_model"),
            panels={
                "reward": ["ppo/reward_learned"],
                "held out": ["eval/score"],
                "KL to reference, nat per unit": ["ppo/kl_ref_unit"],
                "entropy": ["ppo/entropy"],
            },
        )
    return memo.made(sha256[:32], {**metadata, "stopped": state.stopped or "no", **tracking.metadata(stage)})


@dg.asset(group_name="models", kinds={"pytorch", "mlflow"}, deps=["beat_features", "reference_policy", "reward_model"])
def dpo_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
    preferences: pd.DataFrame,
) -> dg.MaterializeResult:
    """The reference policy after direct preference optimisation on the answers, without a reward model."""
    names = ("seed", "dpo")
    memo = Memo(context, home, settings=names)
    if memo.unchanged and still_there(memo):
        return memo.again()
    from editorbot_core.dpo import train_dpo

    raise NotImplementedError(train_dpo)
