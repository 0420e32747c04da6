"""Gates between the stages: what an asset reported decides, at the thresholds of the registry."""

import dagster as dg
import pandas as pd
import pytest

from assets import checks
from assets.resources.registry import registry

GATES = registry().gates
FINE = {"edit/act_frac_cut": 0.5, "edit/target_abs_err": 0.01, "kl_ref_unit": 0.5}
BOUNDS = {
    "features_are_whole": (
        "beat_features",
        [
            ({"n_features": 121, "expected_features": 121, "n_not_finite": 0}, True),
            ({"n_features": 120, "expected_features": 121, "n_not_finite": 0}, False),
            ({"n_features": 121, "expected_features": 121, "n_not_finite": 1}, False),
        ],
    ),
    "enough_preferences": (
        "preferences",
        [
            ({"n_train_decided": GATES.min_pairs, "n_person": 0}, True),
            ({"n_train_decided": GATES.min_pairs - 1, "n_person": 10**6}, False),
        ],
    ),
    "reward_model_is_better_than_chance": (
        "reward_model",
        [
            ({"rm/acc_heldout": GATES.min_reward_accuracy, "rm/saturated_frac": GATES.max_saturated_frac}, True),
            ({"rm/acc_heldout": GATES.min_reward_accuracy - 1e-6, "rm/saturated_frac": 0.0}, False),
            ({"rm/acc_heldout": 1.0, "rm/saturated_frac": GATES.max_saturated_frac + 1e-6}, False),
        ],
    ),
    **{
        check: (
            asset,
            [
                (FINE, True),
                (FINE | {"edit/act_frac_cut": GATES.min_cut_frac - 1e-6}, False),
                (FINE | {"edit/act_frac_cut": 1 - GATES.min_cut_frac + 1e-6}, False),
                (FINE | {"edit/target_abs_err": GATES.max_target_abs_err + 1e-6}, False),
                (FINE | {"kl_ref_unit": GATES.max_kl_ref_unit + 1e-6}, not has_budget),
            ],
        )
        for check, asset, has_budget in (
            ("reference_imitates", "reference_policy", False),
            ("ppo_within_budget", "ppo_policy", True),
            ("dpo_within_budget", "dpo_policy", True),
        )
    },
    "challenger_is_not_worse": (
        "policy_evaluation",
        [
            ({"challenger": "ppo_policy", "challenger_against": "champion", "challenger_gain": 0.0}, True),
            ({"challenger": "ppo_policy", "challenger_against": "champion", "challenger_gain": -0.1}, False),
        ],
    ),
}


def judged(instance: dg.DagsterInstance, check: str, asset: str, metadata: dict) -> dg.AssetCheckResult:
    """The check called as a function, after `asset` reported `metadata`."""
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))
    return getattr(checks, check)(dg.build_asset_check_context(instance=instance))


@pytest.mark.parametrize(
    ("check", "asset", "metadata", "passed"),
    [(check, asset, *row) for check, (asset, rows) in BOUNDS.items() for row in rows],
)
def test_a_gate_opens_at_its_threshold_and_not_below(
    instance: dg.DagsterInstance, check: str, asset: str, metadata: dict, passed: bool
) -> None:
    assert judged(instance, check, asset, metadata).passed is passed


@pytest.mark.parametrize("check", BOUNDS)
def test_an_asset_that_did_not_say_is_not_trusted(instance: dg.DagsterInstance, check: str) -> None:
    asset, rows = BOUNDS[check]
    with pytest.raises(dg.Failure, match=f"{asset} did not report"):
        judged(instance, check, asset, dict(list(rows[0][0].items())[1:]))


@pytest.mark.parametrize(
    ("n_train", "n_eval", "passed"),
    [(GATES.min_train_songs, 1, True), (GATES.min_train_songs - 1, 9, False), (99, 0, False)],
)
def test_songs_to_learn_from_and_to_judge_on_are_needed(n_train: int, n_eval: int, passed: bool) -> None:
    parts = ["train"] * n_train + ["eval"] * n_eval
    accepted = pd.DataFrame({"part": parts, "status": "accepted"})
    rejected = pd.DataFrame({"part": ["train", "eval"] * 9, "status": "rejected"})
    assert checks.enough_songs(pd.concat([accepted, rejected])).passed is passed
