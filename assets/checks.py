"""Checks of assets. A blocking check that fails keeps the next stage from being run on a bad input.

Thresholds stand in `mlflow/registry.yaml`.
"""

from typing import Any

import dagster as dg
import pandas as pd

from assets.evaluation import champion, policy_evaluation
from assets.models import dpo_policy, ppo_policy, reference_policy, reward_model
from assets.preferences import preferences
from assets.resources.home import Home
from assets.resources.memo import latest_materialization, metadata_value
from assets.resources.registry import registry
from assets.resources.tracking import Tracking
from assets.songs import beat_features, song_library
from editorbot_core.base.files import sha256_file
from editorbot_core.base.home import champion_path


def _reported(context: dg.AssetCheckExecutionContext, asset: dg.AssetsDefinition, *names: str) -> list[Any]:
    """What the asset's last materialization said about itself."""
    made = latest_materialization(context.instance, asset.key.path[-1])
    values = [metadata_value(made, name) for name in names]
    missing = [name for name, value in zip(names, values, strict=True) if value is None]
    if missing:
        raise dg.Failure(f"{asset.key.to_user_string()} did not report {', '.join(missing)}")
    return values


@dg.asset_check(asset=song_library, blocking=True)
def enough_songs(song_library: pd.DataFrame) -> dg.AssetCheckResult:
    """Songs to learn from, and others to judge on."""
    accepted = song_library[song_library["status"] == "accepted"]
    n_train, n_eval = (int((accepted["part"] == part).sum()) for part in ("train", "eval"))
    wanted = registry().gates.min_train_songs
    return dg.AssetCheckResult(
        passed=n_train >= wanted and n_eval >= 1,
        description=f"{n_train} songs to learn from ({wanted} needed) and {n_eval} to judge on (1 needed)",
        metadata={"n_train": n_train, "n_eval": n_eval},
    )


@dg.asset_check(asset=beat_features, blocking=True)
def features_are_whole(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Features are 121 wide and every value is a number."""
    width, expected, n_bad = _reported(context, beat_features, "n_features", "expected_features", "n_not_finite")
    return dg.AssetCheckResult(
        passed=width == expected and n_bad == 0,
        description=f"{width} features per beat, {expected} expected; {n_bad} values are not numbers",
    )


@dg.asset_check(asset=reference_policy, blocking=True)
def reference_imitates(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The warm start meets its targets and both keeps and cuts."""
    return _policy_check(context, reference_policy, judge_kl=False)


@dg.asset_check(asset=preferences, blocking=True)
def enough_preferences(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Enough labelled pairs that are no ties, of songs to learn from."""
    n_train, n_person = _reported(context, preferences, "n_train_decided", "n_person")
    wanted = registry().gates.min_pairs
    return dg.AssetCheckResult(
        passed=n_train >= wanted,
        description=f"{n_train} decided pairs, {wanted} needed; {n_person} answers are by people",
        metadata={"n_person": n_person},
    )


@dg.asset_check(asset=reward_model, blocking=True)
def reward_model_is_better_than_chance(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The reward model orders pairs of songs it was not trained on, and does not saturate."""
    accuracy, saturated = _reported(context, reward_model, "rm/acc_heldout", "rm/saturated_frac")
    gates = registry().gates
    return dg.AssetCheckResult(
        passed=accuracy >= gates.min_reward_accuracy and saturated <= gates.max_saturated_frac,
        description=(
            f"{accuracy:.1%} of held-out pairs in the listener's order ({gates.min_reward_accuracy:.0%} needed), "
            f"{saturated:.1%} of scores at an end of the range ({gates.max_saturated_frac:.0%} allowed)"
        ),
    )


def _policy_check(
    context: dg.AssetCheckExecutionContext, asset: dg.AssetsDefinition, *, judge_kl: bool
) -> dg.AssetCheckResult:
    cut, error = _reported(context, asset, "edit/act_frac_cut", "edit/target_abs_err")
    gates = registry().gates
    passed = gates.min_cut_frac <= cut <= 1 - gates.min_cut_frac and error <= gates.max_target_abs_err
    text = f"cuts {cut:.0%} of the units at half length and misses its target by {error:.1%}"
    if judge_kl:
        (kl,) = _reported(context, asset, "kl_ref_unit")
        passed = passed and kl <= gates.max_kl_ref_unit
        text += f"; {kl:.2f} nat per unit from the reference ({gates.max_kl_ref_unit} allowed)"
    return dg.AssetCheckResult(passed=bool(passed), description=text)


@dg.asset_check(asset=ppo_policy, blocking=True)
def ppo_within_budget(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The policy stayed near the reference and did not collapse."""
    return _policy_check(context, ppo_policy, judge_kl=True)


@dg.asset_check(asset=dpo_policy, blocking=True)
def dpo_within_budget(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The policy stayed near the reference and did not collapse."""
    return _policy_check(context, dpo_policy, judge_kl=True)


@dg.asset_check(asset=policy_evaluation)
def challenger_is_not_worse(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The best new policy is at least as good as what it would replace."""
    challenger, opponent, gain = _reported(
        context, policy_evaluation, "challenger", "challenger_against", "challenger_gain"
    )
    return dg.AssetCheckResult(
        passed=gain >= 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{challenger} gains {gain:+.2f} quality points over {opponent}",
    )


@dg.asset_check(asset=champion, blocking=True)
def champion_is_in_the_registry(
    context: dg.AssetCheckExecutionContext, home: Home, tracking: Tracking
) -> dg.AssetCheckResult:
    """The version with the alias `champion` is the one that was reported, and its weights are on this machine."""
    version, sha256 = _reported(context, champion, "champion_version", "champion_sha256")
    names = registry()
    current = tracking.aliased(names.policy_name, names.champion)
    path = champion_path(home.path)
    exported = sha256_file(path) if path.is_file() else ""
    faults = []
    if current is None or current.sha256 != sha256:
        faults.append(f"the registry's champion is {f'version {current.version}' if current else 'no version'}")
    if exported != sha256:
        faults.append(f"{path} is {'another file' if exported else 'missing'}")
    return dg.AssetCheckResult(
        passed=not faults, description=f"version {version}, weights {sha256[:12]}" + "".join(f"; {f}" for f in faults)
    )
