"""Models: the reference policy, the reward model, and the policies trained from them.

All are trained on songs of the part `train`. Some of those are set aside, to validate the reward model on and to select
policies with.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

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
from editorbot_core.base.progress import Log, Progress

if TYPE_CHECKING:
    from editorbot_core.config import Config
    from editorbot_core.editing.batches import SongBatch
    from editorbot_core.policy.dpo_state import DPOState
    from editorbot_core.policy.network import Policy
    from editorbot_core.policy.ppo_state import PPOState
    from editorbot_core.preferences.preference import Preference
    from editorbot_core.rewards.learned import RewardEnsemble
    from editorbot_core.rewards.mixing import RewardPair
    from editorbot_core.songs.song import Song
    from editorbot_core.training.judge import HeldOutJudge


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
    """What every way of optimising a policy starts from.

    Attributes:
        songs: Songs to learn from.
        held_out: Songs of the part `train` to choose by.
        batch: The songs to learn from, on the device.
        reference: The reference policy.
        rewards: The learned and the dense reward.
        judge: Judges a policy on the held-out songs.
    """

    songs: "list[Song]"
    held_out: "list[Song]"
    batch: "SongBatch"
    reference: "Policy"
    rewards: "RewardPair"
    judge: "HeldOutJudge"


def _lessons(context: dg.AssetExecutionContext, home: Home, song_library: pd.DataFrame) -> _Lessons:
    """The lessons of this run: songs, and what the assets `reference_policy` and `reward_model` made last."""
    from editorbot_core.editing.batches import collate
    from editorbot_core.policy.files import load_policy
    from editorbot_core.rewards.learned import load_reward
    from editorbot_core.rewards.mixing import reward_pair
    from editorbot_core.training.judge import HeldOutJudge

    config, device = home.config(), home.device()
    known = songs_of(home, song_library, "train")
    aside = _aside(config, known)
    songs, held_out = ([song for song in known if (song.track_id in aside) is apart] for apart in (False, True))
    batch = collate(songs).to(device)
    ensemble = load_reward(weights_of(context.instance, "reward_model").path, device=device)
    return _Lessons(
        songs=songs,
        held_out=held_out,
        batch=batch,
        reference=load_policy(weights_of(context.instance, "reference_policy").path, device).policy,
        rewards=reward_pair(ensemble, batch),
        judge=HeldOutJudge(held_out, ensemble, ratios=config.eval_ratios, device=device),
    )


def _optimised_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    tables: Mapping[str, pd.DataFrame],
    *,
    names: tuple[str, ...],
    panels: Mapping[str, list[str]],
    train: "Callable[[_Lessons, Log], PPOState | DPOState]",
    facts: "Callable[[Any], dict[str, Any]]" = lambda _state: {},
) -> dg.MaterializeResult:
    """What every way of optimising a policy against the reward shares: reuse, lessons, the stage, and the weights.

    Args:
        context: Of the asset.
        home: Local results and settings.
        tracking: MLflow.
        tables: The tables that are learned from, by the name of their asset; `song_library` is one.
        names: Groups of settings that the result depends on, besides those of the reward.
        panels: Title to the metrics of each plot.
        train: Trains the reference of the lessons and logs metrics.
        facts: What the materialization says of the final state besides.
    """
    memo = Memo(context, home, settings=(*names, "reward"))
    if memo.unchanged and still_there(memo):
        return memo.again()
    lessons = _lessons(context, home, tables["song_library"])
    with tracking.stage(context, inputs=memo.inputs, params=params(home, names)) as stage:
        for name, table in tables.items():
            stage.dataset(name, table, table_version(table))
        state = train(lessons, stage.log)
        sha256, metadata = finish_policy(
            context,
            home,
            memo,
            stage,
            state.selection.best_policy(state.policy),
            reference=lessons.reference,
            songs=lessons.songs,
            parents=("song_library", "beat_features", "reference_policy", "preferences", "reward_model"),
            panels={**panels, "held out: total reward": ["eval/score"], "held out: quality": ["eval/guard"]},
        )
    if state.stopped:
        context.log.warning(f"stopped early: {state.stopped}")
    return memo.made(
        sha256[:32], {**metadata, "stopped": state.stopped or "no", **facts(state), **tracking.metadata(stage)}
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

    def train(lessons: _Lessons, log: Log) -> "PPOState":
        from editorbot_core.policy.ppo import init_ppo, train_ppo

        config = home.config()
        return train_ppo(
            init_ppo(lessons.reference, lessons.batch, lessons.rewards, config=config.ppo, seed=config.seed),
            lessons.batch,
            lessons.rewards,
            total_steps=config.total_steps,
            evaluate=lessons.judge,
            log=log,
            progress=progress,
        )

    return _optimised_policy(
        context,
        home,
        tracking,
        {"song_library": song_library},
        names=("seed", "total_steps", "ppo", "eval_ratios"),
        panels={"learned reward": ["learned_reward"], "KL to reference, nat per unit": ["ppo/kl_ref_unit"]},
        train=train,
    )


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

    def train(lessons: _Lessons, log: Log) -> "DPOState":
        from editorbot_core.policy.dpo import init_dpo, judge_pairs, train_dpo
        from editorbot_core.preferences.pairs import pair_batch

        config, device = home.config(), home.device()
        answers = answers_of(home, preferences, "train")
        pairs, held_out = (pair_batch(answers, songs).to(device) for songs in (lessons.songs, lessons.held_out))
        return train_dpo(
            init_dpo(lessons.reference, pairs, config=config.dpo, seed=config.seed),
            pairs,
            songs=lessons.batch,
            rewards=lessons.rewards,
            heldout=lambda policy: judge_pairs(policy, lessons.reference, held_out, config=config.dpo),
            evaluate=lessons.judge,
            log=log,
            progress=progress,
        )

    return _optimised_policy(
        context,
        home,
        tracking,
        {"song_library": song_library, "preferences": preferences},
        names=("seed", "dpo", "eval_ratios"),
        panels={"loss": ["dpo/loss", "dpo/heldout_loss"], "pairs in order": ["dpo/acc", "dpo/heldout_acc"]},
        train=train,
        facts=lambda state: {"n_refused": state.n_refused},
    )


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
