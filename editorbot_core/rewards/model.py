"""The reward model as a network: what people who compared edits would say of an edit, as a number in [-10, 10].

The model hears the *result* of an edit: it looks at every join of an edit, at what is kept and at what is missing
(`RewardModel.score`), twice. The *plain* part reads what is known without an encoder: how different both sides of a
join sound, phrase starts and phases, lengths and shares. The *heard* part reads the states of the song, which are
encoded once (`RewardModel.encode`), and is trained on what the plain part leaves unexplained. How much of it counts
(`heard_share`) is settled on songs that were not trained on: an encoder that has seen answers about a hundred songs
knows those by heart. The 121 audio features of a beat go through the
encoder; the 4 features that describe the edit (`EDIT_FEATURE_NAMES`) and the action ids enter after it, because they
differ between the edits of one song while the encoding does not.

Shapes: S songs, T beats, U units of the longest song, n edits, j joins. A *bound* is an instant between two units
(`editing.transitions`). Structure that is not known is written as zeros (`phrase_start`, `phase`) and -1 (`cluster`);
models see that case in training (`RewardConfig.structure_dropout`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from editorbot_core.analysis.features.columns import FEATURE_INDEX, N_FEATURES, columns_of
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.editing.edits import N_ACTIONS, REORDER_1
from editorbot_core.editing.transitions import JoinList, Transitions, all_slots, join_list, sum_by_edit, transitions
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.encoder import SongEncoder

SCORE_LIMIT = 10.0
EDIT_FEATURE_NAMES = ("edit_kept", "edit_kept_share_before", "edit_position", "edit_target_ratio")
N_INPUT_FEATURES = N_FEATURES + len(EDIT_FEATURE_NAMES)

# Material of a song is told apart by this many clusters; further ones share slots.
_N_CLUSTERS = 32
# A length error below this share of the song's duration is no error: a bar is about twice as long.
_DEAD_ZONE = 0.01
_FEATURE_LIMIT = 8.0
# Beats compared on either side of a join, with weight falling as 1 / distance.
CONTEXT_BEATS = 4
_BAR_COLUMNS = columns_of("bar phase")
# What is compared: timbre, harmony and level, each of equal weight.
_SOUND_GROUPS = (columns_of("MFCC"), columns_of("chroma"), columns_of("level", "stem energy"))
_SOUND_COLUMNS = [i for group in _SOUND_GROUPS for i in group]
# Length of a beat where none is given, s.
BEAT_S = 0.5


def _feature_groups() -> torch.Tensor:
    """What belongs together when two beats are compared, float32 (121, n_groups), columns summing to 1."""
    groups = [
        columns_of("level", "stem energy"),
        columns_of("spectral shape", "zero crossings"),
        columns_of("contrast"),
        columns_of("MFCC"),
        columns_of("MFCC delta"),
        columns_of("chroma"),
        columns_of("difference"),
        columns_of("bar phase"),
        # The centroid of the mix counts here too: models were trained so.
        [FEATURE_INDEX["spectral_centroid"], *columns_of("stem centroid", "stem share")],
    ]
    matrix = torch.zeros((N_FEATURES, len(groups)))
    for column, group in enumerate(groups):
        matrix[group, column] = 1.0 / len(group)
    return matrix


@dataclass(frozen=True)
class SongStates:
    """What a model knows of songs before it sees an edit.

    Attributes:
        songs: The songs.
        unit: float32 (S, U, P), states of the units.
        bound: float32 (S, U + 1, 2J), states of the bounds: of the beat before and of the beat after.
        around: float32 (S, U + 1, 4, 121), standardised features of the beat before and after a bound and means of the
            unit before and after.
        step: float32 (S, G), mean distance of neighbouring beats per feature group.
        structure: float32 (S, U + 1, 6), known or not, phrase start, four phase probabilities at the bounds.
        material: float32 (S, U, 32), which cluster a unit belongs to, one-hot; zeros where it is not known.
        context: float32 (S, U + 1, 2 * CONTEXT_BEATS, c), what is heard after and before a bound, beat by beat, scaled
            so that two random beats of the song differ by 1 in the mean square.
        bar: float32 (S, U + 1, 2), sine and cosine of the place in the bar at the bounds.
        heard: float32 (S,), how much the heard part counts; in training 0 or 1.
    """

    songs: SongBatch
    unit: torch.Tensor
    bound: torch.Tensor
    around: torch.Tensor
    step: torch.Tensor
    structure: torch.Tensor
    material: torch.Tensor
    context: torch.Tensor
    bar: torch.Tensor
    heard: torch.Tensor


def edit_columns(
    actions: torch.Tensor,
    moves: Transitions,
    unit_durations: torch.Tensor,
    target_ratio: torch.Tensor,
) -> torch.Tensor:
    """The 4 features that describe an edit, one row per unit, columns as `EDIT_FEATURE_NAMES`.

    Args:
        actions: int64 (n, U).
        moves: The joins of the edits.
        unit_durations: Seconds, float32 (n, U), 0 in padding.
        target_ratio: Asked-for duration over the song's, float32 (n,).

    Returns:
        float32 (n, U, 4): whether the unit is played; seconds played of the units before it and seconds of source
        before it, both over the song's duration; the target.
    """
    duration = unit_durations.sum(1, keepdim=True).clamp(min=1e-6)
    played = moves.repeats * unit_durations
    return torch.stack(
        [
            (moves.repeats > 0).float(),
            (played.cumsum(1) - played) / duration,
            (unit_durations.cumsum(1) - unit_durations) / duration,
            target_ratio[:, None].expand(actions.shape).float(),
        ],
        dim=-1,
    )


def model_input(edits: EditBatch) -> torch.Tensor:
    """The 125 features per beat of edits, float32 (n, T, 125): 121 of the song, 4 of the edit; 0 in padding."""
    songs, index = edits.songs, edits.song_index
    moves = transitions(edits.actions, edits.unit_mask)
    columns = edit_columns(edits.actions, moves, songs.unit_durations[index], edits.target_ratio)
    unit = songs.unit_id[index].clamp(max=songs.n_units - 1)
    per_beat = columns.gather(1, unit[..., None].expand(-1, -1, columns.shape[2]))
    return torch.cat([songs.features[index], per_beat * songs.beat_mask[index][..., None]], dim=-1)


def _shifted(values: torch.Tensor, *, before: torch.Tensor) -> torch.Tensor:
    """Rows per unit (S, U, c) to rows per bound of the unit before it (S, U + 1, c); `before` (c,) at bound 0."""
    return torch.cat([before.expand(values.shape[0], 1, -1), values], dim=1)


class RewardModel(nn.Module):
    """One member of the ensemble.

    Attributes:
        config: Its settings.
        feature_mean: float32 (121,), of the songs it was trained on.
        feature_scale: float32 (121,), standard deviations, positive.
        groups: float32 (121, G), which features are compared together.
        heard_share: How much the heard part counts, in [0, 1].
    """

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor
    groups: torch.Tensor
    sound_weights: torch.Tensor
    context_weights: torch.Tensor
    heard_share: torch.Tensor

    # change of sound, of the place in the bar, four-bar place and phrase missed, and that there is a join
    N_FAULTS = 5
    # phrase starts (3), phases (1), known (1), jump (5), same material (1), loop (1), song edges (2), change of sound
    N_JOIN_EXTRAS = 15
    N_GLOBALS = 22

    def __init__(self, config: RewardConfig) -> None:
        super().__init__()
        self.config = config
        groups = _feature_groups()
        hidden, unit_channels, join_channels = config.hidden, config.unit_channels, config.join_channels
        self.register_buffer("feature_mean", torch.zeros(N_FEATURES))
        self.register_buffer("feature_scale", torch.ones(N_FEATURES))
        self.register_buffer("groups", groups, persistent=False)
        # Two independent draws of a standardised column differ by 2 in the mean square.
        by_group = [torch.full((len(g),), (2 * len(_SOUND_GROUPS) * len(g)) ** -0.5) for g in _SOUND_GROUPS]
        self.register_buffer("sound_weights", torch.cat(by_group), persistent=False)
        near = (1.0 / torch.arange(1, CONTEXT_BEATS + 1)).repeat_interleave(2)
        self.register_buffer("context_weights", near / near.sum(), persistent=False)
        self.encoder = SongEncoder(
            N_FEATURES,
            hidden=hidden,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            n_convs=config.n_convs,
            dropout=config.dropout,
            chunk_beats=config.chunk_beats,
            overlap_beats=config.overlap_beats,
        )
        self.unit_state = nn.Linear(3 * hidden, unit_channels)
        self.state_before = nn.Linear(hidden, join_channels)
        self.state_after = nn.Linear(hidden, join_channels)
        self.song_start = nn.Parameter(torch.zeros(join_channels))
        self.song_end = nn.Parameter(torch.zeros(join_channels))
        n_join = 4 * groups.shape[1] + self.N_JOIN_EXTRAS

        def two_layers(n_in: int, n_out: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(n_in, 128), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(128, n_out))

        self.join_penalty = two_layers(n_join, config.n_penalties)
        self.heard_penalty = two_layers(n_join + 6 * join_channels, config.n_penalties)
        self.action = nn.Embedding(N_ACTIONS, unit_channels)
        self.edit_feature = nn.Linear(len(EDIT_FEATURE_NAMES), unit_channels)
        n_plain = config.n_penalties + 2 * self.N_FAULTS + self.N_GLOBALS + len(EDIT_FEATURE_NAMES)
        self.plain_head = two_layers(n_plain, 1)
        self.plain_line = nn.Linear(n_plain, 1)
        self.heard_head = two_layers(n_plain + config.n_penalties + 5 * unit_channels, 1)
        self.register_buffer("heard_share", torch.zeros(()))

    def standardise(self, features: torch.Tensor, beat_mask: torch.Tensor) -> torch.Tensor:
        """Features (S, T, 121) by the statistics of the training songs, within +-8, 0 in padding."""
        scaled = (features - self.feature_mean) / self.feature_scale
        return scaled.clamp(-_FEATURE_LIMIT, _FEATURE_LIMIT) * beat_mask[..., None]

    def encode(self, songs: SongBatch, *, heard_counts: bool | None = None) -> SongStates:
        """What is shared by all edits of the songs. On CUDA the encoder runs in bfloat16.

        Args:
            songs: S songs.
            heard_counts: Whether to run the encoder; by default, where it counts. For tracing, which must not look.
        """
        values = self.standardise(songs.features, songs.beat_mask)
        if self.training:
            heard = (torch.rand(songs.n_songs, device=values.device) >= self.config.state_dropout).float()
        else:
            heard = self.heard_share.expand(songs.n_songs)
        if bool(heard.any()) if heard_counts is None else heard_counts:
            seen = values + self.config.noise * torch.randn_like(values) if self.training else values
            with torch.autocast("cuda", torch.bfloat16, enabled=values.is_cuda):
                states = self.encoder(seen, songs.beat_mask).float()
        else:
            states = values.new_zeros((*values.shape[:2], self.config.hidden))
        n_units = songs.n_units
        # Sums over the beats of a unit; padding beats go to a slot of their own.
        slot = songs.unit_id.clamp(0, n_units)[..., None]
        n_beats = (songs.last_beat - songs.first_beat + 1)[..., None]

        def unit_mean(rows: torch.Tensor) -> torch.Tensor:
            sums = torch.zeros((rows.shape[0], n_units + 1, rows.shape[2]), dtype=rows.dtype, device=rows.device)
            return sums.scatter_add(1, slot.expand_as(rows), rows)[:, :n_units] / n_beats

        def at(rows: torch.Tensor, beat: torch.Tensor) -> torch.Tensor:
            return rows.gather(1, beat[..., None].expand(-1, -1, rows.shape[2]))

        first, last = at(states, songs.first_beat), at(states, songs.last_beat)
        unit = self.unit_state(torch.cat([unit_mean(states), first, last], dim=-1))
        counts = songs.unit_mask.sum(1)[:, None, None]
        is_end = torch.arange(n_units + 1, device=states.device)[None, :, None] >= counts
        before = _shifted(self.state_before(last), before=self.song_start)
        after = F.pad(self.state_after(first), (0, 0, 0, 1))
        after = torch.where(is_end, self.song_end, after)

        nothing = torch.zeros(N_FEATURES, device=states.device)
        place_in_bar = songs.features[..., _BAR_COLUMNS]
        upbeat = torch.tensor([0.0, 1.0], device=states.device)
        means = unit_mean(values)
        rows_after = [F.pad(at(values, songs.first_beat), (0, 0, 0, 1)), F.pad(means, (0, 0, 0, 1))]
        rows_before = [_shifted(at(values, songs.last_beat), before=nothing), _shifted(means, before=nothing)]
        around = torch.stack([rows_before[0], rows_after[0] * ~is_end, rows_before[1], rows_after[1] * ~is_end], dim=2)
        pair_mask = (songs.beat_mask[:, 1:] & songs.beat_mask[:, :-1])[..., None]
        steps = ((values.diff(dim=1) ** 2 @ self.groups).clamp(min=0) + 1e-6).sqrt() * pair_mask
        step = steps.sum(1) / pair_mask.sum(1).clamp(min=1) + 0.1

        known = (songs.phase.sum((1, 2)) > 0).float()[:, None, None]
        phrase = torch.where(is_end, known, F.pad(songs.phrase_start[..., None], (0, 0, 0, 1)))
        new_phrase = known * torch.tensor([1.0, 0.0, 0.0, 0.0], device=states.device)
        phase = torch.where(is_end, new_phrase, F.pad(songs.phase, (0, 0, 0, 1)))
        structure = torch.cat([known.expand_as(phrase), phrase, phase], dim=-1)
        slots = torch.arange(_N_CLUSTERS, device=states.device)
        material = (songs.cluster.clamp(max=_N_CLUSTERS - 1)[..., None] == slots).float()
        return SongStates(
            songs=songs,
            unit=unit,
            bound=torch.cat([before, after], dim=-1),
            around=around,
            step=step,
            structure=structure,
            material=material * songs.unit_mask[..., None],
            context=self._context(songs),
            bar=torch.where(is_end, upbeat, F.pad(at(place_in_bar, songs.first_beat), (0, 0, 0, 1))),
            heard=heard,
        )

    def _context(self, songs: SongBatch) -> torch.Tensor:
        """The sound around every bound, see `SongStates.context`."""
        mask = songs.beat_mask[..., None]
        sound = songs.features[..., _SOUND_COLUMNS]
        count = mask.sum(1, keepdim=True).clamp(min=1)
        centred = (sound - (sound * mask).sum(1, keepdim=True) / count) * mask
        scale = ((centred**2).sum(1, keepdim=True) / count + 1e-8).sqrt()
        rows = centred / scale * self.sound_weights
        last = songs.beat_mask.sum(1, keepdim=True) - 1
        ends = songs.last_beat.gather(1, (songs.unit_mask.sum(1, keepdim=True) - 1).clamp(min=0)) + 1
        bound = torch.cat([songs.first_beat, torch.zeros_like(ends)], dim=1)
        bound = torch.where(F.pad(songs.unit_mask, (0, 1)), bound, ends)
        near = []
        for k in range(CONTEXT_BEATS):
            for beat in (bound + k, bound - 1 - k):
                place = beat.clamp(min=0).minimum(last)
                near.append(rows.gather(1, place[..., None].expand(-1, -1, rows.shape[2])))
        return torch.stack(near, dim=2)

    def _join_inputs(
        self, states: SongStates, song: torch.Tensor, joins: JoinList
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of every join, float32 (j, ...): its faults, what is known of it, and what the encoder heard.

        `song` int64 (j,) is the song it is of.
        """
        leave, enter = joins.exit_bound, joins.entry_bound
        bound_out, bound_in = states.bound[song, leave], states.bound[song, enter]
        sound = (states.context[song, leave] - states.context[song, enter]).square().sum(2) @ self.context_weights
        distance = ((states.around[song, leave] - states.around[song, enter]) ** 2 @ self.groups + 1e-6).sqrt()
        relative = (distance / states.step[song][:, None]).log1p().flatten(1)
        out, into = states.structure[song, leave], states.structure[song, enter]
        phrase_out, phrase_in = out[:, 1], into[:, 1]
        jump = (enter - leave).float()
        n_units = states.songs.unit_mask.sum(1)[song]
        material_out = states.material[song, leave.minimum(n_units - 1)] * (leave < n_units)[:, None]
        same = (material_out * states.material[song, enter]).sum(1)
        quarter = jump * (torch.pi / 2)
        extras = [
            phrase_out,
            phrase_in,
            (phrase_out * phrase_in + 1e-6).sqrt(),
            (out[:, 2:] * into[:, 2:]).sum(1),
            out[:, 0],
            jump.abs().log1p(),
            jump.sign(),
            jump / n_units,
            quarter.cos(),
            quarter.sin().abs(),
            same,
            joins.is_loop.float(),
            (enter == 0).float(),
            (leave >= n_units).float(),
            sound,
        ]
        known = out[:, 0]
        faults = [
            sound,
            (0.5 - 0.5 * (states.bar[song, leave] * states.bar[song, enter]).sum(1)).clamp(0.0, 1.0),
            known * (1.0 - extras[3]),
            known * (1.0 - extras[2]),
            torch.ones_like(sound),
        ]
        plain = torch.cat([relative, torch.stack(extras, dim=1)], dim=1)
        heard = torch.cat([bound_out, bound_in, (bound_out - bound_in).abs()], dim=1)
        return torch.stack(faults, dim=1), plain, heard

    def _raw(
        self,
        states: SongStates,
        song: torch.Tensor,
        actions: torch.Tensor,
        target_ratio: torch.Tensor,
        columns: torch.Tensor | None,
        *,
        fixed_shapes: bool,
        heard_counts: bool | None = None,
    ) -> torch.Tensor:
        songs = states.songs
        mask, durations = songs.unit_mask[song], songs.unit_durations[song]
        moves = transitions(actions, mask)
        joins = all_slots(moves) if fixed_shapes else join_list(moves)
        faults, plain_join, heard_join = self._join_inputs(states, song[joins.edit], joins)

        def per_edit(values: torch.Tensor) -> torch.Tensor:
            return sum_by_edit(values, joins, actions.shape[0])

        faults = per_edit(faults)
        penalties = per_edit(F.softplus(self.join_penalty(plain_join))).log1p()
        known = self._globals(states, song, actions, target_ratio, moves)
        if columns is None:
            columns = edit_columns(actions, moves, durations, target_ratio)
        described = (columns * durations[..., None]).sum(1) / durations.sum(1, keepdim=True).clamp(min=1e-6)
        plain = torch.cat([penalties, faults, faults.log1p(), known, described], dim=1)
        raw = (self.plain_head(plain) + self.plain_line(plain))[:, 0]
        if not (bool(states.heard.any()) if heard_counts is None else heard_counts):
            return raw

        unit = states.unit[song]
        tokens = F.gelu(unit + self.action(actions.clamp(0, N_ACTIONS - 1)) + self.edit_feature(columns))
        seconds = moves.repeats * durations
        total = seconds.sum(1, keepdim=True)
        mean_kept = (tokens * (seconds / total.clamp(min=1e-6))[..., None]).sum(1)
        used = (moves.repeats > 0) & mask
        # Units that are not used stand 10 below all states, so an edit of nothing has a finite pool too.
        max_all = (unit - 10.0 * ~mask[..., None]).amax(1)
        max_used = (unit - 10.0 * ~used[..., None]).amax(1)
        rows = torch.arange(actions.shape[0], device=actions.device)
        edges = [unit[rows, moves.first], unit[rows, moves.last]]
        pools = torch.cat([mean_kept, max_used, max_all - max_used, *edges], dim=1)

        heard_penalties = F.softplus(self.heard_penalty(torch.cat([plain_join, heard_join], dim=1)))
        inputs = torch.cat([plain.detach(), per_edit(heard_penalties).log1p(), pools], dim=1)
        heard = states.heard[song]
        # What the encoder explains must not change what is explained without it.
        settled = torch.where(heard > 0, raw.detach(), raw) if self.training else raw
        return settled + heard * self.heard_head(inputs)[:, 0]

    def _globals(
        self,
        states: SongStates,
        song: torch.Tensor,
        actions: torch.Tensor,
        target_ratio: torch.Tensor,
        moves: Transitions,
    ) -> torch.Tensor:
        """What is known of the edits as a whole, float32 (n, N_GLOBALS)."""
        songs = states.songs
        mask, durations = songs.unit_mask[song], songs.unit_durations[song]
        n_units = mask.sum(1)
        duration = durations.sum(1).clamp(min=1e-6)
        ratio = (moves.repeats * durations).sum(1) / duration
        excess = ratio / target_ratio.clamp(min=1e-3) - 1.0
        over, under = F.relu(excess - _DEAD_ZONE), F.relu(-excess - _DEAD_ZONE)
        starts = moves.any_played & (moves.first == 0)
        ends = moves.any_played & (moves.last == n_units - 1)
        # Share of every cluster that is heard, saturating at all, half or a quarter of it.
        heard = ((moves.repeats > 0) * durations)[:, None] @ states.material[song]
        there = durations[:, None] @ states.material[song]
        heard, there = heard[:, 0], there[:, 0]
        share = heard / there.clamp(min=1e-6)
        half, quarter = (2.0 * share).clamp(max=1.0), (4.0 * share).clamp(max=1.0)
        clusters = (there > 0).float() / (there > 0).sum(1, keepdim=True).clamp(min=1)
        minutes = (ratio * duration / 60.0).clamp(min=0.01)
        structure = states.structure
        return torch.stack(
            [
                ratio,
                target_ratio,
                excess.abs().clamp(max=2.0),
                (20.0 * over).log1p(),
                (20.0 * under).log1p(),
                moves.n_joins.float().log1p(),
                10.0 * moves.n_joins / n_units / ratio.clamp(min=0.05),
                moves.extra_plays.sum(1).float().log1p(),
                ((actions >= REORDER_1) & mask).sum(1).float().log1p(),
                starts.float(),
                ends.float(),
                structure[song, moves.first, 1],
                structure[song, moves.last + 1, 1],
                (share * clusters).sum(1),
                (half * there).sum(1) / duration,
                (half * clusters).sum(1),
                (quarter * there).sum(1) / duration,
                (quarter * clusters).sum(1),
                (0.25 * moves.n_joins / minutes).log1p(),
                (moves.extra_plays - 1).clamp(min=0).sum(1).float().log1p(),
                structure[song, 0, 0],
                moves.any_played.float(),
            ],
            dim=1,
        )

    def score(self, states: SongStates, edits: EditBatch) -> torch.Tensor:
        """Scores of edits of the encoded songs, float32 (n,) in (-10, 10)."""
        if edits.songs.unit_mask.shape != states.songs.unit_mask.shape:
            raise ParameterError("the edits are of another batch of songs than the states; encode their songs first")
        raw = self._raw(states, edits.song_index, edits.actions, edits.target_ratio, None, fixed_shapes=False)
        return SCORE_LIMIT * torch.tanh(raw / SCORE_LIMIT)

    def forward(
        self,
        features: torch.Tensor,
        actions: torch.Tensor,
        target: torch.Tensor,
        unit_id: torch.Tensor,
        beat_durations: torch.Tensor | None = None,
        phrase_start: torch.Tensor | None = None,
        phase: torch.Tensor | None = None,
        cluster: torch.Tensor | None = None,
        *,
        heard_counts: bool = True,
    ) -> torch.Tensor:
        """Scores of B edits, one per row, in shapes set by B and T alone, which `torch.export` can trace.

        The first beat of a unit speaks for the unit. With durations and structure given and the edit features of
        `model_input`, the scores are those of `score`.

        Args:
            features: float32 (B, T, 125), 121 audio features and the 4 of the edit.
            actions: int64 (B, T), action ids per beat.
            target: float32 (B,), asked-for duration over the song's.
            unit_id: int64 (B, T), unit of every beat, counting from 0; -1 for padding.
            beat_durations: float32 (B, T), s; by default 0.5 each.
            phrase_start: float32 (B, T), probability that a phrase starts at the beat's unit; by default not known.
            phase: float32 (B, T, 4), probabilities of the unit's position mod 4 in its phrase; by default not known.
            cluster: int64 (B, T), material of the unit; by default not known.
            heard_counts: Whether to run the heard part; where `heard_share` is 0 the scores are the same without.
        """
        n_edits, n_beats = actions.shape
        beat_mask = (unit_id >= 0) & (unit_id < n_beats)
        slot = unit_id.where(beat_mask, torch.full_like(unit_id, n_beats))
        beats = torch.arange(n_beats, device=actions.device).expand(n_edits, n_beats)
        lowest = torch.full((n_edits, n_beats + 1), n_beats, device=actions.device)
        first = lowest.scatter_reduce(1, slot, beats, "amin")[:, :n_beats]
        last = torch.full_like(lowest, -1).scatter_reduce(1, slot, beats, "amax")[:, :n_beats]
        unit_mask = last >= 0
        first, last = first.where(unit_mask, 0), last.where(unit_mask, 0)
        if beat_durations is None:
            beat_durations = torch.full_like(features[..., 0], BEAT_S)
        seconds = torch.zeros_like(features[:, :1, 0]).expand(n_edits, n_beats + 1)
        seconds = seconds.scatter_add(1, slot, beat_durations * beat_mask)[:, :n_beats]

        def per_unit(values: torch.Tensor | None, width: int) -> torch.Tensor:
            if values is None:
                return torch.zeros((n_edits, n_beats, width), device=features.device)
            return values.gather(1, first[..., None].expand(-1, -1, width)) * unit_mask[..., None]

        material = torch.full_like(actions, -1) if cluster is None else cluster.gather(1, first)
        songs = SongBatch(
            features=features[..., :N_FEATURES] * beat_mask[..., None],
            beat_mask=beat_mask,
            unit_id=slot,
            unit_mask=unit_mask,
            unit_durations=seconds,
            first_beat=first,
            last_beat=last,
            movable=unit_mask,
            phrase_start=per_unit(None if phrase_start is None else phrase_start[..., None], 1)[..., 0],
            phase=per_unit(phase, 4),
            cluster=material.where(unit_mask, -1),
            duration=seconds.sum(1),
        )
        rows = torch.arange(n_edits, device=actions.device)
        unit_actions = actions.gather(1, first)
        columns = per_unit(features[..., N_FEATURES:], len(EDIT_FEATURE_NAMES))
        states = self.encode(songs, heard_counts=heard_counts)
        raw = self._raw(states, rows, unit_actions, target, columns, fixed_shapes=True, heard_counts=heard_counts)
        return SCORE_LIMIT * torch.tanh(raw / SCORE_LIMIT)
