"""Models: the reference policy, the reward model, and the policies trained from them.

All are trained on songs of the part `train`. Some of those are set aside, to validate the reward model on and to select
policies with.
"""

from typing import TYPE_CHECKING, NamedTuple

import dagster as dg
import pandas as pd

from assets.preferences import QUEUE_LENGTH, answers_of
from assets.resources.home import Home
from assets.resources.memo import Memo
from assets.resources.registry import registry
from assets.resources.reporting import finish_policy, params, plots_of, provenance
from assets.resources.tables import table_version
from assets.resources.tracking import Tracking
from assets.resources.weights import still_there, weights_of
from assets.songs import songs_of
from editorbot_core.base.progress import Progress

if TYPE_CHECKING:
    from editorbot_core.config import Config
    from editorbot_core.policy.network import Policy
    from editorbot_core.preferences.preference import Preference
    from editorbot_core.rewards.learned import RewardEnsemble
    from editorbot_core.songs.song import Song


@dg.asset(group_name="models", kinds={"pytorch", "mlflow"}, deps=["beat_features"])
def reference_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
) -> dg.MaterializeResult:
    """The warm start: a policy that imitates the exhaustive search for joins. KL and DPO are measured from it."""
    memo = Memo(context, home, settings=("seed", "policy", "warm_start"))
    if memo.unchanged and still_there(memo):
        return memo.again()
    import torch

    from editorbot_core.policy.network import Policy
    from editorbot_core.policy.warm_start import warm_start

    config = home.config()
    songs = songs_of(home, song_library, "train")
    with tracking.stage(context, inputs=memo.inputs, params=params(home, ("seed", "policy", "warm_start"))) as stage:
        stage.dataset("song_library", song_library, table_version(song_library))
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


def _aside(config: "Config", songs: "list[Song]") -> tuple[str, ...]:
    """Track ids of the songs of the part `train` that are set aside for validation and selection."""
    from editorbot_core.songs.splits import hold_out

    return hold_out([song.track_id for song in songs], fraction=config.reward.held_out_fraction, seed=config.seed)


def _tested(ensemble: "RewardEnsemble", songs: "list[Song]", answers: "list[Preference]") -> dict[str, float]:
    """Metrics of the ensemble on pairs of held-out songs."""
    from editorbot_core.preferences.listener import known_ceiling
    from editorbot_core.preferences.pairs import pair_batch
    from editorbot_core.rewards.training import reward_metrics

    pairs = pair_batch(answers, songs).to(ensemble.temperature.device)
    if not bool((pairs.label != 0.5).any()):
        return {}
    found = reward_metrics(ensemble, pairs) | {"bayes_ceiling": known_ceiling(songs)(answers)}
    names = ("acc", "bayes_ceiling", "nll", "ece", "brier", "n_pairs")
    return {f"rm/test_{name}": found[name] for name in names if found[name] == found[name]}


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
    from editorbot_core.preferences.pair_files import pairs_of

    memo = Memo(context, home, settings=("seed", "reward"))
    if memo.unchanged and still_there(memo):
        return memo.again()
    from editorbot_core.preferences.listener import known_ceiling
    from editorbot_core.preferences.pair_files import pairs_path, write_pairs
    from editorbot_core.rewards.queries import rank_pairs
    from editorbot_core.rewards.training import train_reward_model

    config = home.config()
    songs = songs_of(home, song_library, "train")
    with tracking.stage(context, inputs=memo.inputs, params=params(home, ("seed", "reward"))) as stage:
        stage.dataset("song_library", song_library, table_version(song_library))
        stage.dataset("preferences", preferences, table_version(preferences))
        trained = train_reward_model(
            songs,
            answers_of(home, preferences, "train"),
            config=config.reward,
            seed=config.seed,
            device=home.device(),
            held_out=_aside(config, songs),
            bayes_ceiling=known_ceiling(songs),
            log=stage.log,
            progress=progress,
        )
        path = home.models / f"{memo.name}-{memo.inputs[:12]}.pt"
        sha256 = trained.ensemble.save(path)
        # Only reported: nothing is selected by it.
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


class _Lessons(NamedTuple):
    """The inputs of both PPO and DPO."""

    songs: "list[Song]"
    held_out: "list[Song]"
    reference: "Policy"
    ensemble: "RewardEnsemble"


def _lessons(context: dg.AssetExecutionContext, home: Home, song_library: pd.DataFrame) -> _Lessons:
    """Songs to train on, songs of the part `train` to select with, the reference policy and the reward model."""
    from editorbot_core.policy.files import load_policy
    from editorbot_core.rewards.learned import load_reward

    config, device = home.config(), home.device()
    songs = songs_of(home, song_library, "train")
    aside = _aside(config, songs)
    return _Lessons(
        songs=[song for song in songs if song.track_id not in aside],
        held_out=[song for song in songs if song.track_id in aside],
        reference=load_policy(weights_of(context.instance, "reference_policy").path, device).policy,
        ensemble=load_reward(weights_of(context.instance, "reward_model").path, device=device),
    )


@dg.asset(group_name="models", kinds={"pytorch", "mlflow"}, deps=["beat_features", "reference_policy", "reward_model"])
def ppo_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
) -> dg.MaterializeResult:
    """The reference policy after proximal policy optimisation against the reward model."""
    names = ("seed", "total_steps", "ppo", "eval_ratios")
    memo = Memo(context, home, settings=(*names, "reward"))
    if memo.unchanged and still_there(memo):
        return memo.again()
    from editorbot_core.editing.batches import collate
    from editorbot_core.policy.ppo import init_ppo, train_ppo
    from editorbot_core.rewards.mixing import reward_pair
    from editorbot_core.training.judge import HeldOutJudge

    config = home.config()
    lessons = _lessons(context, home, song_library)
    batch = collate(lessons.songs).to(home.device())
    rewards = reward_pair(lessons.ensemble, batch)
    with tracking.stage(context, inputs=memo.inputs, params=params(home, names)) as stage:
        stage.dataset("song_library", song_library, table_version(song_library))
        state = train_ppo(
            init_ppo(lessons.reference, batch, rewards, config=config.ppo, seed=config.seed),
            batch,
            rewards,
            total_steps=config.total_steps,
            evaluate=HeldOutJudge(lessons.held_out, lessons.ensemble, ratios=config.eval_ratios, device=home.device()),
            log=stage.log,
            progress=progress,
        )
        sha256, metadata = finish_policy(
            context,
            home,
            memo,
            stage,
            state.selection.best_policy(state.policy),
            reference=lessons.reference,
            songs=lessons.songs,
            parents=("song_library", "beat_features", "reference_policy", "preferences", "reward_model"),
            panels={
                "learned reward": ["learned_reward"],
                "held out: total reward": ["eval/score"],
                "held out: quality": ["eval/guard"],
                "KL to reference, nat per unit": ["ppo/kl_ref_unit"],
            },
        )
    if state.stopped:
        context.log.warning(f"stopped early: {state.stopped}")
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
    """The reference policy after direct preference optimisation on the answers; the reward model only chooses."""
    names = ("seed", "dpo", "eval_ratios")
    memo = Memo(context, home, settings=(*names, "reward"))
    if memo.unchanged and still_there(memo):
        return memo.again()
    from editorbot_core.editing.batches import collate
    from editorbot_core.policy.dpo import init_dpo, judge_pairs, train_dpo
    from editorbot_core.preferences.pairs import pair_batch
    from editorbot_core.rewards.mixing import reward_pair
    from editorbot_core.training.judge import HeldOutJudge

    config = home.config()
    lessons = _lessons(context, home, song_library)
    answers = answers_of(home, preferences, "train")
    pairs, held_out = (pair_batch(answers, songs).to(home.device()) for songs in (lessons.songs, lessons.held_out))
    batch = collate(lessons.songs).to(home.device())
    with tracking.stage(context, inputs=memo.inputs, params=params(home, names)) as stage:
        stage.dataset("song_library", song_library, table_version(song_library))
        stage.dataset("preferences", preferences, table_version(preferences))
        state = train_dpo(
            init_dpo(lessons.reference, pairs, config=config.dpo, seed=config.seed),
            pairs,
            songs=batch,
            rewards=reward_pair(lessons.ensemble, batch),
            heldout=lambda policy: judge_pairs(policy, lessons.reference, held_out, config=config.dpo),
            evaluate=HeldOutJudge(lessons.held_out, lessons.ensemble, ratios=config.eval_ratios, device=home.device()),
            log=stage.log,
            progress=progress,
        )
        sha256, metadata = finish_policy(
            context,
            home,
            memo,
            stage,
            state.selection.best_policy(state.policy),
            reference=lessons.reference,
            songs=lessons.songs,
            parents=("song_library", "beat_features", "reference_policy", "preferences", "reward_model"),
            panels={
                "loss": ["dpo/loss", "dpo/heldout_loss"],
                "pairs in order": ["dpo/acc", "dpo/heldout_acc"],
                "held out: total reward": ["eval/score"],
                "held out: quality": ["eval/guard"],
            },
        )
    return memo.made(sha256[:32], {**metadata, "n_refused": state.n_refused, **tracking.metadata(stage)})


@dg.asset(group_name="models", kinds={"pytorch", "mlflow"}, deps=["beat_features"])
def iterated_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
) -> dg.MaterializeResult:
    """Rounds of learning: the listener compares edits of the newest policy, and reward and policy learn again."""
    names = ("seed", "n_rounds", "n_pairs", "total_steps", "reward", "policy", "warm_start", "ppo", "eval_ratios")
    memo = Memo(context, home, settings=names)
    if memo.unchanged and still_there(memo):
        return memo.again()
    from editorbot_core.training.rounds import learn_in_rounds

    config = home.config()
    songs = songs_of(home, song_library, "train")
    with tracking.stage(context, inputs=memo.inputs, params=params(home, names)) as stage:
        stage.dataset("song_library", song_library, table_version(song_library))
        learned = learn_in_rounds(
            songs, config=config, n_rounds=config.n_rounds, device=home.device(), log=stage.log, progress=progress
        )
        reward_path = home.models / f"{memo.name}-reward-{memo.inputs[:12]}.pt"
        learned.ensemble.save(reward_path)
        sha256, metadata = finish_policy(
            context,
            home,
            memo,
            stage,
            learned.policy,
            reference=learned.reference,
            songs=songs,
            parents=("song_library", "beat_features"),
            panels={
                "pairs in order: held out, and by the newest policy": ["rm/acc_heldout", "rm/acc_onpolicy"],
                "held out: total reward": ["eval/score", "eval/score_reference"],
            },
        )
    return memo.made(
        sha256[:32],
        {
            **metadata,
            "reward_weights": str(reward_path),
            "n_answers": len(learned.answers),
            "rounds": dg.MetadataValue.json(list(learned.rounds)),
            **tracking.metadata(stage),
        },
    )
