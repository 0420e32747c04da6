"""Policies as `.pt` files: weights, configuration, feature names and where they came from; no pickle of our classes."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from editorbot_core.analysis.features.columns import FEATURE_NAMES
from editorbot_core.base.errors import FormatError
from editorbot_core.base.tensors import load_tensors, save_tensors
from editorbot_core.policy.config import PolicyConfig
from editorbot_core.policy.network import Policy

KIND = "editorbot.policy/2"


class LoadedPolicy(NamedTuple):
    """A policy in evaluation mode and its name and version."""

    policy: Policy
    model: dict[str, Any]


def policy_payload(policy: Policy, *, model: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a policy file."""
    return {
        "kind": KIND,
        "feature_names": list(FEATURE_NAMES),
        "config": asdict(policy.config),
        "model": dict(model),
        "state": {name: value.detach().cpu() for name, value in policy.state_dict().items()},
    }


def save_policy(path: Path | str, policy: Policy, *, model: Mapping[str, Any]) -> str:
    """Write `policy` to `path`; return the file's SHA-256."""
    return save_tensors(path, policy_payload(policy, model=model))


def policy_from_payload(payload: Mapping[str, Any], *, source: str) -> LoadedPolicy:
    """The policy that `policy_payload` described.

    Raises:
        FormatError: If the payload is of another kind or its weights do not fit its configuration.
    """
    if payload.get("kind") != KIND:
        raise FormatError(f"{source}: not a policy file: kind is {payload.get('kind')!r}, expected {KIND!r}")
    if payload.get("feature_names") != list(FEATURE_NAMES):
        raise FormatError(f"{source}: trained on other features than this version computes; train it again")
    try:
        policy = Policy(PolicyConfig(**payload["config"]))
        policy.load_state_dict(payload["state"])
        model = dict(payload["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"{source}: not a usable policy: {error}") from error
    if not all(
        bool(torch.isfinite(value).all()) for value in policy.state_dict().values() if value.is_floating_point()
    ):
        raise FormatError(f"{source}: the weights hold values that are not finite")
    return LoadedPolicy(policy.eval(), model)


def load_policy(path: Path | str, device: torch.device | str = "cpu") -> LoadedPolicy:
    """Read the policy at `path`, a policy file or a training checkpoint, onto `device`."""
    payload = load_tensors(path)
    loaded = policy_from_payload(payload.get("policy", payload), source=str(path))
    return LoadedPolicy(loaded.policy.to(device), loaded.model)
