"""The policy: a network that decides the units of a song one after the other.

A song is encoded once per set of weights, whatever is decided and whatever length is asked for; a light head then
turns the state before a unit into logits over the 9 actions and a value. The state is a deterministic function of the
decisions so far (`environment.EpisodeState`), so the head serves one unit at a time when sampling and all units in one
parallel pass when a finished edit is judged.

Shapes: S songs, T beats, U units, n episodes. Logits, log-probabilities and values are float32 on every device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.editing.batches import FEATURE_LIMIT, SongBatch, standardise_per_song
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, N_ACTIONS
from editorbot_core.policy.config import PolicyConfig
from editorbot_core.policy.environment import START, Episodes, EpisodeState
from editorbot_core.policy.observation import (
    N_PAIR,
    N_STATE,
    N_UNIT,
    finish_unit,
    pair_features,
    rows_at,
    state_features,
    unit_features,
    ways_on,
)

# Beyond this a way on is as bad as any: it is not taken.
_WORST_WAY = 8.0
_TRUST_RATE = 10.0


@dataclass(frozen=True)
class SongStates:
    """What the head reads of S encoded songs.

    Attributes:
        unit: (S, U, hidden), the unit that is decided.
        expected: (S, U, hidden), the unit that would continue what is heard.
        query: (S, U, pair_width) of the unit that is decided.
        key: (S, U, pair_width) of the unit that would continue.
        pair: (S * U * U, n_pair), what stands between every unit (row) and every expected unit: step in timbre,
            harmony and level on both sides of the join, products of phase and phrase start, same material.
    """

    unit: torch.Tensor
    expected: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    pair: torch.Tensor


@dataclass(frozen=True)
class Decision:
    """The head's answer: float32 logits (..., 9), unmasked, and values (...)."""

    logits: torch.Tensor
    values: torch.Tensor


class _ConvBlock(nn.Module):
    """Pre-norm residual convolution over beats that hears nothing of the padding."""

    def __init__(self, width: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel_size, padding=dilation * (kernel_size // 2), dilation=dilation)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (S, T, width) to the same shape; mask (S, T, 1)."""
        inner = (self.norm(x) * mask).transpose(1, 2)
        return x + F.gelu(self.conv(inner).transpose(1, 2))


class _TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward (Xiong et al. 2020)."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (S, U, width) to the same shape; mask (S, U), True for real units."""
        s, u, width = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).view(s, u, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = x + self.out(heard.transpose(1, 2).reshape(s, u, width))
        return x + self.mlp(self.norm_mlp(x))


def _sinusoids(n: int, width: int, device: torch.device) -> torch.Tensor:
    """Positional encoding (n, width) of Vaswani et al. 2017, section 3.5."""
    place = torch.arange(n, device=device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(1e4) / width))
    return torch.cat([(place * rates).sin(), (place * rates).cos()], dim=1)


class Policy(nn.Module):
    """Song encoder, head and value; call `fit_statistics` once before training."""

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor

    def __init__(self, config: PolicyConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PolicyConfig()
        width, hidden = config.width, config.hidden
        self.register_buffer("feature_mean", torch.zeros(N_FEATURES))
        self.register_buffer("feature_scale", torch.ones(N_FEATURES))
        self.beat_in = nn.Linear(2 * N_FEATURES + 2, width)
        self.convs = nn.ModuleList(_ConvBlock(width, config.kernel_size, d) for d in config.dilations)
        self.unit_in = nn.Linear(3 * width + N_UNIT, width)
        self.layers = nn.ModuleList(_TransformerLayer(width, config.n_heads) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(width)
        self.to_unit = nn.Linear(3 * width + N_UNIT, hidden)
        self.to_expected = nn.Linear(3 * width + N_UNIT, hidden)
        self.to_query = nn.Linear(2 * width, config.pair_width)
        self.to_key = nn.Linear(2 * width, config.pair_width)
        self.from_pair = nn.Linear(2 * (config.pair_width + N_PAIR) + N_STATE, hidden)
        self.previous = nn.Embedding(N_ACTIONS + 1, hidden)
        self.mlp = nn.Linear(hidden, hidden)
        self.to_logits = nn.Linear(hidden, N_ACTIONS)
        self.sticky = nn.Embedding(N_ACTIONS + 1, N_ACTIONS)
        self.spare_end = nn.Parameter(torch.zeros(N_ACTIONS))
        self.trust_gain = nn.Parameter(torch.zeros(()))
        self.value = nn.Sequential(nn.Linear(hidden, hidden // 2), nn.GELU(), nn.Linear(hidden // 2, 1))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.normal_(self.previous.weight, std=0.02)
        nn.init.normal_(self.to_logits.weight, std=0.01)
        self.to_logits.bias.zero_()
        self.to_logits.bias[LOOP_2:] = self.config.move_bias
        self.sticky.weight.zero_()
        self.sticky.weight[:START, KEEP] = self.config.sticky_bias
        self.sticky.weight[CUT, KEEP] = 0.0
        self.sticky.weight[CUT, CUT] = self.config.sticky_bias
        self.spare_end[CUT] = self.config.end_bias

    @property
    def trust(self) -> torch.Tensor:
        """Weight of the outlook, nat per unit of cost; a step of the optimiser changes it by a share, not by a bit."""
        return self.config.outlook_trust * (_TRUST_RATE * self.trust_gain).exp()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.feature_mean.device

    @torch.no_grad()
    def fit_statistics(self, songs: SongBatch) -> None:
        """Set mean and scale of the 121 features to those of all beats of `songs`."""
        rows = songs.features[songs.beat_mask].double()
        self.feature_mean.copy_(rows.mean(0))
        self.feature_scale.copy_(rows.std(0, correction=0).clamp(min=1e-4))

    def encode(self, songs: SongBatch) -> SongStates:
        """Encode S songs; bf16 autocast on CUDA, float32 results."""
        with torch.autocast(songs.features.device.type, torch.bfloat16, enabled=songs.features.is_cuda):
            return self._encode(songs)

    def _encode(self, songs: SongBatch) -> SongStates:
        with torch.no_grad():
            own = standardise_per_song(songs.features, songs.beat_mask)
            shared = ((songs.features - self.feature_mean) / self.feature_scale).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
            place = torch.arange(own.shape[1], device=own.device) / songs.beat_mask.sum(1, keepdim=True)
            position = torch.stack([place, 1 - place], dim=2)
            known = unit_features(songs)
            pair = pair_features(songs, own)
        mask = songs.beat_mask[..., None].float()
        x = self.beat_in(torch.cat([shared, own, position], dim=2))
        for conv in self.convs:
            x = conv(x, mask)

        first, last = rows_at(x, songs.first_beat), rows_at(x, songs.last_beat)
        sums = F.pad(x.float().cumsum(1), (0, 0, 1, 0))
        length = (songs.last_beat - songs.first_beat + 1)[..., None]
        mean = (rows_at(sums, songs.last_beat + 1) - rows_at(sums, songs.first_beat)) / length
        tokens = self.unit_in(torch.cat([mean, first, last, known], dim=2))
        tokens = tokens + _sinusoids(songs.n_units, self.config.width, tokens.device)
        units = self.norm(self._attend(tokens, songs.unit_mask)).float()

        first, last = first.float(), last.float()
        exits = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1)
        entry = torch.cat([units, first], dim=2)
        return SongStates(
            unit=self.to_unit(torch.cat([units, first, last, known], dim=2)).float(),
            expected=self.to_expected(torch.cat([units, first, exits, known], dim=2)).float(),
            query=self.to_query(entry).float(),
            key=self.to_key(entry).float(),
            pair=pair.flatten(0, 2),
        )

    def _attend(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Transformer over units (S, U, width); beyond `chunk_units`, over chunks of which the middle is used."""
        size, n_units = self.config.chunk_units, tokens.shape[1]
        if n_units <= size:
            for layer in self.layers:
                tokens = layer(tokens, mask)
            return tokens
        hop = size // 2
        out = torch.zeros_like(tokens)
        start, done = 0, 0
        while done < n_units:
            start = min(start, n_units - size)
            chunk, chunk_mask = tokens[:, start : start + size], mask[:, start : start + size]
            # A chunk that is all padding of a short song still needs something to attend to.
            chunk_mask = chunk_mask | ~chunk_mask.any(1, keepdim=True)
            for layer in self.layers:
                chunk = layer(chunk, chunk_mask)
            end = n_units if start + size == n_units else start + size - hop // 2
            out = torch.cat([out[:, :done], chunk[:, done - start : end - start], out[:, end:]], dim=1)
            done, start = end, start + hop
        return out

    def decide(self, states: SongStates, row: torch.Tensor, episodes: Episodes, state: EpisodeState) -> Decision:
        """Logits and values at the unit of `state`, or at all units.

        Args:
            states: Encoded songs.
            row: int64 (n,), row of each episode's song in `states`.
            episodes: The n episodes.
            state: State before the unit, tensors (n,), or before every unit, tensors (n, U).
        """
        at, n_units = state.at, states.unit.shape[1]
        unit = torch.arange(n_units, device=row.device)[at]
        base = (row if isinstance(at, int) else row[:, None]) * n_units
        expected = state.exit_unit + 1
        expected_row = base + expected
        finish = finish_unit(episodes, state, unit)
        key = F.embedding(expected_row, states.key.flatten(0, 1))
        ways = ways_on(episodes, state)
        least = torch.minimum(*ways)
        features = [state_features(episodes, state, unit, finish)]
        # The join to this unit, and the join that would finish the edit: both are compared with what is expected.
        for entry in (unit, finish):
            entry_row = (base + entry).expand_as(expected_row)
            features.append(F.embedding(entry_row, states.query.flatten(0, 1)) * key)
            features.append(states.pair[entry_row * n_units + expected])
        dearer = [(way - least).clamp(max=_WORST_WAY) for way in ways]
        features.append(
            torch.stack([(dearer[1] - dearer[0]) / 4, least.clamp(max=2 * _WORST_WAY) / _WORST_WAY], dim=-1)
        )
        hidden = (
            _lookup(states.unit, row, at)
            + F.embedding(expected_row, states.expected.flatten(0, 1))
            + self.from_pair(torch.cat(features, dim=-1))
            + self.previous(state.previous)
        )
        hidden = F.gelu(self.mlp(F.gelu(hidden)))
        # The last column of the state says that keeping this unit would cost the end.
        logits = self.to_logits(hidden) + self.sticky(state.previous) + features[0][..., -1:] * self.spare_end
        # KEEP and CUT are the first two actions; the others are not looked ahead at.
        logits = logits - F.pad(self.trust * torch.stack(dearer, dim=-1), (0, N_ACTIONS - 2))
        # The value reads the trunk but does not shape it: the policy alone decides what the trunk represents.
        return Decision(logits.float(), self.value(hidden.detach())[..., 0].float())


def _lookup(table: torch.Tensor, row: torch.Tensor, at: int | slice) -> torch.Tensor:
    """Rows of (S, U, width) for every episode, at one unit (n, width) or at all (n, U, width)."""
    return table[:, at].index_select(0, row)
