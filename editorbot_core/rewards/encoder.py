"""The song encoder of the reward model: a state per beat, from its features and its place in the song.

Run once per song; all edits of the song share its states. Shapes: S songs, T beats of the longest song, H hidden
channels. Scores never depend on which songs share a batch: padding is masked everywhere.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def sinusoids(positions: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Sinusoidal encodings (Vaswani et al. 2017, section 3.5).

    Args:
        positions: Any shape, in beats.
        n_channels: Even number of channels of the result.

    Returns:
        float32 (*positions.shape, n_channels).
    """
    half = n_channels // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000.0) / max(half - 1, 1)))
    angles = positions.float()[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LocalLayer(nn.Module):
    """A residual dilated convolution over beats, channel by channel, then a mix of channels."""

    def __init__(self, hidden: int, *, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        padding = dilation * (kernel_size // 2)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel_size, padding=padding, dilation=dilation, groups=hidden)
        self.pointwise = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, beat_mask: torch.Tensor) -> torch.Tensor:
        """States (S, T, H) to states of the same shape."""
        inner = self.norm(states) * beat_mask[..., None]
        inner = self.depthwise(inner.transpose(1, 2)).transpose(1, 2)
        return states + self.dropout(self.pointwise(F.gelu(inner)))


class AttentionLayer(nn.Module):
    """A pre-norm transformer layer (Xiong et al. 2020)."""

    def __init__(self, hidden: int, *, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.feedforward_norm = nn.LayerNorm(hidden)
        self.feedforward = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """States (S, T, H) and who may be looked at, bool (S, 1, 1, T), to states of the same shape."""
        n_songs, n_beats, hidden = states.shape
        heads = self.query_key_value(self.attention_norm(states))
        query, key, value = heads.view(n_songs, n_beats, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        states = states + self.dropout(self.attention_out(mixed.transpose(1, 2).reshape(n_songs, n_beats, hidden)))
        return states + self.dropout(self.feedforward(self.feedforward_norm(states)))


class SongEncoder(nn.Module):
    """Beat features to beat states.

    Beats further than `chunk_beats` are reached by chunks that overlap; every beat takes the state of the chunk in
    which it stands furthest from an edge, so nothing is truncated and cost grows linearly.
    """

    KERNEL_SIZE = 5

    def __init__(
        self,
        n_features: int,
        *,
        hidden: int,
        n_layers: int,
        n_heads: int,
        n_convs: int,
        dropout: float,
        chunk_beats: int,
        overlap_beats: int,
    ) -> None:
        super().__init__()
        self.chunk_beats = chunk_beats
        self.overlap_beats = overlap_beats
        self.hidden = hidden
        self.project = nn.Linear(n_features, hidden)
        self.local = nn.ModuleList(
            LocalLayer(hidden, kernel_size=self.KERNEL_SIZE, dilation=4**i, dropout=dropout) for i in range(n_convs)
        )
        self.layers = nn.ModuleList(AttentionLayer(hidden, n_heads=n_heads, dropout=dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(hidden)

    def _encode_chunk(self, states: torch.Tensor, beat_mask: torch.Tensor) -> torch.Tensor:
        # A chunk that is padding throughout looks at itself: a softmax over nothing would be NaN.
        attention_mask = (beat_mask | ~beat_mask.any(1, keepdim=True))[:, None, None, :]
        for layer in self.local:
            states = layer(states, beat_mask)
        for layer in self.layers:
            states = layer(states, attention_mask)
        return self.norm(states)

    def forward(self, features: torch.Tensor, beat_mask: torch.Tensor) -> torch.Tensor:
        """Standardised features (S, T, n_features) and their mask, bool (S, T), to states (S, T, H)."""
        n_beats = features.shape[1]
        counts = beat_mask.sum(1, keepdim=True)
        from_start = torch.arange(n_beats, device=features.device).expand_as(beat_mask)
        half = self.hidden // 2
        place = torch.cat([sinusoids(from_start, half), sinusoids(counts - 1 - from_start, half)], dim=-1)
        states = self.project(features) + 0.3 * place
        if n_beats <= self.chunk_beats:
            return self._encode_chunk(states, beat_mask)
        hop = self.chunk_beats - self.overlap_beats
        # Which chunk a beat takes depends on its own song's length only, never on the longest song of the batch.
        last_chunk = ((counts - self.overlap_beats + hop - 1) // hop - 1).clamp(min=0)
        chosen = (from_start - self.overlap_beats // 2).div(hop, rounding_mode="floor")
        chosen = chosen.clamp(min=0).minimum(last_chunk)
        out = torch.zeros_like(states)
        for chunk, start in enumerate(range(0, max(n_beats - self.overlap_beats, 1), hop)):
            stop = min(start + self.chunk_beats, n_beats)
            encoded = self._encode_chunk(states[:, start:stop], beat_mask[:, start:stop])
            padded = F.pad(encoded, (0, 0, start, n_beats - stop))
            out = torch.where((chosen == chunk)[..., None], padded, out)
        return out
