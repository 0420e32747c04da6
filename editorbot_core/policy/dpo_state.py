"""Configuration of direct preference optimisation, and its state: all that a run needs to go on as if never stopped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from editorbot_core.base.errors import FormatError
from editorbot_core.policy.config import DPOConfig, PolicyConfig
from editorbot_core.policy.network import Policy
from editorbot_core.policy.selection import Selection, require_keys


@dataclass
class DPOState:
    """Everything training needs to go on as if it had never stopped.

    Attributes:
        config: How the policy learns.
        policy: The policy being trained.
        reference_digest: Digest of the reference policy.
        reference_log_probs: float32 (n, 2), log-probability of both sides of every usable pair under it.
        pairs_digest: Digest of the pairs.
        usable: int64 (n,), rows of the pair batch that the mask allows.
        n_refused: Pairs left out.
        optimizer: Adam over the policy.
        generator: Source of all randomness.
        order: int64 (n,), order of the usable pairs in this epoch; empty before the first.
        position: Usable pairs done in this epoch.
        epoch: Epochs done.
        iteration: Gradient steps done.
        step: Beats of edits judged so far.
        episode: Edits judged so far.
        selection: Best policy so far.
        since_best: Judgements since the best.
        stopped: Why training ended early, or "".
    """

    config: DPOConfig
    policy: Policy
    reference_digest: str
    pairs_digest: str
    reference_log_probs: torch.Tensor
    usable: torch.Tensor
    n_refused: int
    optimizer: torch.optim.Adam
    generator: torch.Generator
    order: torch.Tensor
    position: int
    epoch: int
    iteration: int
    step: int
    episode: int
    selection: Selection
    since_best: int = 0
    stopped: str = ""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            **plain,
            "config": asdict(self.config),
            "policy_config": asdict(self.policy.config),
            "policy": self.policy.state_dict(),
            "reference_log_probs": self.reference_log_probs,
            "usable": self.usable,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order,
            "selection": self.selection.state_dict(),
        }

    @classmethod
    def from_state_dict(cls, payload: Mapping[str, Any], *, device: torch.device | str = "cpu") -> "DPOState":
        """The state that `state_dict` described, on `device`.

        Raises:
            FormatError: If a piece is missing, unknown or does not fit.
        """
        pieces = ("config", "policy_config", "policy", "reference_log_probs", "usable", "optimizer", "generator")
        require_keys(payload, (*_PLAIN, *pieces, "order", "selection"), "DPO state")
        try:
            config = DPOConfig(**payload["config"])
            policy = Policy(PolicyConfig(**payload["policy_config"]))
            policy.load_state_dict(payload["policy"])
            policy.to(device)
            optimizer = adam(policy, config)
            optimizer.load_state_dict(payload["optimizer"])
            generator = torch.Generator(device)
            generator.set_state(payload["generator"].cpu())
            return cls(
                config=config,
                policy=policy,
                reference_log_probs=payload["reference_log_probs"].to(device),
                usable=payload["usable"].to(device),
                optimizer=optimizer,
                generator=generator,
                order=payload["order"].to(device),
                selection=Selection.from_state_dict(payload["selection"]),
                **{name: kind(payload[name]) for name, kind in _PLAIN.items()},
            )
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise FormatError(f"DPO state does not fit: {error}") from error


_PLAIN: dict[str, type] = {
    "reference_digest": str,
    "pairs_digest": str,
    "n_refused": int,
    "position": int,
    "epoch": int,
    "iteration": int,
    "step": int,
    "episode": int,
    "since_best": int,
    "stopped": str,
}


def adam(policy: Policy, config: DPOConfig) -> torch.optim.Adam:
    """The optimiser of `policy`."""
    return torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=config.adam_eps)
