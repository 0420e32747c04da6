"""Configuration of direct preference optimisation, and its state: all that a run needs to go on as if never stopped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from editorbot_core.errors import FormatError, ParameterError
from editorbot_core.policy import Policy, PolicyConfig
from editorbot_core.policy_training import Selection, require_keys


@dataclass(frozen=True)
class DPOConfig:
    """How the policy learns from pairs.

    Attributes:
        loss: `sigmoid` or `ipo`; soft labels make the first cDPO.
        beta: How strongly the policy is held to the reference.
        label_smoothing: Doubt about every answer, in [0, 0.5).
        nll_coef: Weight of the negative log-probability per unit of the chosen side.
        epochs: Passes over the pairs; more than one has not helped.
        batch_pairs: Pairs per gradient step.
        accumulation_steps: Parts a gradient step is computed in, to need less memory.
        learning_rate: Adam's, falling on a line to a tenth.
        adam_eps: Adam's epsilon.
        max_grad_norm: Gradients are clipped to this norm.
        log_every: Gradient steps between two lines of the log, judgements included.
        rollout_edits: Edits sampled for every line of the log.
        target_range: Lowest and highest target ratio of those.
        patience: Judgements in a row without a new best that end training.
        guard_drop: A guard metric lower than at first by this much counts as worse.
    """

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.05
    nll_coef: float = 0.05
    epochs: int = 1
    batch_pairs: int = 64
    accumulation_steps: int = 1
    learning_rate: float = 3e-4
    adam_eps: float = 1e-5
    max_grad_norm: float = 1.0
    log_every: int = 5
    rollout_edits: int = 128
    target_range: tuple[float, float] = (0.35, 0.95)
    patience: int = 5
    guard_drop: float = 1.0

    def __post_init__(self) -> None:
        """Check counts and ranges; all faults are reported together."""
        counts = ("epochs", "batch_pairs", "accumulation_steps", "log_every", "rollout_edits", "patience")
        faults = [f"{name} must be at least 1, got {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        rates = ("beta", "learning_rate", "adam_eps", "max_grad_norm")
        faults += [f"{name} must be positive, got {getattr(self, name)}" for name in rates if getattr(self, name) <= 0]
        if not 0 <= self.label_smoothing < 0.5 or self.nll_coef < 0:
            faults.append("label_smoothing must be in [0, 0.5) and nll_coef not negative")
        if not 0 < self.target_range[0] <= self.target_range[1]:
            faults.append(f"target_range must rise from above 0, got {self.target_range}")
        if self.loss not in ("sigmoid", "ipo"):
            faults.append(f"loss must be sigmoid or ipo, got {self.loss!r}")
        if faults:
            raise ParameterError("; ".join(faults))


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
