"""Evaluation on held-out songs, the champion, and its edits to listen to."""

from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
from filelock import FileLock

from assets.resources.figures import png, shown, table_metadata
from assets.resources.home import Home
from assets.resources.ledger import Challenge, decide, empty_folder, export_weights, last_champion, record_decision
from assets.resources.memo import Memo, latest_materialization, metadata_value
from assets.resources.registry import registry
from assets.resources.reporting import params, provenance
from assets.resources.tables import table_version
from assets.resources.tracking import RegisteredVersion, Tracking
from assets.resources.weights import weights_of
from assets.songs import songs_of
from editorbot_core.base.errors import StoreError
from editorbot_core.base.files import sha256_file
from editorbot_core.base.home import champion_path, champion_reward_path
from editorbot_core.base.progress import Progress
from editorbot_core.evaluation.comparison import Gain, paired_gain

if TYPE_CHECKING:
    from editorbot_core.editing.baselines import Editor

CONTENDERS = ("ppo_policy", "dpo_policy")
_N_CANDIDATES = 16


def _editors(
    context: dg.AssetExecutionContext, home: Home, tracking: Tracking, opponent: RegisteredVersion | None
) -> "dict[str, Editor]":
    """The baselines, a random editor, the new policies, and the champion if it is none of these."""
    import numpy as np

    from editorbot_core.editing.baselines import BASELINES, random_edit
    from editorbot_core.policy.editors import policy_editor
    from editorbot_core.policy.files import load_policy
    from editorbot_core.rewards.learned import load_reward

    config = home.config()
    device = home.device()
    rng = np.random.default_rng(config.seed)
    files = {name: weights_of(context.instance, name).path for name in ("reference_policy", *CONTENDERS)}
    if opponent is not None:
        files["champion"] = tracking.fetch(registry().policy_name, opponent)
    reward = load_reward(weights_of(context.instance, "reward_model").path, device=device)
    policies = {name: load_policy(path, device).policy for name, path in files.items()}
    return {
        "random": lambda song, target_s: random_edit(song, target_s, rng=rng),
        **BASELINES,
        **{name: policy_editor(policy, device=device) for name, policy in policies.items()},
        f"ppo_best_of_{_N_CANDIDATES}": policy_editor(
            policies["ppo_policy"], n_candidates=_N_CANDIDATES, reward=reward, device=device
        ),
        "guided_search": policy_editor(policies["ppo_policy"], reward=reward, guided=True, device=device),
    }


@dg.asset(
    group_name="evaluation",
    io_manager_key="tables",
    kinds={"parquet", "mlflow"},
    deps=["beat_features", "reference_policy", "reward_model", "ppo_policy", "dpo_policy"],
)
def policy_evaluation(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
) -> dg.MaterializeResult[pd.DataFrame]:
    """Policies, the champion and the baselines on held-out songs: a row per song, target length and editor."""

    names = registry()
    new = {name: weights_of(context.instance, name).sha256 for name in ("reference_policy", *CONTENDERS)}
    current = tracking.aliased(names.policy_name, names.champion)
    opponent = current if current is not None and current.sha256 not in new.values() else None
    memo = Memo(context, home, settings=("seed", "eval_ratios"))
    # The alias `champion` may have moved to another policy since.
    same_opponent = opponent is None or memo.recall("opponent_sha256") == opponent.sha256
    if memo.unchanged and same_opponent and home.tables.exists(memo.name):
        return memo.again(value=home.tables.read(memo.name))
    from editorbot_core.evaluation.evaluate import evaluate
    from editorbot_core.evaluation.report import evaluation_figures

    config = home.config()
    songs = songs_of(home, song_library, "eval")
    with tracking.stage(context, inputs=memo.inputs, params=params(home, ("seed", "eval_ratios"))) as stage:
        evaluation = evaluate(
            _editors(context, home, tracking, opponent), songs, ratios=config.eval_ratios, progress=progress
        )
        table = evaluation.table()
        images = {name: png(figure) for name, figure in evaluation_figures(evaluation).items()}
        for name, image in images.items():
            stage.plot(name, image)
        stage.table("evaluation", table.reset_index())
        challenger = max(CONTENDERS, key=lambda name: evaluation.quality(name).mean)
        holders = [name for name, sha256 in new.items() if current is not None and sha256 == current.sha256]
        against = "champion" if opponent is not None else next(iter(holders), "reference_policy")
        against = "reference_policy" if against == challenger else against
        gain = paired_gain(evaluation.rows, challenger, against, seed=config.seed)
        wins = {
            f"eval/win_vs_{short}": evaluation.wins(challenger, other).share
            for short, other in (
                *(("dp", "dp_bars"), ("onecut", "one_cut"), ("keepall", "keep_all")),
                *(("reference", "reference_policy"), ("random", "random")),
            )
        }
        metrics = {
            **{
                f"eval/{name}_{editor}": value
                for editor in evaluation.editors
                for name, value in evaluation.metrics(editor).items()
                if name in ("quality", "bar_position_continues", "four_bar_continues", "phrase_both_sides", "coverage")
            },
            **wins,
            "eval/challenger_gain": gain.mean,
            "eval/challenger_gain_probability": gain.probability,
        }
        stage.log(metrics, 0)
        stage.tags.update({"challenger": challenger, **provenance(context, memo, *CONTENDERS)})
    return memo.made(
        table_version(evaluation.rows),
        {
            "challenger": challenger,
            "challenger_sha256": new[challenger],
            "challenger_against": against,
            "challenger_gain": gain.mean,
            "challenger_gain_probability": gain.probability,
            "opponent_sha256": opponent.sha256 if opponent else "",
            "n_songs": len(songs),
            "summary": table_metadata([dict(row) for _, row in table.reset_index().iterrows()]),
            "text": dg.MetadataValue.md(f"```\n{evaluation.text()}\n```"),
            **wins,
            **shown(images),
            **tracking.metadata(stage),
        },
        value=evaluation.rows,
    )


@dg.asset(group_name="evaluation", kinds={"mlflow"}, deps=["policy_evaluation", "reward_model"])
def champion(context: dg.AssetExecutionContext, home: Home, tracking: Tracking) -> dg.MaterializeResult:
    """The policy in use. The alias moves only to a challenger that is better and passed every gate."""
    home.state.mkdir(parents=True, exist_ok=True)
    with FileLock(home.state / "champion.lock", timeout=60):
        memo = Memo(context, home)
        names = registry()
        current = tracking.aliased(names.policy_name, names.champion)
        if memo.unchanged and current is not None:
            if current.sha256 == memo.recall("champion_sha256") and _exported(home, current):
                return memo.again()
            if current.sha256 != memo.recall("champion_sha256"):
                # Somebody moved the alias; the registry is right.
                record_decision(home.path, "followed", version=current.version, sha256=current.sha256)
        else:
            current = _settle(context, home, tracking, current)
        export_weights(tracking.fetch(names.policy_name, current), champion_path(home.path))
        reward = tracking.aliased(names.reward_name, names.champion)
        if reward is not None:
            export_weights(tracking.fetch(names.reward_name, reward), champion_reward_path(home.path))
        decision = last_champion(home.path) or {}
    return memo.made(
        current.sha256[:32],
        {
            "champion_version": current.version,
            "champion_sha256": current.sha256,
            "champion_asset": current.tags.get("asset", ""),
            "decision": str(decision.get("action", "")),
            "reason": str(decision.get("reason", "")),
            "weights": str(champion_path(home.path)),
        },
    )


def _exported(home: Home, current: RegisteredVersion) -> bool:
    path = champion_path(home.path)
    return path.is_file() and sha256_file(path) == current.sha256


def _challenge(evaluated: dg.AssetMaterialization | None) -> Challenge:
    """What the evaluation says about the best new policy."""

    def figure(name: str) -> float:
        return float(metadata_value(evaluated, name) or 0.0)

    names = ("challenger", "challenger_sha256", "challenger_against", "opponent_sha256")
    challenger, sha256, against, opponent = (str(metadata_value(evaluated, name) or "") for name in names)
    gain = Gain(figure("challenger_gain"), figure("challenger_gain_probability"), int(figure("n_songs")))
    return Challenge(challenger, sha256, against, opponent, gain)


def _settle(
    context: dg.AssetExecutionContext, home: Home, tracking: Tracking, current: RegisteredVersion | None
) -> RegisteredVersion:
    """Carry out the decision between the challenger and `current`, the champion so far; returns the champion."""
    names = registry()
    challenge = _challenge(latest_materialization(context.instance, "policy_evaluation"))
    files = {name: weights_of(context.instance, name).sha256 for name in ("reference_policy", *CONTENDERS)}

    def version_of(asset: str, sha256: str) -> RegisteredVersion:
        version = tracking.find_version(names.policy_name, sha256)
        if version is None:
            raise StoreError(
                f"{names.policy_name} holds no version of {asset} yet: MLflow did not answer when it was trained; run "
                "again, which sends what is waiting first"
            )
        return version

    challenger = version_of(challenge.challenger, challenge.sha256)
    tracking.set_alias(names.policy_name, names.challenger, challenger.version)
    decision = decide(current.sha256 if current else None, challenge, contenders=files.values(), rules=names.promotion)
    facts = {"reason": decision.reason, "gain": challenge.gain.mean, "gain_probability": challenge.gain.probability}
    if decision.winner == "champion" and current is not None:
        record_decision(home.path, "kept", version=current.version, sha256=current.sha256, **facts)
        return current
    chosen = (
        challenger if decision.winner == "challenger" else version_of("reference_policy", files["reference_policy"])
    )
    tracking.set_alias(
        names.policy_name, names.champion, chosen.version, {"gates": "passed", "promotion_reason": decision.reason}
    )
    reward = tracking.find_version(names.reward_name, weights_of(context.instance, "reward_model").sha256)
    if reward is not None:
        tracking.set_alias(names.reward_name, names.champion, reward.version)
    record_decision(
        home.path,
        "promoted",
        version=chosen.version,
        sha256=chosen.sha256,
        previous=current.version if current else "",
        dagster_run_id=context.run.run_id,
        **facts,
    )
    context.log.info(f"champion is version {chosen.version}: {decision.reason}")
    return chosen


@dg.asset(group_name="evaluation", kinds={"audio"}, deps=["beat_features", "champion"])
def edited_songs(
    context: dg.AssetExecutionContext,
    home: Home,
    progress: dg.ResourceParam[Progress],
    song_library: pd.DataFrame,
) -> dg.MaterializeResult:
    """Edits of the held-out songs by the champion, guided by its reward model: audio to hear and EDLs to work on."""
    folder = home.path / "renders" / "edited_songs"
    memo = Memo(context, home, settings=("eval_ratios",))
    if memo.unchanged and len(list(folder.glob("*.flac"))) == memo.recall("n_edits"):
        return memo.again()
    from dataclasses import replace

    from editorbot_core.audio.files import read_audio, write_audio
    from editorbot_core.audio.render import render_edit
    from editorbot_core.editing.interchange import write_edl
    from editorbot_core.policy.editors import policy_editor
    from editorbot_core.policy.files import load_policy
    from editorbot_core.rewards.learned import load_reward

    config = home.config()
    device = home.device()
    reward = champion_reward_path(home.path)
    editor = policy_editor(
        load_policy(champion_path(home.path), device).policy,
        reward=load_reward(reward, device=device) if reward.is_file() else None,
        guided=reward.is_file(),
        device=device,
    )
    empty_folder(folder)
    rows = []
    songs = songs_of(home, song_library, "eval")
    for done, song in enumerate(songs):
        progress("render", done, len(songs))
        clip = read_audio(song.path)
        for ratio in config.eval_ratios:
            edl = editor(song, ratio * song.duration)
            rendering = render_edit(clip, edl.segments)
            edl = replace(edl, segments=rendering.segments)
            target = folder / f"{song.track_id}-{round(100 * ratio)}.flac"
            write_audio(target, rendering.clip)
            write_edl(target.with_suffix(".json"), edl)
            rows.append(
                {
                    "song": song.path,
                    "was_s": round(song.duration, 1),
                    "is_s": round(edl.duration_s, 1),
                    "joins": len(edl.segments) - 1,
                    "audio": str(target),
                }
            )
    progress("render", len(songs), len(songs))
    version = sha256_file(champion_path(home.path))[:16] + memo.inputs[:16]
    return memo.made(version, {"folder": str(folder), "n_edits": len(rows), "edits": table_metadata(rows)})
