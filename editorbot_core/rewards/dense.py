"""The dense reward: four terms in [0, 1] that need no learning, computed for all edits of a batch at once.

Every term is a mean over the joins of an edit (`editing.transitions`), each weighted by how often it is played. An edit
without joins scores 1 in every term, except that phrase completeness still judges a changed start or end; an edit that
plays nothing scores 0. Shapes: S songs, T beats, U units of the longest song, n edits, j joins. A *bound* is an instant
between two units.

- tempo consistency: how little the length of a beat changes across a join; half or twice the length scores 0.01.
- energy flow: how little the level changes across a join, beyond its usual change from beat to beat in the song.
- phrase completeness: whether joins leave and enter at phrase boundaries and continue the place in the phrase, by
  estimated structure; a start or end that is not the song's own counts as a join with one side.
- transition quality: how close the sound after a join is to what would have followed, relative to the song's median
  step from beat to beat.
"""

from typing import NamedTuple

import torch

from editorbot_core.analysis.features.columns import FEATURE_INDEX, columns_of
from editorbot_core.editing.batches import EditBatch, SongBatch, standardise_per_song
from editorbot_core.editing.transitions import join_list, sum_by_edit, transitions

DENSE_TERM_NAMES = ("tempo_consistency", "energy_flow", "phrase_completeness", "transition_quality")

_RMS = FEATURE_INDEX["rms"]
# What is compared at a join: the mix, without its zero crossings and without the stems.
_SOUND = columns_of("level", "spectral shape", "contrast", "MFCC", "chroma")
# Log ratio of beat lengths that counts 1/e: 15 %.
_TEMPO_SCALE = 0.15


class _Bounds(NamedTuple):
    """Inputs of the terms per bound of each song; `*_before[:, k]` and `*_after[:, k]` are the units around bound k.

    Attributes:
        beat_before: float32 (S, U + 1), log length of a beat, s.
        beat_after: float32 (S, U + 1).
        level_before: float32 (S, U + 1), log RMS.
        level_after: float32 (S, U + 1).
        level_step: float32 (S,), median change of the level from beat to beat, natural logarithm.
        sound_after: float32 (S, U + 1, c), standardised per song.
        sound_step: float32 (S,), median distance of neighbouring beats.
        phrase: float32 (S, U + 1), probability that a phrase starts at the bound; 1 at the end of the song.
        phase: float32 (S, U + 1, 4).
    """

    beat_before: torch.Tensor
    beat_after: torch.Tensor
    level_before: torch.Tensor
    level_after: torch.Tensor
    level_step: torch.Tensor
    sound_after: torch.Tensor
    sound_step: torch.Tensor
    phrase: torch.Tensor
    phase: torch.Tensor


def _median(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Median along the last axis where `mask` is True, 0 where it never is; (S,)."""
    return torch.where(mask, values, torch.nan).nanmedian(-1).values.nan_to_num(0.0)


def _bounds(songs: SongBatch) -> _Bounds:
    n_units = songs.unit_mask.sum(1)
    n_beats = (songs.last_beat - songs.first_beat + 1).float()
    beat = (songs.unit_durations / n_beats).clamp(min=1e-3).log()
    # The first and the last unit own the lead-in and the decay, which are no tempo.
    inner = songs.movable if bool(songs.movable.any()) else songs.unit_mask
    typical = _median(beat, inner)[:, None]
    beat = torch.where(songs.movable & songs.unit_mask, beat, typical)

    level = songs.features[..., _RMS].clamp(min=1e-5).log()
    pair_mask = songs.beat_mask[:, 1:] & songs.beat_mask[:, :-1]
    level_step = _median(level.diff(dim=1).abs(), pair_mask)

    sound = standardise_per_song(songs.features[..., _SOUND], songs.beat_mask, limit=None)
    step = (sound.diff(dim=1) ** 2).mean(-1).sqrt()
    sound_step = _median(step, pair_mask)

    def per_bound(values: torch.Tensor, at_end: torch.Tensor) -> torch.Tensor:
        """Values per unit as values per bound, of the unit after it; `at_end` (S, ...) at the end of each song."""
        tail = values.new_zeros((values.shape[0], 1, *values.shape[2:]))
        out = torch.cat([values, tail], dim=1)
        out[torch.arange(len(out), device=out.device), n_units] = at_end
        return out

    def before(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values[:, :1], values], dim=1)

    rows = torch.arange(len(level), device=level.device)[:, None]
    last_beat = songs.last_beat[rows[:, 0], n_units - 1]
    level_first, level_last = level[rows, songs.first_beat], level[rows, songs.last_beat]
    return _Bounds(
        beat_before=before(beat),
        beat_after=per_bound(beat, typical[:, 0]),
        level_before=before(level_last),
        level_after=per_bound(level_first, level[rows[:, 0], last_beat]),
        level_step=level_step,
        sound_after=per_bound(sound[rows, songs.first_beat], sound[rows[:, 0], last_beat]),
        sound_step=sound_step,
        phrase=per_bound(songs.phrase_start, torch.ones_like(songs.duration)),
        phase=per_bound(songs.phase, torch.eye(4, device=level.device)[:1].expand(len(level), 4)),
    )


def dense_terms(edits: EditBatch) -> torch.Tensor:
    """The four terms, float32 (n, 4) in [0, 1], columns as `DENSE_TERM_NAMES`; no gradients."""
    with torch.no_grad():
        songs, n_edits = edits.songs, len(edits.song_index)
        moves = transitions(edits.actions, edits.unit_mask)
        joins = join_list(moves)
        known = _bounds(songs)
        song = edits.song_index[joins.edit]
        leave, enter = joins.exit_bound, joins.entry_bound

        tempo = (-(known.beat_before[song, leave] - known.beat_after[song, enter]).abs() / _TEMPO_SCALE).exp()
        change = (known.level_before[song, leave] - known.level_after[song, enter]).abs()
        energy = (-(change - known.level_step[song]).clamp(min=0.0)).exp()
        boundary = (known.phrase[song, leave] * known.phrase[song, enter]).clamp(min=0.0).sqrt()
        continues = (known.phase[song, leave] * known.phase[song, enter]).sum(1)
        phrase = 0.5 * (boundary + continues)
        distance = ((known.sound_after[song, leave] - known.sound_after[song, enter]) ** 2).mean(1).sqrt()
        quality = (-(distance / known.sound_step[song].clamp(min=1e-3) - 1.0).clamp(min=0.0)).exp()

        sums = sum_by_edit(torch.stack([tempo, energy, phrase, quality], dim=1), joins, n_edits)
        counts = moves.n_joins[:, None].expand(-1, 4).float().clone()
        # A start or an end inside the song: half a join, judged by its one boundary.
        last_unit = edits.unit_mask.sum(1) - 1
        starts_inside, ends_inside = (moves.first != 0).float(), (moves.last != last_unit).float()
        sums[:, 2] += 0.5 * starts_inside * known.phrase[edits.song_index, moves.first]
        sums[:, 2] += 0.5 * ends_inside * known.phrase[edits.song_index, moves.last + 1]
        counts[:, 2] += 0.5 * (starts_inside + ends_inside)
        terms = torch.where(counts > 0, sums / counts.clamp(min=0.5), torch.ones_like(sums))
        return (terms * moves.any_played[:, None]).clamp(0.0, 1.0)


def dense_reward(edits: EditBatch) -> torch.Tensor:
    """Mean of the four terms, float32 (n,) in [0, 1]; a `RewardFunction`."""
    return dense_terms(edits).mean(1)
