"""Pairs of edits: proposing them, choosing the ones worth a person's time, and turning answers into tensors.

Proposals come from several generators, because a reward model knows only the kinds of edit it was shown: random walks,
one cut, few cuts at likely phrase starts, the exhaustive search and dynamic programming with random weights, the whole
song, truncation, small changes to good edits and, where there is one, the policy's own edits. Both sides of a pair are
edits of one song for one target.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations

import numpy as np
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.progress import Progress
from editorbot_core.editing.baselines import keep_all, one_cut, random_edit, truncate_and_fade
from editorbot_core.editing.batches import SongBatch, collate, stack_actions
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, REORDER_1, EditDecisionList, edl_of
from editorbot_core.editing.joins import DPWeights, SearchWeights
from editorbot_core.editing.retargeting import dp_unit_actions
from editorbot_core.editing.search import search_edits
from editorbot_core.preferences.preference import EditPair, Preference, fits
from editorbot_core.songs.song import Song

# How much answers of strength 0 (a tie), 1, 2 and 3 weigh where only their sign is learned from.
STRENGTH_WEIGHTS = (0.7, 0.7, 1.0, 1.3)

# Edits per song and target, and pairs made of them.
_POOL, _PAIRS_PER_POOL = 7, 8
_LONG_SHARE, _LONGEST = 0.1, 1.25


# A searched edit is one of this many cheapest.
_SEARCHED = 8


def mutated(actions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few small changes to an edit: joins moved by a few units, a unit flipped, looped, moved, or an end lost.

    Args:
        actions: Action ids per unit, int64 (n_units,), at least 4 units.
        rng: Source of all choices.

    Returns:
        Other action ids of which at least one unit is played, int64 (n_units,).
    """
    n = len(actions)
    while True:
        out = actions.copy()
        for _ in range(int(rng.integers(1, 4))):
            kind = rng.random()
            edges = np.flatnonzero(np.diff((out == CUT).astype(np.int64))) + 1
            unit = int(rng.integers(1, n - 1))
            if kind < 0.5 and len(edges):
                edge, step = int(rng.choice(edges)), int(rng.choice([-4, -3, -2, -1, 1, 2, 3, 4]))
                low, high = max(min(edge, edge + step), 1), min(max(edge, edge + step), n - 1)
                out[low:high] = out[edge] if step < 0 else out[edge - 1]
            elif kind < 0.7:
                out[unit] = KEEP if out[unit] == CUT else CUT
            elif kind < 0.78:
                out[unit] = LOOP_2 + int(rng.integers(3))
            elif kind < 0.86 and unit < n - 2:
                out[unit] = REORDER_1 + int(rng.integers(min(4, n - 2 - unit)))
            elif kind < 0.93:
                out[: int(rng.integers(1, min(9, n)))] = CUT
            else:
                out[-int(rng.integers(1, min(9, n))) :] = CUT
        if (out != CUT).any() and not np.array_equal(out, actions):
            return out


def few_cuts(song: Song, target_s: float, rng: np.random.Generator) -> np.ndarray:
    """One or two cuts between likely phrase starts that together meet the target; start and end are kept.

    Such edits differ only in where they join, which is what a reward model has to learn to hear.

    Args:
        song: At least 4 units.
        target_s: Duration asked for, s; where nothing can be cut, everything is kept.
        rng: Source of all choices.

    Returns:
        Action ids per unit, int64 (n_units,).
    """
    n = song.units.n_units
    bounds = np.concatenate([[0.0], np.cumsum(song.unit_durations)])
    likely = 0.1 + song.structure.phrase_start[1:]
    actions = np.full(n, KEEP)
    n_cuts = int(rng.integers(1, 3))
    surplus = song.duration - target_s
    shares = rng.dirichlet(np.full(n_cuts, 2.0))
    for i, share in enumerate(shares):
        left = surplus if i == n_cuts - 1 else share * surplus
        length = bounds[None, 2:n] - bounds[1 : n - 1, None]
        free = np.cumsum(actions == CUT)
        overlaps = (free[None, 1 : n - 1] - free[0 : n - 2, None]) > 0
        weight = np.exp(-(((length - left) / max(0.02 * target_s, 0.5 * float(np.median(song.unit_durations)))) ** 2))
        weight = weight * likely[: n - 2, None] * likely[None, 1 : n - 1] * (length > 0) * ~overlaps
        if weight.sum() < 1e-9:
            break
        choice = int(rng.choice(weight.size, p=(weight / weight.sum()).ravel()))
        start, stop = choice // weight.shape[1] + 1, choice % weight.shape[1] + 2
        actions[start:stop] = CUT
        surplus -= bounds[stop] - bounds[start]
    return actions


def _pool(
    song: Song, target_s: float, given: Sequence[EditDecisionList], rng: np.random.Generator
) -> list[tuple[str, EditDecisionList]]:
    """Different edits of one song for one target, with what made them."""

    def dp() -> EditDecisionList:
        actions = dp_unit_actions(song, target_s, weights=DPWeights.sample(rng), rng=rng)
        return edl_of(song, actions, target_duration_s=target_s, model={"name": "dp"})

    def mutation() -> EditDecisionList:
        good = [
            edl for _, edl in pool if edl.model.get("name") in ("dp", "few_cuts", "one_cut", "search") or edl in given
        ]
        base = good[int(rng.integers(len(good)))] if good else dp()
        actions = mutated(base.unit_actions, rng)
        return edl_of(song, actions, target_duration_s=target_s, model={"name": "mutation"})

    def cuts() -> EditDecisionList:
        return edl_of(song, few_cuts(song, target_s, rng), target_duration_s=target_s, model={"name": "few_cuts"})

    def searched() -> EditDecisionList:
        best = search_edits(song, target_s, weights=SearchWeights.sample(rng), n_best=_SEARCHED)
        actions = best[int(rng.integers(len(best)))].actions
        return edl_of(song, actions, target_duration_s=target_s, model={"name": "search"})

    makers: dict[str, tuple[float, Callable[[], EditDecisionList]]] = {
        "search": (4.0, searched),
        "few_cuts": (2.0, cuts),
        "mutation": (3.0, mutation),
        "random": (2.0, lambda: random_edit(song, target_s, rng=rng)),
        "dp": (2.0, dp),
        "one_cut": (1.0, lambda: one_cut(song, target_s)),
        "keep_all": (0.6, lambda: keep_all(song, target_s)),
        "truncate_fade": (0.6, lambda: truncate_and_fade(song, target_s)),
    }
    share = np.array([weight for weight, _ in makers.values()])
    pool = [("policy", edl) for edl in given]
    seen = {edl.actions.tobytes() for edl in given}
    n_tries = 0
    while len(pool) < max(_POOL, len(given) + 3) and n_tries < 4 * _POOL:
        n_tries += 1
        name = "search" if not pool else str(rng.choice(list(makers), p=share / share.sum()))
        edl = makers[name][1]()
        if edl.actions.tobytes() not in seen:
            seen.add(edl.actions.tobytes())
            pool.append((name, edl))
    return pool


def propose_pairs(
    songs: Sequence[Song],
    *,
    n_pairs: int,
    rng: np.random.Generator,
    policy_edits: Mapping[str, Sequence[EditDecisionList]] | None = None,
    ratios: tuple[float, float] = (0.35, 0.95),
    progress: Progress | None = None,
) -> list[EditPair]:
    """Pairs to be compared, evenly from all songs.

    Args:
        songs: What to edit; songs of fewer than 4 units are passed over.
        n_pairs: Pairs wanted. Fewer come back only if the songs do not allow so many different ones.
        rng: Source of all choices.
        policy_edits: Edits of a policy by track id, on the songs' units; each is compared with edits for its own
            target, and about half of the pairs of such a song involve them.
        ratios: Targets over song durations are drawn from this range, and one in ten from its end to 1.25.
        progress: Told about every pair.

    Raises:
        ParameterError: If there is nothing to edit, the range is empty, or a policy edit is on other units.
    """
    low, high = ratios
    if not 0 < low <= high or n_pairs < 1:
        raise ParameterError(f"ratios must be 0 < low <= high and n_pairs at least 1; got {ratios}, {n_pairs}")
    usable = [song for song in songs if song.units.n_units >= 4]
    if not usable:
        raise ParameterError("no song has at least 4 units (bars), so there are no two edits to compare")
    given = {track_id: list(edits) for track_id, edits in (policy_edits or {}).items()}
    for song in usable:
        if not all(fits(edl, song) for edl in given.get(song.track_id, [])):
            raise ParameterError(f"a policy edit of {song.track_id} is not on the song's units; make the edits again")
    pairs: dict[str, EditPair] = {}
    fruitless = 0
    while len(pairs) < n_pairs and fruitless < 3 * len(usable):
        for i in rng.permutation(len(usable)):
            song = usable[int(i)]
            own = given.get(song.track_id, [])
            if own and rng.random() < 0.7:
                lead = own[int(rng.integers(len(own)))]
                target_s = lead.target_duration_s
                same = [edl for edl in own if edl.target_duration_s == target_s and edl is not lead]
                chosen = [lead, *(same[int(j)] for j in rng.permutation(len(same))[:2])]
            else:
                is_long = rng.random() < _LONG_SHARE and high < _LONGEST
                target_s = song.duration * float(rng.uniform(high, _LONGEST) if is_long else rng.uniform(low, high))
                chosen = []
            pool = _pool(song, target_s, chosen, rng)
            both = list(combinations(range(len(pool)), 2))
            n_before = len(pairs)
            for j in rng.permutation(len(both))[: min(_PAIRS_PER_POOL, n_pairs - len(pairs))]:
                (first, a), (second, b) = (pool[k] for k in rng.permutation(both[int(j)]))
                # Other actions may play the same order; nobody can prefer one of two edits that sound the same.
                if a.segments != b.segments:
                    pair = EditPair.of(a, b, origin=f"{first}~{second}")
                    pairs.setdefault(pair.pair_id, pair)
            fruitless = 0 if len(pairs) > n_before else fruitless + 1
            if progress is not None:
                progress("pairs", len(pairs), n_pairs)
            if len(pairs) >= n_pairs:
                break
    return list(pairs.values())


def pairs_among(edits: Mapping[str, Sequence[EditDecisionList]]) -> list[EditPair]:
    """All pairs of edits of one song for one target that do not sound the same, given by track id."""
    pairs: dict[str, EditPair] = {}
    for own in edits.values():
        for a, b in combinations(own, 2):
            if a.target_duration_s == b.target_duration_s and a.segments != b.segments:
                pair = EditPair.of(a, b, origin=f"{a.model.get('name')}~{b.model.get('name')}")
                pairs.setdefault(pair.pair_id, pair)
    return list(pairs.values())


@dataclass(frozen=True)
class PairBatch:
    """Answers as tensors.

    Attributes:
        songs: S songs, in the order they were given.
        song_index: int64 (n,), the song of every pair.
        actions_a: int64 (n, U).
        actions_b: int64 (n, U).
        target_ratio: float32 (n,), asked-for duration over the song's.
        label: float32 (n,), P(a preferred): 1, 0.5 or 0.
        confidence: float32 (n,), in [0, 1].
        strength: int64 (n,), 0 for ties, else 1 to 3.
        source_index: int64 (n,), which of the given answers a row is.
        n_refused: Answers left out because their song is not among the songs or has other units now.
    """

    songs: SongBatch
    song_index: torch.Tensor
    actions_a: torch.Tensor
    actions_b: torch.Tensor
    target_ratio: torch.Tensor
    label: torch.Tensor
    confidence: torch.Tensor
    strength: torch.Tensor
    source_index: torch.Tensor
    n_refused: int

    @property
    def weight(self) -> torch.Tensor:
        """How much each answer weighs where its strength says nothing else, float32 (n,)."""
        return torch.tensor(STRENGTH_WEIGHTS, device=self.strength.device)[self.strength]

    def __len__(self) -> int:
        """Pairs in the batch."""
        return len(self.song_index)

    def select(self, index: torch.Tensor) -> "PairBatch":
        """The pairs at `index`, of the same songs."""
        rows = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name not in ("songs", "n_refused")}
        return PairBatch(songs=self.songs, n_refused=self.n_refused, **rows)

    def to(self, device: torch.device | str) -> "PairBatch":
        """The same pairs on `device`."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "n_refused"}
        return PairBatch(n_refused=self.n_refused, **moved)


def pair_batch(preferences: Iterable[Preference], songs: Sequence[Song]) -> PairBatch:
    """Answers about `songs` as tensors; answers that do not fit the songs' units are left out and counted."""
    place = {song.track_id: i for i, song in enumerate(songs)}
    kept: list[tuple[int, int, Preference]] = []
    n_refused = 0
    for j, preference in enumerate(preferences):
        i = place.get(preference.track_id)
        if i is None or not (fits(preference.a, songs[i]) and fits(preference.b, songs[i])):
            n_refused += 1
        else:
            kept.append((j, i, preference))
    batch = collate(songs)
    answers = [preference for _, _, preference in kept]

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return PairBatch(
        songs=batch,
        song_index=torch.tensor([i for _, i, _ in kept], dtype=torch.int64),
        actions_a=stack_actions([p.a.unit_actions for p in answers], batch.n_units),
        actions_b=stack_actions([p.b.unit_actions for p in answers], batch.n_units),
        target_ratio=column([p.a.target_duration_s / songs[i].duration for _, i, p in kept]),
        label=column([p.label for p in answers]),
        confidence=column([p.confidence for p in answers]),
        strength=torch.tensor([p.strength for p in answers], dtype=torch.int64),
        source_index=torch.tensor([j for j, _, _ in kept], dtype=torch.int64),
        n_refused=n_refused,
    )
