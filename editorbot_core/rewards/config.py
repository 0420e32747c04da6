"""The settings of the reward model, its ensemble and its training."""

from dataclasses import dataclass

from editorbot_core.base.errors import ParameterError


@dataclass(frozen=True)
class RewardConfig:
    """The reward model, its ensemble and its training.

    Attributes:
        hidden: Channels of the song encoder.
        n_layers: Transformer layers.
        n_heads: Attention heads.
        n_convs: Dilated convolutions before the transformer (dilations 1, 4, 16, ...).
        chunk_beats: Beats encoded at once; longer songs are encoded in chunks.
        overlap_beats: Beats that neighbouring chunks share.
        unit_channels: Channels of a unit in the pools.
        join_channels: Channels of each side of a join.
        n_penalties: Separate kinds of join penalty.
        n_members: Models in the ensemble.
        pessimism: Standard deviations between members that are subtracted from their mean.
        epochs: Largest number of passes over the training songs.
        patience: Epochs without a better held-out loss before training stops.
        songs_per_step: Songs that share one optimiser step.
        pairs_per_song: Largest number of pairs of a song in one step.
        head_updates: Updates of the head (all layers after the encoder) per update of the encoder.
        learning_rate: Peak learning rate of the head (AdamW).
        encoder_learning_rate: Peak learning rate of the encoder.
        weight_decay: Decoupled weight decay.
        warmup_share: Share of the steps over which the learning rate rises.
        grad_norm: Largest gradient norm of a member.
        dropout: Dropout in the networks.
        noise: Standard deviation of the noise on standardised features in training.
        structure_dropout: Share of the songs of a step that are given without structure.
        state_dropout: Share of the songs of a step on which the encoder and the layers that read its states are not
            trained: with answers about 95 songs the encoder memorised those songs, at ten times the cost of the rest.
        training_temperature: Score difference that equals one unit of the listener's noise in training. Scores are
            limited to +-10, so it decides how many units fit; the temperature of calibration is fitted afterwards.
        label_smoothing: Share of answers that are treated as mistakes, whatever their confidence.
        centring: Weight of the squared scores in the loss, which keeps scores in the middle of the range.
        held_out_fraction: Share of the songs held out for validation.
    """

    hidden: int = 256
    n_layers: int = 3
    n_heads: int = 4
    n_convs: int = 2
    chunk_beats: int = 500
    overlap_beats: int = 100
    unit_channels: int = 48
    join_channels: int = 48
    n_penalties: int = 8
    n_members: int = 2
    pessimism: float = 0.0
    epochs: int = 12
    patience: int = 7
    songs_per_step: int = 2
    pairs_per_song: int = 64
    head_updates: int = 3
    learning_rate: float = 2e-3
    encoder_learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup_share: float = 0.1
    grad_norm: float = 1.0
    dropout: float = 0.05
    noise: float = 0.1
    structure_dropout: float = 0.05
    state_dropout: float = 0.95
    training_temperature: float = 0.25
    label_smoothing: float = 0.01
    centring: float = 1e-3
    held_out_fraction: float = 0.2

    def __post_init__(self) -> None:
        """Check every value; all faults are reported together."""
        ranges: dict[str, tuple[float, float]] = {
            "hidden": (8, 2048),
            "n_layers": (0, 24),
            "n_heads": (1, 32),
            "n_convs": (0, 4),
            "chunk_beats": (16, 4096),
            "overlap_beats": (0, 2048),
            "unit_channels": (1, 1024),
            "join_channels": (1, 1024),
            "n_penalties": (1, 64),
            "n_members": (1, 16),
            "pessimism": (0, 10),
            "epochs": (1, 10_000),
            "patience": (1, 10_000),
            "songs_per_step": (1, 1024),
            "pairs_per_song": (1, 100_000),
            "head_updates": (1, 100),
            "learning_rate": (1e-8, 1),
            "encoder_learning_rate": (1e-8, 1),
            "weight_decay": (0, 1),
            "warmup_share": (0, 0.9),
            "grad_norm": (1e-6, 1e6),
            "dropout": (0, 0.9),
            "noise": (0, 10),
            "structure_dropout": (0, 1),
            "state_dropout": (0, 1),
            "training_temperature": (0.01, 10),
            "label_smoothing": (0, 0.4),
            "centring": (0, 1),
            "held_out_fraction": (0.01, 0.9),
        }
        faults = []
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            whole = isinstance(RewardConfig.__dataclass_fields__[name].default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                faults.append(f"{name} must be {'a whole number' if whole else 'a number'}, got {value!r}")
            elif not low <= value <= high:
                faults.append(f"{name} must be in [{low}, {high}], got {value}")
        if not faults and (self.hidden % (4 * self.n_heads) or self.overlap_beats >= self.chunk_beats):
            faults.append(
                f"hidden must be a multiple of 4 x n_heads and overlap_beats below chunk_beats, got hidden "
                f"{self.hidden}, n_heads {self.n_heads}, overlap_beats {self.overlap_beats} of {self.chunk_beats}"
            )
        if faults:
            raise ParameterError("reward: " + "; ".join(faults))
