"""Settings of the policy and of the ways to train it; readable without torch."""

from dataclasses import dataclass
from typing import Literal

from editorbot_core.base.errors import ParameterError


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


@dataclass(frozen=True)
class PolicyConfig:
    """Size and initial habits of the policy.

    Attributes:
        width: Width of the song encoder; a multiple of `2 * n_heads`.
        hidden: Width of the head.
        pair_width: Width of the comparison between a unit and the one expected.
        n_layers: Transformer layers over units.
        n_heads: Attention heads.
        kernel_size: Beats seen by one convolution; odd.
        dilations: Dilation of each convolution over beats.
        chunk_units: Units that attend to each other; longer songs are encoded in chunks that overlap by half.
        move_bias: Initial bias of LOOP and REORDER.
        sticky_bias: Initial bias of doing what was done before, for KEEP and CUT.
        end_bias: Initial bias of cutting a unit that would leave no room for the end of the song.
        outlook_trust: Initial weight, in nat per unit of cost, of what keeping and cutting would cost in the end
            (`policy.observation.ways_on`); learned from there.
    """

    width: int = 96
    hidden: int = 128
    pair_width: int = 32
    n_layers: int = 2
    n_heads: int = 4
    kernel_size: int = 5
    dilations: tuple[int, ...] = (1, 4, 16)
    chunk_units: int = 500
    move_bias: float = -4.5
    sticky_bias: float = 2.0
    end_bias: float = 3.0
    outlook_trust: float = 1.0

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self.width < 1 or self.width % (2 * self.n_heads):
            raise ParameterError(f"width must be a multiple of 2 * n_heads = {2 * self.n_heads}; got {self.width}")
        if self.kernel_size % 2 == 0 or self.chunk_units < 2 or min(self.hidden, self.pair_width, self.n_layers) < 1:
            raise ParameterError(f"kernel_size must be odd, chunk_units at least 2, widths and layers positive: {self}")
        if not self.outlook_trust > 0:
            raise ParameterError(f"outlook_trust must be positive; got {self.outlook_trust}")


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
        feature_noise: Noise on what the policy sees of a song while it learns, see `policy.selection.augmented`.
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


@dataclass(frozen=True)
class WarmStartConfig:
    """How the teacher is imitated.

    Attributes:
        edits_per_song: Edits of the teacher per song, at random targets.
        target_range: Lowest and highest target ratio of a shortening.
        extended_frac: Share of edits with targets between 0.95 and `extended_max`.
        extended_max: Highest target ratio.
        n_steps: Gradient steps.
        batch_songs: Songs per gradient step, with all their edits.
        learning_rate: Adam's, falling to a tenth along a cosine.
        label_smoothing: Probability mass moved from the teacher's action to the policy's initial habits.
        feature_noise: Noise on what the policy sees of a song, see `policy.selection.augmented`.
        feature_dropout: Share of features hidden from it.
        max_grad_norm: Gradients are clipped to this norm.
    """

    edits_per_song: int = 24
    target_range: tuple[float, float] = (0.35, 0.95)
    extended_frac: float = 0.1
    extended_max: float = 1.25
    n_steps: int = 60
    batch_songs: int = 6
    learning_rate: float = 2e-3
    label_smoothing: float = 0.03
    feature_noise: float = 0.25
    feature_dropout: float = 0.1
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Check counts and ranges."""
        counts = (self.edits_per_song, self.n_steps, self.batch_songs)
        low, high = self.target_range
        if min(counts) < 1 or not 0 < low <= high or not 0 <= self.label_smoothing < 1 or self.learning_rate <= 0:
            raise ParameterError(f"counts and rates must be positive, target_range rising, smoothing in [0, 1): {self}")
