"""Configuration of proximal policy optimisation, and its state: all that a run needs to go on as if never stopped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from editorbot_core.errors import FormatError, ParameterError
from editorbot_core.policy import Policy, PolicyConfig
from editorbot_core.policy_training import Selection, Whitening, require_keys


@dataclass(frozen=True)
class PPOConfig:
    """How the policy is improved.

    Attributes:
        n_steps: Beats decided per iteration and process by parallel rollouts; sets how many songs are drawn.
        samples_per_song: Edits of one song at one target: the group whose mean is the baseline.
        epochs: Passes over the edits of an iteration.
        n_minibatches: Gradient steps per pass, at most one per group; groups are never divided.
        accumulation_steps: Parts a gradient step is computed in, to need less memory.
        clip_coef: Clipping of the probability ratio.
        ent_coef: Weight of the entropy at the start (at 0.02 samples of a song soon became all the same) ...
        ent_coef_final: ... and at the end.
        vf_coef: Weight of the value error; the value reads the policy's trunk without shaping it.
        max_grad_norm: Gradients are clipped to this norm.
        learning_rate: Adam's, falling on a line to a tenth.
        adam_eps: Adam's epsilon.
        kl_target: KL to the reference that the adaptive weight steers to, nat per unit.
        kl_coef: Initial weight of the KL at its target.
        ensemble_k: The learned reward is the ensemble's mean minus this many standard deviations.
        advantage: `group` (mean of the song's samples as baseline) or `gae` (the value as baseline).
        gae_lambda: Lambda of `gae`.
        target_range: Lowest and highest target ratio of a shortening.
        extended_frac: Share of groups with targets between 0.95 and 1.25.
        feature_noise: Noise on what the policy sees of a song while it learns, see `augmented`.
        feature_dropout: Share of features hidden from it.
        whitening_edits: Edits of the reference that the whitening statistics are taken over.
        evaluate_every: Iterations between judgements on held-out songs.
        guard_drop: A guard metric lower than at first by this much counts as worse.
        guard_patience: Worse judgements in a row, while the score is better, that end training.
    """

    n_steps: int = 8192
    samples_per_song: int = 8
    epochs: int = 2
    n_minibatches: int = 8
    accumulation_steps: int = 1
    clip_coef: float = 0.2
    ent_coef: float = 0.05
    ent_coef_final: float = 0.005
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    learning_rate: float = 1e-3
    adam_eps: float = 1e-5
    kl_target: float = 0.3
    kl_coef: float = 0.1
    ensemble_k: float = 0.0
    advantage: Literal["group", "gae"] = "group"
    gae_lambda: float = 0.95
    target_range: tuple[float, float] = (0.35, 0.95)
    extended_frac: float = 0.0
    feature_noise: float = 0.25
    feature_dropout: float = 0.1
    whitening_edits: int = 256
    evaluate_every: int = 4
    guard_drop: float = 1.0
    guard_patience: int = 3

    def __post_init__(self) -> None:
        """Check counts and ranges; all faults are reported together."""
        counts = ("n_steps", "epochs", "n_minibatches", "accumulation_steps", "evaluate_every", "guard_patience")
        faults = [f"{name} must be at least 1, got {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        if self.samples_per_song < 2 or self.whitening_edits < 2:
            faults.append("samples_per_song and whitening_edits must be at least 2: a deviation is taken over them")
        rates = ("clip_coef", "max_grad_norm", "learning_rate", "adam_eps", "kl_target", "kl_coef")
        faults += [f"{name} must be positive, got {getattr(self, name)}" for name in rates if getattr(self, name) <= 0]
        if not 0 < self.target_range[0] <= self.target_range[1]:
            faults.append(f"target_range must rise from above 0, got {self.target_range}")
        if self.feature_noise < 0 or not 0 <= self.feature_dropout < 1:
            faults.append("feature_noise must not be negative and feature_dropout in [0, 1)")
        if self.advantage not in ("group", "gae"):
            faults.append(f"advantage must be group or gae, got {self.advantage!r}")
        if faults:
            raise ParameterError("; ".join(faults))

    def n_groups(self, mean_beats: float) -> int:
        """Songs (with a target each) drawn per iteration, so that about `n_steps` beats are decided."""
        return max(1, round(self.n_steps / (self.samples_per_song * mean_beats)))


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
