"""Configuration of proximal policy optimisation, and its state: all that a run needs to go on as if never stopped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from editorbot_core.base.errors import FormatError
from editorbot_core.policy.config import PolicyConfig, PPOConfig
from editorbot_core.policy.network import Policy
from editorbot_core.policy.selection import Selection, require_keys
from editorbot_core.rewards.mixing import Whitening


@dataclass
class PPOState:
    """Everything training needs to go on as if it had never stopped.

    Attributes:
        config: How the policy is improved.
        policy: The policy being trained.
        reference: Where it started; the KL is taken to it.
        optimizer: Adam over the policy.
        generator: Source of all randomness.
        whitening: Frozen statistics of the rewards under the reference.
        kl_weight: Current weight of the KL at its target.
        iteration: Iterations done.
        step: Beats decided so far.
        episode: Edits sampled so far.
        selection: Best policy so far.
        stopped: Why training ended early, or "".
    """

    config: PPOConfig
    policy: Policy
    reference: Policy
    optimizer: torch.optim.Adam
    generator: torch.Generator
    whitening: Whitening
    kl_weight: float
    iteration: int
    step: int
    episode: int
    selection: Selection
    stopped: str = ""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "config": asdict(self.config),
            "policy_config": asdict(self.policy.config),
            "policy": self.policy.state_dict(),
            "reference": self.reference.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "whitening": list(self.whitening),
            "kl_weight": self.kl_weight,
            "iteration": self.iteration,
            "step": self.step,
            "episode": self.episode,
            "selection": self.selection.state_dict(),
            "stopped": self.stopped,
        }

    @classmethod
    def from_state_dict(cls, payload: Mapping[str, Any], *, device: torch.device | str = "cpu") -> "PPOState":
        """The state that `state_dict` described, on `device`.

        Raises:
            FormatError: If a piece is missing, unknown or does not fit.
        """
        require_keys(payload, _PIECES, "PPO state")
        try:
            config = PPOConfig(**payload["config"])
            policy, reference = (Policy(PolicyConfig(**payload["policy_config"])) for _ in range(2))
            policy.load_state_dict(payload["policy"])
            reference.load_state_dict(payload["reference"])
            policy.to(device)
            optimizer = adam(policy, config)
            optimizer.load_state_dict(payload["optimizer"])
            generator = torch.Generator(device)
            generator.set_state(payload["generator"].cpu())
            return cls(
                config=config,
                policy=policy,
                reference=reference.to(device).eval().requires_grad_(False),
                optimizer=optimizer,
                generator=generator,
                whitening=Whitening(*payload["whitening"]),
                kl_weight=float(payload["kl_weight"]),
                iteration=int(payload["iteration"]),
                step=int(payload["step"]),
                episode=int(payload["episode"]),
                selection=Selection.from_state_dict(payload["selection"]),
                stopped=str(payload["stopped"]),
            )
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise FormatError(f"PPO state does not fit: {error}") from error


_PIECES = (
    *("config", "policy_config", "policy", "reference", "optimizer", "generator", "whitening"),
    *("kl_weight", "iteration", "step", "episode", "selection", "stopped"),
)


def adam(policy: Policy, config: PPOConfig) -> torch.optim.Adam:
    """The optimiser of `policy`."""
    return torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=config.adam_eps)
