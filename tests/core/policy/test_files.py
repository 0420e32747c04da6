"""A policy comes back from its file as it was, or not at all."""

from pathlib import Path

import pytest
import torch

from editorbot_core.base.errors import FormatError
from editorbot_core.base.tensors import module_digest, save_tensors
from editorbot_core.policy.files import load_policy, policy_from_payload, policy_payload, save_policy


def test_what_was_saved_is_loaded(reference, tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.pt", reference, model={"name": "reference", "version": 3})
    loaded = load_policy(tmp_path / "policy.pt")
    assert module_digest(loaded.policy) == module_digest(reference)
    assert loaded.policy.config == reference.config
    assert loaded.model == {"name": "reference", "version": 3}
    assert not loaded.policy.training


def test_a_checkpoint_of_a_training_run_holds_a_policy(reference, tmp_path: Path) -> None:
    payload = policy_payload(reference, model={"name": "ppo"})
    save_tensors(tmp_path / "checkpoint.pt", {"step": 10, "policy": payload})
    assert module_digest(load_policy(tmp_path / "checkpoint.pt").policy) == module_digest(reference)


def _spoil(payload: dict, name: str, value: object) -> None:
    weights = payload["state"][name].clone()
    weights.view(-1)[0] = value
    payload["state"][name] = weights


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.update(kind="editorbot.reward_model/2"), "not a policy file: kind is"),
        (lambda p: p.update(feature_names=["loudness"]), "other features than this version computes"),
        (lambda p: p["config"].update(wings=2), "not a usable policy"),
        (lambda p: p["config"].update(width=32), "not a usable policy"),
        (lambda p: p["state"].pop("feature_mean"), "not a usable policy"),
        (lambda p: p.pop("model"), "not a usable policy"),
        (lambda p: _spoil(p, "feature_mean", torch.nan), "not finite"),
    ],
)
def test_what_is_not_exactly_a_policy_is_refused(reference, damage, message) -> None:
    payload = policy_payload(reference, model={})
    policy_from_payload(payload, source="before")
    damage(payload)
    with pytest.raises(FormatError, match=f"here: .*{message}"):
        policy_from_payload(payload, source="here")
